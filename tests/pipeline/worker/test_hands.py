"""One thread runs the models of all experts; experts of one cut go through it together."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from coat.manifests.audio.clip import AudioError, Clip
from coat.pipeline.decoding.decoded_row import DecodeCost
from coat.pipeline.decoding.evidence import Patience
from coat.pipeline.decoding.shared_audio import Cut, CutAudio
from coat.pipeline.worker.hands import ModelThread


def test_steps_of_one_cut_follow_its_rows_and_later_cuts_wait() -> None:
    models, begun, done = ModelThread(), threading.Event(), []

    def steps(name: str, rows: list[float]) -> Iterator[tuple[float, str]]:
        for row in rows:
            yield row, name
            done.append((name, row))

    def hold() -> Iterator[tuple[float, str]]:
        yield 0.0, ""
        begun.wait(60)

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(models.run, 0, hold())]  # until all the others are there
        waiting.append(pool.submit(models.run, 2, steps("later", [0.0, 1.0])))
        waiting.append(pool.submit(models.run, 1, steps("coarse", [0.0, 4.0])))
        waiting.append(pool.submit(models.run, 1, steps("fine", [0.0, 1.0, 2.0, 3.0, 4.5, 5.0])))
        while len(models.turns) < 4:
            time.sleep(0.001)
        begun.set()
    assert not any(w.exception() for w in waiting)
    assert done == [
        ("coarse", 0.0), ("fine", 0.0), ("fine", 1.0), ("fine", 2.0), ("fine", 3.0), ("coarse", 4.0),
        ("fine", 4.5), ("fine", 5.0), ("later", 0.0), ("later", 1.0),
    ]  # fmt: skip


def test_what_a_step_raises_ends_its_unit_alone() -> None:
    models = ModelThread()

    def broken() -> Iterator[tuple[float, str]]:
        yield 0.0, ""
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        models.run(1, broken())
    models.run(1, iter([(0.0, "")]))
    assert models.call(lambda: threading.current_thread().name).startswith("model")


def clip(value: float) -> Clip:
    return Clip(np.full(1600, value, np.float32), 16000)


def audio(*experts: str) -> CutAudio:
    return CutAudio(Cut(1, experts), Patience(0.0, threading.Event()))


def test_a_clip_is_kept_until_every_expert_that_has_its_row_had_it() -> None:
    cut, decoded = audio("a", "b", "c"), []

    def take(expert: str, row: str) -> DecodeCost:
        cost = DecodeCost()
        cut.sound(row, 16000, lambda: decoded.append(row) or (clip(0.1), None), cost)
        cut.had(expert, row)
        return cost

    cut.begin("a", ["x", "y"])
    assert (take("a", "x").clips, take("a", "y").clips) == (1, 1)
    cut.begin("b", ["x"])
    assert take("b", "x").saved_clips == 1
    assert set(cut.clips) == {"x", "y"}  # c has not begun
    cut.begin("c", ["x"])
    assert set(cut.clips) == {"x"}
    assert take("c", "x").saved_clips == 1
    assert not cut.clips
    assert decoded == ["x", "y"]
    assert [cut.end(expert) for expert in ("b", "a", "c")] == [False, False, True]


def test_what_an_expert_leaves_when_its_unit_is_given_up_is_dropped() -> None:
    cut = audio("a", "b")
    cut.begin("a", ["x"])
    cut.begin("b", ["x"])
    cut.sound("x", 16000, lambda: (clip(0.1), None), DecodeCost())
    cut.had("a", "x")
    assert not cut.end("b")
    assert not cut.clips


def test_a_clip_that_cannot_be_decoded_is_tried_once_and_a_fault_of_the_machine_by_each() -> None:
    cut, tries = audio("a", "b"), []

    def fails(error: Exception) -> tuple[Clip, None]:
        tries.append(error)
        raise error

    for _ in range(2):
        with pytest.raises(AudioError, match="cut short"):
            cut.sound("x", 16000, lambda: fails(AudioError("truncated", "cut short")), DecodeCost())
    assert len(tries) == 1
    for _ in range(2):
        with pytest.raises(OSError, match="stale"):
            cut.sound("y", 16000, lambda: fails(OSError("stale")), DecodeCost())
    assert len(tries) == 3


def test_each_rate_is_made_once_and_given_as_a_copy() -> None:
    cut, cost = audio("a", "b"), DecodeCost()
    _, source, one_T = cut.sound("x", 8000, lambda: (clip(0.1), "libsndfile"), cost)
    one_T[:] = 9.0
    found, again, other_T = cut.sound("x", 8000, lambda: (clip(0.2), None), cost)
    assert again == source == (clip(0.1).digest, "libsndfile")
    np.testing.assert_array_equal(other_T, found.at(8000))
    assert cut.sound("x", 16000, lambda: (clip(0.2), None), cost)[2] is not found.samples_T
