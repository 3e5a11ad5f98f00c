"""`coat probe` as a whole: a student whose block is a known map of the pitch, runs compared, kills, wrong input."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from coat.analysis.probing.cache import units_of
from coat.analysis.probing.subject import Subject
from coat.cli.main import app
from coat.manifests import InputError, RunError, ShardIndex
from coat.trainer import train
from tests.analysis.probing.helpers import KnownBlock, probed_samples, probed_shards
from tests.trainer.helpers import toy_config
from tests.trainer.training.processes import accelerate_launch

Probe = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probed_shards(tmp_path_factory.mktemp("probed"))


@pytest.fixture(scope="module")
def run(student_dir: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    heads = {"dim": 16, "layers": 1, "heads": 2, "experts": ["pitch"]}
    train(toy_config(student_dir, shards, out, steps=2, heads=heads, run={"save_every": 1}))
    return out


@pytest.fixture
def probe(shards: Path, tmp_path: Path) -> Probe:
    """What the command prints as JSON."""

    def ask(*flags: str | Path, cache: Path | None = None) -> dict[str, Any]:
        where = ["--cache", str(cache or tmp_path / "cache")]
        found = CliRunner().invoke(app, ["probe", "--shards", str(shards), "--json", *where, *map(str, flags)])
        if found.exception is not None and not isinstance(found.exception, SystemExit):
            raise found.exception
        assert found.exit_code == 0, found.output
        return json.loads(found.stdout)

    return ask


def score(found: dict[str, Any], target: str, place: str, layer: int, subject: int = 0) -> dict[str, Any]:
    key = (subject, target, place, layer)
    (one,) = (s for s in found["scores"] if (s["subject"], s["target"], s["position"], s["layer"]) == key)
    return one


def test_a_block_that_is_a_map_of_the_pitch(run: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    """R2 is 1 where the pitch was put, and about 0 where it is not; nothing else can be read there."""
    load = Subject.load

    def known(self: Subject, device: str | None = None):
        model, config = load(self, device)
        KnownBlock(model)
        return model, config

    monkeypatch.setattr(Subject, "load", known)
    found = probe("--run", run, "--label", "speaker", "--label", "age", "--layers", "0,1")
    assert (found["clips"], found["groups"]) == (30, 24)
    names = [target["name"] for target in found["targets"]]
    assert names == ["pitch.log2_f0_hz", "pitch.loudness_db", "label speaker", "label age"]
    assert found["not_probed"] == {
        f"{place}: pitch.voicing": "is the same in all clips" for place in ("audio", "think", "question", "response")
    }
    block = score(found, "pitch.log2_f0_hz", "think", 1)
    assert block["score"][0] > 0.9999
    assert block["control"][0] < 0.3
    assert block["selectivity"][0] > 0.7
    for place, layer in (("audio", 0), ("audio", 1), ("question", 1), ("response", 1), ("think", 0)):
        value, low, high = score(found, "pitch.log2_f0_hz", place, layer)["score"]
        assert value < 0.35, place
        assert low <= value <= high
    assert score(found, "label age", "think", 1)["score"][0] < 0.4  # the block knows the pitch alone
    speaker = score(found, "label speaker", "think", 1)
    assert 0 <= speaker["score"][0] < 0.65
    assert next(t for t in found["targets"] if t["name"] == "label speaker")["classes"] == ["ann", "bo", "cy"]
    positions = probe("--run", run, "--layers", "1", "--positions", "think", "--frames", "--experts", "pitch")
    assert score(positions, "pitch.log2_f0_hz", "think", 1)["score"][0] > 0.9999


def test_runs_and_the_base_are_compared_over_the_same_clips(
    run: Path, student_dir: Path, shards: Path, probe: Probe, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    flags = ["--student", student_dir, "--run", run, "--layers", "0,last", "--label", "speaker"]
    flags += ["--classifier", "ridge"]  # words by the other one take four fifths of the time, and are tried below
    found = probe("--run", run, *flags, "--positions", "audio,think,response", "--out", page)
    kinds = [(one["kind"], one["layers"], one["step"]) for one in found["subjects"]]
    assert kinds == [("run", 2, 2), ("run", 2, 2), ("student", 2, None)]
    same = score(found, "label speaker", "audio", 2, subject=1)
    assert same["difference"] == [0.0, 0.0, 0.0]
    base = score(found, "label speaker", "audio", 2, subject=2)
    assert base["difference"][0] == pytest.approx(base["score"][0] - same["score"][0], abs=1e-6)
    assert "has no such positions" in found["not_probed"][f"{student_dir}: think"]
    html = page.read_text()
    assert html.count("<img") == len(found["targets"])
    assert "http" not in html.replace("http-equiv", "")
    assert "<script" not in html


def test_what_is_in_the_cache_is_not_read_again(run: Path, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    first = probe("--run", run, "--label", "age")

    def never(*_: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(Subject, "load", never)
    assert probe("--run", run, "--label", "age") == first
    by_speaker = probe("--run", run, "--label", "age", "--folds-by", "speaker", "--experts", "none", "--clips", "24")
    assert (by_speaker["clips"], by_speaker["groups"]) == (24, 3)
    with pytest.raises(AssertionError, match="loaded"):
        probe("--run", run, "--layers", "1")  # other states
    with pytest.raises(AssertionError, match="loaded"):
        probe("--run", run, "--step", "1")


def test_words_by_either_regression(run: Path, probe: Probe) -> None:
    flags = ["--run", run, "--experts", "none", "--label", "speaker", "--layers", "0,1", "--positions", "audio"]
    logistic, ridge = probe(*flags), probe(*flags, "--classifier", "ridge")
    assert (logistic["classifier"], ridge["classifier"]) == ("logistic", "ridge")
    assert (logistic["targets"], logistic["warnings"]) == (ridge["targets"], [])
    for found in (logistic, ridge):
        assert [len(one["penalties"]) for one in found["scores"]] == [5, 5]
        assert all(0 <= one["score"][0] <= 1 for one in found["scores"])
    assert logistic["scores"] != ridge["scores"]


def test_unfinished_words_are_warned_of(
    run: Path, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coat.analysis.probing.fitting.MOST_PASSES", 2)
    page = tmp_path / "page.html"
    flags = ["--experts", "none", "--label", "speaker", "--layers", "0,1", "--positions", "audio", "--out", page]
    (warning,) = probe("--run", run, *flags)["warnings"]
    assert "audio: label speaker: gradients are not small after" in warning
    assert warning.endswith("layers 0, 1")
    assert "gradients are not small" in page.read_text()


@pytest.mark.slow
def test_a_kill_costs_one_unit_and_no_byte(run: Path, shards: Path, probe: Probe, tmp_path: Path) -> None:
    flags = ["--run", str(run), "--layers", "all", "--label", "age"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-m", "coat", "probe", "--shards", str(shards), *flags, "--cache", str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(killed.glob("states/*/units/u-*/done.json")):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    units = units_of(ShardIndex.read(str(shards)), None)
    done = list(killed.glob("states/*/units/u-*/done.json"))
    assert 0 < len(done) < len(units) == 4
    stamps = {path: path.stat().st_mtime_ns for path in done}
    resumed, clean = probe(*flags, cache=killed), probe(*flags, cache=whole)
    assert json.dumps(resumed) == json.dumps(clean)
    assert stamps == {path: path.stat().st_mtime_ns for path in done}
    assert len(list(killed.glob("states/*/units/u-*"))) == 4
    assert not list(killed.glob("states/*/building/*"))


def test_blocks_of_a_unit_make_no_difference(
    run: Path, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--run", run, "--positions", "audio,response", "--frames", "--experts", "pitch", "--batch-size", "3"]
    whole = probe(*flags)
    monkeypatch.setattr("coat.analysis.probing.reading.BLOCK_BYTES", 1)  # a block a batch
    assert probe(*flags, cache=tmp_path / "cut") == whole
    units = (tmp_path / "cut").glob("states/*/units/*/done.json")
    assert sorted(len(json.loads(done.read_text())["blocks"]) for done in units) == [2, 3, 3, 3]


def test_damage_in_the_cache_is_said(run: Path, probe: Probe, tmp_path: Path) -> None:
    flags = ["--run", run, "--layers", "0", "--experts", "pitch", "--positions", "audio,think"]
    whole = probe(*flags)
    verify = ["verify", str(tmp_path / "cache")]
    assert CliRunner().invoke(app, verify).exit_code == 0
    (done, *_) = sorted((tmp_path / "cache").glob("states/*/units/*/done.json"))
    done.write_text(done.read_text().replace('"seconds": [', '"seconds": [9.0, ', 1))
    with pytest.raises(RunError, match=r"gone, or damaged; `coat verify .* --repair`, and run the command again"):
        probe(*flags)
    CliRunner().invoke(app, [*verify, "--repair"])
    assert not done.exists()
    assert probe(*flags) == whole
    assert done.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--positions", "block"], "--positions block: expected some of audio, think, question, response"),
        (["--layers", "0,7"], "'7' is none of 0 to 2; expected such as all, or 0,8,last"),
        (["--experts", "crepe"], "no targets of crepe; it has events, mel, pitch, prosody"),
        (["--label", "mood"], "no sample has 'mood' in its extra, which has age, speaker"),
        (["--experts", "none"], "nothing to read off the states"),
        (["--folds-by", "age", "--label", "age"], "--folds-by age: is a --label, too"),
        (["--folds-by", "mood"], "no sample has 'mood' in its extra"),
        (["--clips", "5", "--label", "age"], "nothing can be probed .*has 5 rows; 10 are needed"),
        (["--positions", "question", "--frames"], "--frames is of audio and think positions; --positions has neither"),
        (["--step", "9"], "no checkpoint of step 9; there are those of 1, 2"),
    ],
)
def test_mistakes_are_one_line(run: Path, probe: Probe, flags: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        probe("--run", run, *flags)
    assert "\n" not in str(caught.value)


def test_whose_states_is_asked(probe: Probe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whose states"):
        probe()
    with pytest.raises(InputError, match=r"no config\.toml"):
        probe("--run", tmp_path / "none")


def test_samples_have_what_is_probed() -> None:
    samples = probed_samples()
    pitches = {float(s["targets"]["pitch"][0, 0]) for s in samples if s["targets"]}
    assert len(pitches) > 20
    assert np.ptp(list(pitches)) > 2


def test_ranks_share_the_units_and_find_the_same(
    run: Path, shards: Path, probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--run", run, "--layers", "last", "--label", "age"]
    shared = ["--cache", tmp_path / "shared", "--json"]
    done = accelerate_launch(tmp_path, "coat", "probe", "--shards", shards, *flags, *shared)
    assert json.loads(done.stdout) == probe(*flags)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="ranks share the states that they read: give --cache"):
        CliRunner().invoke(app, ["probe", "--shards", str(shards), "--run", str(run)], catch_exceptions=False)
