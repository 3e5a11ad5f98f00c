"""Experts of one CPU thread hear several clips at once, and give the same bytes."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from coat.extractors.expert import Frames, Waveform
from coat.pipeline.extraction import extraction
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.store.target_store import TargetStore
from tests.pipeline.conftest import Corpus
from tests.pipeline.experts import Level
from tests.pipeline.extraction.test_extract import HERE, tree

PATIENCE_S = 120.0
FIRST, SECOND = threading.Lock(), threading.Event()


class Pairs(Level):
    """Gives nothing before a second clip is in hand."""

    parallel_rows, pads = True, False

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if FIRST.acquire(blocking=False):
            assert SECOND.wait(PATIENCE_S)
        else:
            SECOND.set()
        return super().extract(waveforms)


class PickyPairs(Level):
    """Raises on a clip that is longer than 2 s."""

    parallel_rows, pads = True, False

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if any(len(w) > 2 * 16000 for w in waveforms):
            raise ValueError("too long")
        return super().extract(waveforms)


def run(manifest: Path, store: Path, expert: str) -> dict[str, np.ndarray]:
    """Frames of the rows that have some."""
    (summary,) = extract(str(manifest), str(store), [expert], resources=HERE)
    found = TargetStore(str(store)).target_set(summary.expert)
    return {row.id: found.read(row.id).frames for row in found.rows.values() if row.status == "ok"}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(extraction, "threads_per_worker", lambda cluster: 2)
    return monkeypatch


@pytest.mark.usefixtures("threads")
def test_two_clips_are_in_hand_at_once_and_each_has_its_own_frames(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(12)
    pairs = run(manifest, tmp_path / "two", f"{__name__}:Pairs")
    alone = run(manifest, tmp_path / "one", "tests.pipeline.experts:Level")
    assert list(pairs) == list(alone)
    assert all(np.array_equal(pairs[name], alone[name]) for name in alone)


@pytest.mark.usefixtures("threads")
def test_a_clip_that_raises_costs_no_other(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(24)
    kept = run(manifest, tmp_path / "two", f"{__name__}:PickyPairs")
    alone = run(manifest, tmp_path / "one", "tests.pipeline.experts:Level")
    assert kept.keys() == {name for name, frames in alone.items() if len(frames) <= 200}
    assert 0 < len(kept) < 24
    assert all(np.array_equal(kept[name], alone[name]) for name in kept)


def test_prosody_gives_equal_bytes_on_any_number_of_threads(
    make_corpus: Corpus, tmp_path: Path, threads: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opensmile", reason="pip install .[opensmile]")
    manifest = make_corpus(16)
    run(manifest, tmp_path / "two", "prosody")
    threads.setattr(extraction, "threads_per_worker", lambda cluster: 1)
    run(manifest, tmp_path / "one", "prosody")
    assert tree(tmp_path / "two") == tree(tmp_path / "one")
