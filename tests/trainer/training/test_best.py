"""The best checkpoint by a held-out figure is kept, and a run without a better one ends early."""

import json
from pathlib import Path
from typing import Any

import pytest

from coat.manifests import InputError, RunError
from coat.trainer import TrainConfig, load_run, train
from coat.trainer.config.sections import is_highest
from coat.trainer.records.best import BestRecord
from coat.trainer.run_folder import RunFolder, read_evaluations
from tests.trainer.helpers import toy_config
from tests.trainer.training.processes import run_ranks, train_and_die
from tests.trainer.training.test_loop import assert_equal_runs


def config_of(student: Path, shards: Path, out: Path, steps: int = 12, **run: Any) -> TrainConfig:
    """With a rate that is far too high from the middle on: there the held-out loss is at its best."""
    first = {"name": "distill", "steps": 6, "ce": 0.1}
    stages = [first, {"name": "answer", "steps": steps - 6, "distill": 0.5, "lr": 50.0}]
    return toy_config(
        student, shards, out, stages=stages,
        evaluation={"shards": str(shards), "every": 2, "samples": 4, "answers": 0},
        optim={"lr": 0.02, "heads_lr": 0.02, "schedule": "constant"}, lora={"full": False, "rank": 2},
        run={"save_every": 100, "keep": 1, "best": "distill/mel", **run},
    )  # fmt: skip


def record(figure: str = "ce", highest: bool = False, since: int = 0, patience_since: int = 0) -> BestRecord:
    return BestRecord(figure=figure, highest=highest, since=since, patience_since=patience_since, evaluation={})


@pytest.mark.parametrize(
    ("made", "values", "expected"),
    [
        (record(), [3.0, 2.0, 2.5, 2.0], (20, 2.0, 2)),  # of equal ones the first
        (record(highest=True), [3.0, 2.0, 2.5], (10, 3.0, 2)),
        (record(), [float("nan"), 2.0, float("inf")], (20, 2.0, 1)),
        (record(since=30), [1.0, 1.0, 5.0, 4.0], (40, 4.0, 0)),
        (record(patience_since=20), [1.0, 2.0, 2.0, 2.0], (10, 1.0, 2)),
        (record(), [None, 2.0, None, 3.0], (20, 2.0, 1)),
        (record(), [], (None, None, 0)),
    ],
)
def test_the_best_of_evaluations(made: BestRecord, values: list[float], expected: tuple[Any, ...]) -> None:
    rows = [{"step": 10 * (i + 1), "x": 1.0} | ({} if v is None else {"ce": v}) for i, v in enumerate(values)]
    found = made.over(rows)
    assert (found.step, found.value, found.without_improvement) == expected


def test_what_is_better_is_known_by_the_name() -> None:
    assert all(is_highest(name) is True for name in ("accuracy", "accuracy/pitch", "benchmarks.x.strict.accuracy"))
    assert all(is_highest(name) is False for name in ("ce", "distill/mel", "unparsed", "wer"))
    assert is_highest("chance") is None


