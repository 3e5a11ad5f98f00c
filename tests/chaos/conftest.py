"""The corpora of the pipeline's tests, and one whose row c3 is poison."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.pipeline.conftest import Corpus, make_corpus, many, ray_here

__all__ = ["make_corpus", "many", "ray_here"]


@pytest.fixture
def poisoned(make_corpus: Corpus) -> Path:
    """6 rows, of which c3 peaks at 1 and the others at 0.5."""
    manifest = make_corpus(6)
    soundfile.write(manifest.parent / "audio" / "c3.flac", np.full(16000, 1.0, np.float32), 16000)
    rows = manifest.read_text().splitlines()
    rows[3] = rows[3][: rows[3].index('"duration"')] + '"duration": 1.0}'
    manifest.write_text("\n".join(rows) + "\n")
    return manifest
