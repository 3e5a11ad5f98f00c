"""A small corpus with known samples."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

Corpus = Callable[..., Path]


@pytest.fixture
def make_corpus(tmp_path: Path) -> Corpus:
    """Writes `clips` FLAC clips of noise of 0.2 to 4 s and their manifest; gives the manifest's path."""

    def make(clips: int = 12, folder: str = "corpus", seed: int = 0) -> Path:
        rng = np.random.default_rng(seed)
        root = tmp_path / folder
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

    return make
