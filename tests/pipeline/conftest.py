"""A small corpus with known samples."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.pipeline.cluster.ray_connection import connect
from coat.pipeline.cluster.resources import Cluster

Corpus = Callable[..., Path]


def write_corpus(root: Path, clips: int = 12, seed: int = 0) -> Path:
    """`clips` FLAC clips of noise of 0.2 to 4 s and their manifest, whose path is given."""
    rng = np.random.default_rng(seed)
    (root / "audio").mkdir(parents=True)
    rows = []
    for i in range(clips):
        samples = rng.uniform(-0.5, 0.5, int(rng.uniform(0.2, 4.0) * 16000)).astype(np.float32)
        soundfile.write(root / "audio" / f"c{i}.flac", samples, 16000)
        seconds = len(samples) / 16000
        row = {"id": f"c{i}", "audio_filepath": f"audio/c{i}.flac", "duration": seconds}
        rows.append(row | {"prompt": "What is it?", "response": "noise"})
    path = root / "manifest.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


@pytest.fixture
def make_corpus(tmp_path: Path) -> Corpus:
    """`write_corpus` to a folder of the test's own."""

    def make(clips: int = 12, folder: str = "corpus", seed: int = 0) -> Path:
        return write_corpus(tmp_path / folder, clips, seed)

    return make


@pytest.fixture
def many(make_corpus: Corpus) -> Path:
    """480 rows over 40 files, about 16 minutes: enough units that a kill falls between them."""
    manifest = make_corpus(40)
    rows = manifest.read_text().splitlines()
    copies = [r.replace('"id": "c', f'"id": "k{k}-c') for k in range(12) for r in rows]
    manifest.write_text("\n".join(copies) + "\n")
    return manifest


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray of two CPUs for the tests of a module that do not kill it: it takes some 8 s to start."""
    import ray

    started = connect(Cluster(workers=2))
    yield
    if started:
        ray.shutdown()
