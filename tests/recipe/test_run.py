"""A whole recipe: run, run again, changed, killed, moved; what it says and what it leaves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from coat.manifests import ShardIndex
from tests.integration.helpers import ROOT, coat_run, environment, forked_python
from tests.integration.ray_head import needs_ray_default, ray_head
from tests.pipeline.conftest import make_corpus, many
from tests.recipe.conftest import STAGES, Run

__all__ = ["make_corpus", "many"]

SLOW = """
out = "out"
[manifests.clips]
path = "corpus/manifest.jsonl"
[experts."tests.pipeline.experts:Slow"]
[extract]
manifests = "clips"
workers = 0
unit_bytes = 20000
[stats]
"""


def change(recipe: Path, old: str, new: str) -> Path:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    return recipe


def what_ran(said: str) -> list[str]:
    """Stages that ended in this run, by their closing lines."""
    return re.findall(r"^\[\d+/\d+\] (\S+): [\d.]+ s$", said, flags=re.MULTILINE)


def test_all_stages_and_a_page_whose_links_lead_somewhere(done: Path) -> None:
    out = done / "made here"
    assert ShardIndex.read(str(out / "shards" / "train")).experts.keys() == {"mel", "level"}
    assert json.loads((out / "evaluations/heldout/results.json").read_text())["benchmarks"]["manifest"]["rows"] == 4
    page = (out / "index.html").read_text()
    links = [unquote(link) for link in re.findall(r'href="([^"]+)"', page) if link != "data:,"]
    assert {"stats.html", "fidelity.html", "report.html", "exported/README.md", "run/config.toml"} <= set(links)
    assert all((out / link).is_file() for link in links)
    assert all(f"<td>{name}<br>" in page for name in STAGES)
    assert "level " in page
    assert "16 samples" in page


def test_what_is_unchanged_is_skipped_also_in_another_place(done: Path, run: Run) -> None:
    started = time.monotonic()
    said = run(done / "recipe.toml")
    assert time.monotonic() - started < 20
    assert said.count(": done already") == len(STAGES)
    assert what_ran(said) == []


def test_resources_and_comments_are_no_change(done: Path, run: Run) -> None:
    change(done / "recipe.toml", "workers = 0", "workers = 0\nshuffle_units = true  # any order")
    change(done / "train.toml", "rank = 2", "rank = 2   # small")
    assert run(done / "recipe.toml").count(": done already") == len(STAGES)


def test_a_changed_key_is_named_and_what_is_before_it_stays(done: Path, run: Run) -> None:
    change(done / "recipe.toml", "level = 1.0", "level = 0.5")
    assert "so these would be made anew" in run(done / "recipe.toml", "--dry-run")
    said = run(done / "recipe.toml", status=2)
    assert "train: again, because settings.losses.weights.level changed from 1.0 to 0.5" in said
    assert "evaluate.heldout (made here/evaluations/heldout)" in said
    assert "--again train" in said
    assert not (done / "made here/run.1").exists()
    said = run(done / "recipe.toml", "--again", "train")
    assert what_ran(said) == ["train", "fidelity", "evaluate.heldout", "report", "export"]
    assert (done / "made here/run.1/done.json").is_file()
    assert (done / "made here/exported.1/README.md").is_file()
    assert "level = 0.5" in (done / "made here/run/config.toml").read_text()
    assert run(done / "recipe.toml").count(": done already") == len(STAGES)


def test_a_page_is_made_anew_without_being_asked(done: Path, run: Run) -> None:
    change(done / "recipe.toml", "samples = 2", "samples = 3")
    assert what_ran(run(done / "recipe.toml")) == ["fidelity"]


def test_a_key_of_the_training_config_is_named(done: Path, run: Run) -> None:
    change(done / "train.toml", "rank = 2", "rank = 4")
    assert "train: again, because lora.rank changed from 2 to 4" in run(done / "recipe.toml", status=2)


def test_a_command_that_refuses_says_what_to_do(done: Path, run: Run) -> None:
    """Nothing that holds one result comes after the training here, so the command itself is asked."""
    change(done / "train.toml", "rank = 2", "rank = 4")
    for _ in range(2):
        said = run(done / "recipe.toml", "--until", "train", status=2)
        assert "train: again, because lora.rank changed from 2 to 4" in said
        assert "holds a run with another config (lora.rank" in said
        assert "made here/run holds what other settings made: give another --out, or --again train" in said
    assert (done / "made here/run/done.json").is_file()
    change(done / "train.toml", "rank = 4", "rank = 2")
    assert run(done / "recipe.toml").count(": done already") == len(STAGES)


def test_what_is_gone_is_made_again(done: Path, run: Run) -> None:
    (done / "made here/report.html").unlink()
    said = run(done / "recipe.toml")
    assert what_ran(said) == ["report"]
    assert "report: again, because made here/report.html is not there" in said


def test_shards_that_were_removed_are_built_again_and_nothing_after_them(done: Path, run: Run) -> None:
    shutil.rmtree(done / "made here/shards")
    assert "train: done already" in run(done / "recipe.toml", "--from", "train")
    assert what_ran(run(done / "recipe.toml")) == ["shards.train", "shards.valid"]


def test_a_kill_just_before_the_note_is_no_work_lost(done: Path, run: Run) -> None:
    """The command had ended: what it makes is there, and was not there (or was another) when it began."""
    path = done / "made here/stages/shards.valid.json"
    note = json.loads(path.read_text())
    for before in ([None], ["another"]):
        path.write_text(json.dumps({**note, "state": "begun", "before": before, "made": None}))
        assert "shards.valid: done already" in run(done / "recipe.toml")
        assert json.loads(path.read_text())["made"] == note["made"]
    path.write_text(json.dumps({**note, "state": "begun", "before": list(note["made"].values())}))
    said = run(done / "recipe.toml", status=2)  # it had not: the command is asked, and has its own opinion
    assert "shards.valid: goes on where it stopped" in said
    assert "holds a shard set already" in said


def test_an_edited_manifest_is_not_written_over(done: Path, run: Run) -> None:
    manifest = done / "made here/clips/train.jsonl"
    manifest.write_text(manifest.read_text().replace("?", " ?"))
    edited = manifest.read_bytes()
    change(done / "recipe.toml", "clips = 20", "clips = 21")
    run(done / "recipe.toml", "--until", "manifests", status=2)
    assert manifest.read_bytes() == edited
    said = run(done / "recipe.toml", "--until", "manifests", "--again", "manifests")
    assert "kept as train.jsonl.1" in said
    assert (manifest.parent / "train.jsonl.1").read_bytes() == edited


def test_from_and_until(done: Path, run: Run) -> None:
    said = run(done / "recipe.toml", "--from", "shards", "--until", "train", "--out", done / "new", status=2)
    assert "shards.train: new/clips/train.jsonl is not made yet; begin with --from manifests.clips" in said
    said = run(done / "recipe.toml", "--until", "student", "--out", done / "new", "--set", "manifests.clips.clips=10")
    assert what_ran(said) == ["manifests.clips", "student"]
    assert sorted(p.name for p in (done / "new").iterdir()) == ["clips", "index.html", "stages", "student"]
    assert "no such stage; expected one of manifests.clips" in run(done / "recipe.toml", "--from", "shard", status=2)
    assert "comes after --until" in run(done / "recipe.toml", "--from", "train", "--until", "shards", status=2)


def test_json_is_all_that_is_on_stdout(done: Path) -> None:
    (done / "made here/stats.html").unlink()
    found = json.loads(coat_run("run", done / "recipe.toml", "--json").stdout)
    assert [stage["name"] for stage in found["stages"]] == list(STAGES)
    assert [s["name"] for s in found["stages"] if s["outcome"] == "done"] == ["stats"]
    (targets,) = [s["made"]["targets"] for s in found["stages"] if s["name"] == "extract"]
    assert [(t["expert"], t["ok"]) for t in targets] == [("mel", 20), ("level", 20)]


def start(recipe: Path) -> subprocess.Popen[str]:
    """In a process of its own; what it prints goes to `said.txt`, which no reader can close."""
    command = [sys.executable, "-m", "coat", "run", str(recipe)]
    with recipe.with_name("said.txt").open("w") as said:
        return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=said, stderr=said, text=True)


def wait_for(path: Path, pattern: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not any(path.glob(pattern)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(process: subprocess.Popen[str]) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


@pytest.fixture
def slow(many: Path, tmp_path: Path) -> Path:
    """A recipe whose extraction takes a while: 480 rows in units of a few."""
    (tmp_path / "recipe.toml").write_text(SLOW)
    return tmp_path / "recipe.toml"


def test_killed_in_a_stage_with_all_its_processes_the_same_command_goes_on(slow: Path, run: Run) -> None:
    killed = start(slow)
    wait_for(slow.parent, "out/targets/slow/*/units/*/done.json", killed)
    for pid in [*children(killed), killed.pid]:
        os.kill(pid, signal.SIGKILL)
    killed.wait()
    assert json.loads((slow.parent / "out/stages/extract.json").read_text())["state"] == "begun"
    said = run(slow)
    assert "extract: goes on where it stopped" in said
    assert re.search(r"slow: [1-9]\d* of 480 rows are done already", said)
    assert what_ran(said) == ["extract", "stats"]
    assert run(slow).count(": done already") == 2


def test_a_stage_that_outlives_its_run_is_waited_for(slow: Path, run: Run) -> None:
    killed = start(slow)
    wait_for(slow.parent, "out/targets/slow/*/units/*/done.json", killed)
    (stage, *_) = children(killed)
    assert "wait for it, or give another --out" in run(slow, status=2)  # while both are alive
    killed.kill()
    killed.wait()
    os.kill(stage, 0)  # it lives
    said = run(slow)
    assert "the stage that it began is still at work; waiting for it" in said
    assert "480 of 480 rows are done already" in said


def test_an_interruption_is_passed_on(slow: Path, run: Run) -> None:
    asked = start(slow)
    wait_for(slow.parent, "out/targets/slow/*/units/*/done.json", asked)
    below = children(asked)
    asked.terminate()
    assert asked.wait(timeout=60) == 130
    assert "the same command goes on from there" in slow.with_name("said.txt").read_text()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in below)


@pytest.mark.slow
def test_on_a_ray_cluster(slow: Path) -> None:
    """The stages that can use one are given its address."""
    needs_ray_default()
    slow.write_text(SLOW.replace("Slow", "Level").replace("[stats]", '[shards.train]\nmanifest = "clips"'))
    with ray_head() as head:
        done = subprocess.run(
            [
                *forked_python(),
                "-m",
                "coat",
                "run",
                str(slow),
                "--ray-address",
                head.address,
                "--set",
                "extract.workers=1",
            ],
            cwd=ROOT,
            env={**head.env, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count(f"--ray-address {head.address}") == 2
    assert ShardIndex.read(str(slow.parent / "out/shards/train")).samples == 480
