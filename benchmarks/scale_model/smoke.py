"""The machinery alone: few clips, few steps, true experts, true runner. No figure of it means anything.

Checked: losses fall; arms have equal students; equal runs are equal; a sweep does only what is not there; replacing the
block's states changes the answers' states; the report can be made.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale_model.arms import ARMS, Regime, Run
from benchmarks.scale_model.data import prepare
from benchmarks.scale_model.picture import draw
from benchmarks.scale_model.report import page
from benchmarks.scale_model.report_parts import Found
from benchmarks.scale_model.results import Place, Result
from benchmarks.scale_model.sweep import REGIMES, run_jobs

CLIPS: Mapping[str, int] = {"train": 96, "validation": 24, "test": 24}
STEPS = 80
RATE = 2e-3


def runs(_: Place, regimes: Sequence[Regime] = REGIMES) -> list[Run]:
    taught = Run("pretrain", "A", RATE, 0, "pretrain", STEPS)
    scratch = [Run("scratch", arm, RATE, 0, "final", STEPS) for arm in (*ARMS, "C-pitch")]
    return [taught, *scratch, *(Run("tuned", arm, RATE, 0, "final", STEPS) for arm in ARMS)]


def smoke() -> None:
    """AssertionError where something does not hold."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "cache", Path(folder) / "results")
        prepare(place.cache, CLIPS)
        perform_all(place)
        results = {run: place.read(run) for run in runs(place)}
        for run, result in results.items():
            assert result is not None, run
            check(run, result)
        check_equal_students([r for r in results.values() if r])
        check_resumes(place)
        found = Found(place.all())
        assert draw(found, Path(folder) / "figure.svg")
        text = page(found, "figure.svg")
        print(text)
        assert all(f"| {arm} " in text for arm in ARMS)
    print("the machinery holds")


def perform_all(place: Place) -> None:
    """What is not there yet, as a sweep does it: in processes that have heard no expert."""
    assert not run_jobs(2, place, [("smoke", runs)])


def check(run: Run, result: Result) -> None:
    first, last = result["log"][0], result["log"][-1]
    losses = [key for key in first if key == "ce" or key.startswith("distill/")]
    assert len(losses) == {"C": 6, "D": 6, "C-pitch": 5}.get(run.arm, 1), (run, losses)
    assert last["ce"] < first["ce"], (run, first["ce"], last["ce"])
    assert sum(last[key] for key in losses) < sum(first[key] for key in losses), run
    if "causal" in result:
        kinds = [name for name in result["causal"] if name.startswith("block")]
        assert len(kinds) == (3 if run.has_block else 0), (run, kinds)
        moved = [max(result["causal"][name]["shift"].values()) for name in (*kinds, "audio: other clip")]
        assert all(moved), (run, moved)


def check_equal_students(results: list[Result]) -> None:
    """All weights; and those that are trained, from scratch. Under LoRA arms with a block train its 27 rows, too."""
    counts = {(r["run"]["regime"], r["run"]["arm"]): r["parameters"] for r in results if r["run"]["what"] == "final"}
    assert len({c["student"] for c in counts.values()}) == 1, counts
    assert len({c["trained"] for (regime, _), c in counts.items() if regime == "scratch"}) == 1, counts
    assert counts["tuned", "B"]["trained"] - counts["tuned", "A"]["trained"] == 27 * 96, counts
    assert (
        counts["scratch", "C"]["heads"] == counts["scratch", "D"]["heads"] > counts["scratch", "C-pitch"]["heads"] > 0
    )
    assert counts["scratch", "A"]["heads"] == counts["scratch", "B"]["heads"] == 0


def check_resumes(place: Place) -> None:
    """One result is gone: it alone is made again, and it is the same."""
    gone = Run("scratch", "C", RATE, 0, "final", STEPS)
    before, kept = place.read(gone), {f: f.stat().st_mtime_ns for f in place.results.iterdir()}
    place.file(gone).unlink()
    perform_all(place)
    assert before is not None
    then, now = timeless(before), timeless(place.read(gone) or {})
    assert then == now, {key: (then[key], now.get(key)) for key in then if then[key] != now.get(key)}
    changed = [f for f in place.results.iterdir() if f.stat().st_mtime_ns != kept.get(f)]
    assert changed == [place.file(gone)], changed


def timeless(result: Result) -> dict[str, Any]:
    log = [{k: v for k, v in row.items() if k != "steps_per_s"} for row in result["log"]]
    return {k: v for k, v in result.items() if k != "seconds"} | {"log": log}
