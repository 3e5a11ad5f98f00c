"""Dry runs: what is shown, and the recipes that ship."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import ROOT, coat, coat_run
from tests.recipe.conftest import LEVEL, STAGES, Run

RECIPES = sorted((ROOT / "configs/recipes").glob("*.toml"))


def test_there_is_one_for_each_student() -> None:
    students = {"qwen2-audio-7b.toml", "qwen2.5-omni-7b.toml", "audio-flamingo-3.toml", "qwen3-omni-30b-a3b.toml"}
    assert {p.name for p in RECIPES} == {*students, "quickstart.toml"}


@pytest.mark.parametrize("file", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_that_ships_is_dry_run(file: Path, tmp_path: Path) -> None:
    """With a tiny student of its kind, whose memory is planned: there is no hub."""
    kinds = {"qwen2-audio-7b": "qwen2-audio", "qwen2.5-omni-7b": "qwen2.5-omni", "qwen3-omni-30b-a3b": "qwen3-omni"}
    student: tuple[object, ...] = ()
    if file.stem != "quickstart":
        coat("tiny-student", kinds.get(file.stem, file.stem), tmp_path / "student")
        student = ("--set", f"train.student={tmp_path / 'student'}")
    found = dry_run(file, "--out", tmp_path / "out", *student)
    assert not (tmp_path / "out").exists()
    by_name = {stage["name"]: stage for stage in found["stages"]}
    assert {"extract", "shards.train", "train", "evaluate.heldout", "report"} <= by_name.keys()
    assert all(stage["state"] == "to do" for stage in found["stages"])
    assert any("steps" in note for note in by_name["train"]["notes"])
    if student:
        assert any(note.endswith("fits 80GB") for note in by_name["train"]["notes"])
        assert any("data/corpus.jsonl: no such file" in note for note in by_name["manifests.corpus.split"]["notes"])
        assert by_name["extract.whisper"]["notes"] == [f"known when {tmp_path}/out/manifests/corpus is made"]
    else:
        assert found["left_out"] == {}


def dry_run(recipe: Path, *arguments: object) -> dict[str, Any]:
    return json.loads(coat_run("run", recipe, "--dry-run", "--json", *arguments).stdout)


def test_a_dry_run_tells_hours_bytes_time_and_cost(done: Path) -> None:
    recipe = done / "recipe.toml"
    with recipe.open("a") as file:
        file.write('[plan]\nspeed = 100\ngpu_hour_price = 3.6\ngpu = "80GB"\nseconds = 3\nsamples_per_s = 2\n')
    found = dry_run(recipe, "--out", done / "new")
    assert not (done / "new").exists()
    assert [stage["name"] for stage in found["stages"]] == list(STAGES)
    by_name = {stage["name"]: stage for stage in found["stages"]}
    assert "known when new/clips/manifest.jsonl is made" in by_name["extract"]["notes"]
    assert "2 steps, 4 samples" in by_name["train"]["notes"]
    assert by_name["train"]["seconds"] == 2.0
    assert all(stage["state"] == "to do" for stage in found["stages"])
    assert "coat build-shards" in by_name["shards.train"]["command"]

    found = dry_run(recipe, "--again", "extract")
    one = next(stage for stage in found["stages"] if stage["name"] == "extract")
    assert one["hours"] == 0
    assert one["notes"] == ["mel: 20 of 20 rows are there", "level: 20 of 20 rows are there"]
    assert one["state"] == "again, as asked"
    assert next(s for s in found["stages"] if s["name"] == "manifests.clips")["state"] == "done"


def test_a_corpus_that_is_there_is_planned(done: Path) -> None:
    recipe = done / "recipe.toml"
    recipe.write_text(recipe.read_text() + "[plan]\nspeed = { mel = 100 }\ngpu_hour_price = 3.6\n")
    found = dry_run(recipe, "--until", "extract", "--set", "extract.store=other")
    one = found["stages"][-1]
    assert one["state"] == "again, because made here/other is not there"
    assert one["hours"] > 0
    assert one["bytes"] > 0
    assert one["seconds"] == pytest.approx(one["hours"] * 36)  # of mel alone
    assert one["cost"] == pytest.approx(one["seconds"] / 1000)
    assert one["notes"] == [f"time of {LEVEL}: give [plan] speed"]


def test_on_a_cluster_ranks_are_workers(done: Path, run: Run) -> None:
    recipe = done / "recipe.toml"
    more = "processes = 2\nworkers = 4\ngpus_per_worker = 1.0\n"
    recipe.write_text(recipe.read_text().replace('config = "train.toml"\n', f'config = "train.toml"\n{more}'))
    here = run(recipe, "--dry-run", "--from", "train", "--until", "train")
    assert "accelerate launch --num_processes 2 -m coat train" in here
    assert "--gpus-per-worker" not in here
    there = run(recipe, "--dry-run", "--ray-address", "auto")
    commands = {line.split(":  ")[0]: line.split(":  ")[1] for line in there.splitlines() if ":  coat " in line}
    assert "--workers 4 --gpus-per-worker 1.0 --ray-address auto" in commands["train"]
    on_ray = {name for name, command in commands.items() if "--ray-address auto" in command}
    assert on_ray == {"extract", "stats", "shards.train", "shards.valid", "train", "evaluate.heldout"}
