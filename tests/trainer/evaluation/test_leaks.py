"""Rows that were trained on are named: by their sound, whatever its file is called, and by their question."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests import ShardIndex
from coat.trainer.evaluation.evaluation import evaluate
from tests.trainer.evaluation.helpers import RATE, Listener, settings_of, write_questions
from tests.trainer.helpers import toy_sample, write_shards


def of_16_bits(audio: np.ndarray) -> np.ndarray:
    """As a file has it that a corpus is made of."""
    return (np.round(audio * 32767) / 32768).astype(np.float32)


def test_leaks(tmp_path: Path) -> None:
    """Toy shards say nothing of what was heard: their audio is decoded. Two rows are of it, one of these as WAV."""
    audios = [of_16_bits(toy_sample(i, seconds=0.4 + 0.1 * i)["audio"]) for i in range(3)]
    shards = write_shards(tmp_path / "shards", [toy_sample(i, audio=audio) for i, audio in enumerate(audios)])
    data = write_questions(tmp_path / "data", rows=5)
    for name, i in (("q1", 2), ("q4", 0)):
        soundfile.write(tmp_path / "data" / f"{name}.wav", audios[i], RATE, subtype="PCM_16")
    (tmp_path / "data" / "q3.wav").unlink()
    settings = settings_of(data, "listener", guard=0, train_shards=[str(shards)])
    found = evaluate(settings, tmp_path / "e", lambda _: Listener())
    assert found
    leaks = found.benchmarks["manifest"].leaks
    assert leaks
    assert (leaks.audio, leaks.samples, leaks.not_compared) == (["q1", "q4"], 3, 1)
    assert leaks.question == [f"q{i}" for i in range(5)]  # "High or low?"
    without = evaluate(settings_of(data, "listener", guard=0), tmp_path / "e", lambda _: Listener())
    assert without
    assert without.benchmarks["manifest"].leaks is None


def test_what_samples_parquet_says_is_used(make_built_shards: Path, tmp_path: Path) -> None:
    assert ShardIndex.read(str(make_built_shards)).samples_xxh3
    data = write_questions(tmp_path / "data", rows=3)
    settings = settings_of(data, "listener", guard=0, train_shards=[str(make_built_shards)])
    found = evaluate(settings, tmp_path / "e", lambda _: Listener())
    assert found
    leaks = found.benchmarks["manifest"].leaks
    assert leaks
    assert leaks.audio == ["q0", "q1"]


@pytest.fixture
def make_built_shards(tmp_path: Path) -> Path:
    """By `build-shards` itself, of the first two questions at another rate."""
    from coat.manifests import Manifest
    from coat.pipeline.cluster.resources import Resources
    from coat.pipeline.extraction.extraction import extract
    from coat.pipeline.shards.build import build_shards

    manifest = write_questions(tmp_path / "corpus", rows=2)
    assert len(Manifest.read(str(manifest))) == 2
    extract(str(manifest), str(tmp_path / "store"), ["mel"], resources=Resources(workers=0))
    build_shards(str(manifest), str(tmp_path / "store"), ["mel"], str(tmp_path / "built"), sample_rate=8000)
    return tmp_path / "built"