def test_settings_that_mean_nothing_are_refused(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    def refused(match: str, **parts: Any) -> None:
        with pytest.raises(InputError, match=match):
            toy_config(student_dir, shards_dir, tmp_path, **parts)

    held_out = {"shards": str(shards_dir)}
    refused("best_is and patience are of a figure", run={"patience": 2})
    refused("best 'tempo': its name does not say what is better", run={"best": "tempo"}, evaluation=held_out)
    refused("run.best 'ce' is a held-out figure; give evaluation.shards", run={"best": "ce"})
    named = toy_config(student_dir, shards_dir, tmp_path, run={"best": "x", "best_is": "highest"}, evaluation=held_out)
    assert named.run.best_is_highest


def test_the_best_checkpoint_outlives_the_others_and_can_be_asked(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(config_of(student_dir, shards_dir, run))
    rows = {row["step"]: row["distill/mel"] for row in read_evaluations(run)}
    best = min(rows, key=lambda step: rows[step])
    assert 2 < best < 12, rows  # else nothing is shown
    kept = BestRecord.read(run)
    assert kept is not None
    assert (kept.step, kept.value) == (best, rows[best])
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == [f"step-{best:08d}", "step-00000012"]
    assert load_run(run, step="best").step == best
    assert load_run(run).step == 12


def test_a_figure_that_is_never_measured_is_named(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = config_of(student_dir, shards_dir, tmp_path / "run", best="accuracy")  # nothing is asked
    with pytest.raises(RunError, match=r"'accuracy': no evaluation has such a figure; that of step 2 has ce, distill"):
        train(config)
    mended = config_of(student_dir, shards_dir, tmp_path / "run", best="ce")
    lines: list[str] = []
    assert train(mended, log=lines.append).finished
    assert "resumed at step 2 of 12" in lines


def test_a_run_without_a_better_one_ends_early_and_can_be_extended(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    whole = {row["step"]: row["distill/mel"] for row in evaluations_of_a_whole_run(student_dir, shards_dir, tmp_path)}
    best = min(whole, key=lambda step: whole[step])
    assert best <= 6, whole  # else there is no room for two without a better one

    lines: list[str] = []
    result = train(config_of(student_dir, shards_dir, out, patience=2), log=lines.append)
    assert (result.finished, result.step) == (True, best + 4)
    assert any(f"no better distill/mel in 2 evaluations than {whole[best]:.4g} of step {best}" in x for x in lines)
    assert json.loads((out / "done.json").read_bytes())["patience"] == 2
    assert load_run(out).step == best + 4
    lines.clear()
    assert train(config_of(student_dir, shards_dir, out, patience=2), log=lines.append).step == best + 4
    assert lines == [f"{out}: this run is finished at step {best + 4}; --restart trains it anew"]

    more = train(config_of(student_dir, shards_dir, out, patience=3))  # it would have gone on
    assert more.step == min(best + 6, 12)
    assert train(config_of(student_dir, shards_dir, out)).step == 12  # as one that was never stopped
    assert_equal_runs(out, tmp_path / "whole")


def evaluations_of_a_whole_run(student: Path, shards: Path, folder: Path) -> list[dict[str, Any]]:
    train(config_of(student, shards, folder / "whole"))
    return read_evaluations(folder / "whole")


def test_patience_begins_again_with_a_change(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = config_of(student_dir, shards_dir, out, patience=1)
    ended = train(first).step
    assert ended < 12
    changed = TrainConfig.from_dict({**first.to_dict(), "optim": {**first.optim.model_dump(), "lr": 1e-4}}, "test")
    assert train(changed, change=True).step > ended
    longer = [{"name": "distill", "steps": 6, "ce": 0.1}, {"name": "answer", "steps": 20, "distill": 0.5}]
    extended = TrainConfig.from_dict({**changed.to_dict(), "stages": longer, "run": {**first.run.model_dump(),
                                      "patience": None}}, "test")  # fmt: skip
    assert train(extended, change=True).step == 26


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_keeps_the_same_best_and_ends_at_the_same_step(
    student_dir: Path, shards_dir: Path, tmp_path: Path, ranks: int
) -> None:
    def config(name: str) -> TrainConfig:
        return config_of(student_dir, shards_dir, tmp_path / name, patience=2)

    log = tmp_path / "log"
    assert run_ranks(ranks, train_and_die, config("whole"), None, log) == [0] * ranks
    ended = RunFolder(tmp_path / "whole").done_step
    assert ended < 12
    for death in [(0, 3, "step"), (ranks - 1, 5, "step"), (0, ended, "done")]:
        assert run_ranks(ranks, train_and_die, config("cut"), death, log)[death[0]] == -9
    assert run_ranks(ranks, train_and_die, config("cut"), None, log) == [0] * ranks
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")
    for file in ("best.json", "done.json", "evaluation.jsonl"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    steps = [sorted(p.name for p in (tmp_path / n / "checkpoints").iterdir()) for n in ("cut", "whole")]
    assert steps[0] == steps[1]
