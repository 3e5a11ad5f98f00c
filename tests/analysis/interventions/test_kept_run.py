"""The scale model's causal tests, and `coat intervene` on the run that is kept: one table."""

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.scale_model import arms, data, measure
from benchmarks.scale_model.arms import Run
from benchmarks.scale_model.keep import DONOR, command, keep
from benchmarks.scale_model.student import make_student
from benchmarks.scale_model.training import asker_of
from coat.analysis.interventions.intervene import Settings, intervene
from coat.analysis.interventions.kinds import MEAN, OTHER, ZERO, Intervention
from coat.analysis.interventions.places import AUDIO, BLOCK

CLIPS = {"train": 8, "validation": 1, "test": 6}
EXPERTS = ("mel",)
FIGURES = ("accuracy", "changed", "donor", "shift")


def test_the_table_of_a_kept_run_is_that_of_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "EXPERTS", EXPERTS)
    monkeypatch.setattr(data, "EXPERTS", EXPERTS)
    cache, out, run = tmp_path / "cache", tmp_path / "kept", Run("scratch", "C", 1e-5, 0, "final", 4)
    student = make_student(cache / "students" / "plain-0", 0) / "model.safetensors"
    weights = load_file(student)
    weights["multi_modal_projector.linear.weight"] *= 300  # else all answers are one: states hardly differ by clip
    save_file(weights, student, metadata={"format": "pt"})
    data.prepare(cache, CLIPS)
    trained = keep(run, cache, data.load_split(cache, "train"), out, CLIPS["test"], EXPERTS)
    asker = asker_of(run, trained.collator, data.load_split(cache, "test"))
    table = measure.causal(trained.model, asker, CLIPS["test"])
    done = [*(Intervention(BLOCK, what) for what in (OTHER, MEAN, ZERO)), Intervention(AUDIO, OTHER)]
    results = intervene(
        out / "run",
        Settings(
            shards=(str(out / "shards"),), interventions=tuple(done), donor_key=DONOR, pool=100 * len(run.questions)
        ),
    )
    assert results is not None
    assert (results.rows, results.clips, results.by) == (36, 6, "task")
    names = {"untouched": "untouched"} | {one.name: f"{one.place}: {measure.NAMES[one.what]}" for one in done}
    compared = 0
    for line in results.lines:
        for figure in FIGURES:
            if line.group and figure in (expected := table[names[line.intervention]]):
                value = line.figures[figure].value
                assert value == pytest.approx(expected[figure][line.group], abs=1e-4, rel=1e-3), (line, figure)
                compared += 1
    assert compared == len(run.questions) * (1 + 4 + 3 + 3 + 4)
    said = table["block: zero"]["changed"].values(), table["audio: other clip"]["changed"].values()
    assert any(share > 0 for shares in said for share in shares)  # there is something to reproduce
    assert command(run, out).startswith(f"coat intervene --run {out / 'run'} --shards {out / 'shards'} --donor donor")
