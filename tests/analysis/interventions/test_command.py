"""`coat intervene` on small runs: a table, a page, JSON; another run beside; what it cannot do, in one line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from coat.cli.main import app
from coat.manifests import InputError
from coat.trainer import train
from tests.trainer.helpers import toy_config, toy_sample, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [toy_sample(i, 0.5 + 0.1 * (i % 3)) for i in range(6)]
    for i, sample in enumerate(samples):
        sample["meta"]["extra"] = {"task": "<b>even</b>" if i % 2 == 0 else "odd"}
    return write_shards(tmp_path_factory.mktemp("shards"), samples)


@pytest.fixture(scope="module")
def runs(student_dir: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    parts = {"own": {"heads": {"positions": "own"}}, "plain": {}, "no-block": {"thinking": {"count": 0}}}
    parts["no-block"] |= {"stages": [{"name": "answer", "steps": 2, "distill": 0.0}]}
    for name, changes in parts.items():
        train(toy_config(student_dir, shards, root / name, steps=2, **changes))
    return {name: root / name for name in parts}


def called(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["intervene", *map(str, arguments)])


def test_a_page_and_rows_to_go_on_from(runs: dict[str, Path], shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    asked = ("--run", runs["own"], "--shards", shards, "--out", out, "--against", runs["plain"])
    first = called(*asked)
    assert first.exit_code == 0, first.output
    assert "block: another clip's" in first.stdout
    assert "pitch: another clip's" in first.stdout
    assert f"less {runs['plain']}" in first.stdout
    page, rows = out.read_text(), (tmp_path / "page.jsonl").read_bytes()
    assert "<b>even</b>" not in page
    assert "task: &lt;b&gt;even&lt;/b&gt;" in page
    assert "<script" not in page
    assert len(rows.splitlines()) == 7
    assert len((tmp_path / "page.against.jsonl").read_bytes().splitlines()) == 7
    again = called(*asked, "--json", "--by", "task")
    found = json.loads(again.stdout)
    assert (tmp_path / "page.jsonl").read_bytes() == rows
    assert (found["rows"], found["clips"], found["by"]) == (6, 6, "task")
    lines = {(line["group"], line["intervention"]): line for line in found["lines"]}
    assert lines["", "untouched"]["figures"]["kl"]["value"] == 0.0
    assert lines["", "pitch:other"]["against"]["accuracy"]["rows"] == 0  # the other run has no positions of its own
    assert lines["", "block:other"]["against"]["accuracy"]["rows"] == 6
    other = called(*asked[:-2], "--do", "block:zero")
    assert isinstance(other.exception, InputError)
    assert "holds other interventions" in str(other.exception)


def test_generated_answers_and_pairs(runs: dict[str, Path], shards: Path) -> None:
    spoken = called(
        "--run", runs["plain"], "--shards", shards, "--do", "block:other", "--generate", "--max-new-tokens", 3,
        "--layers", "0", "--samples", 3, "--json",
    )  # fmt: skip
    assert spoken.exit_code == 0, spoken.output
    assert json.loads(spoken.stdout)["head"]["layers"] == [0]
    pairs = called("--run", runs["plain"], "--pairs", 2, "--factor", "event", "--json")
    assert pairs.exit_code == 0, pairs.output
    found = json.loads(pairs.stdout)
    assert (found["rows"], found["clips"], found["by"]) == (4, 2, "task")
    assert {line["intervention"] for line in found["lines"]} >= {"block:other", "audio:other"}


def test_a_run_without_a_block_has_its_audio(runs: dict[str, Path], shards: Path) -> None:
    found = called("--run", runs["no-block"], "--shards", shards)
    assert found.exit_code == 0, found.output
    assert "no thinking block: its audio alone is replaced" in found.stderr
    assert "audio: not attended" in found.stdout
    assert "block" not in found.stdout.replace("no-block", "")


@pytest.mark.parametrize(
    ("thinking", "places"),
    [
        ({"count": 0, "states": "audio"}, {"audio"}),
        ({"count": 4, "states": "both", "layer": 0}, {"block", "audio", "pitch", "mel", "events", "prosody"}),
        ({"count": 2, "placement": "before_response"}, {"block", "audio", "pitch", "mel", "events", "prosody"}),
    ],
)
def test_whatever_is_distilled(
    student_dir: Path, shards: Path, tmp_path: Path, thinking: dict[str, object], places: set[str]
) -> None:
    heads = {"positions": "own" if thinking["count"] else "all"}
    train(toy_config(student_dir, shards, tmp_path / "run", steps=2, thinking=thinking, heads=heads))
    found = called("--run", tmp_path / "run", "--shards", shards, "--json")
    assert found.exit_code == 0, found.output
    done = json.loads(found.stdout)["head"]["interventions"]
    assert {name.partition(":")[0] for name in done} == places


@pytest.mark.parametrize(
    ("run", "arguments", "expected"),
    [
        ("no-block", ["--do", "block:zero"], r"block: this run has no thinking block \(thinking.count is 0\)"),
        ("plain", ["--do", "pitch:other"], r"pitch: all heads read the whole block \(heads.positions is 'all'\)"),
        ("plain", ["--do", "colour:other"], "colour: expected block, audio"),
        ("plain", ["--do", "block:blue"], "block:blue: expected PLACE:WHAT"),
        ("plain", ["--layers", "0,9"], "--layers 0,9: this student has layers 0 to 1"),
        ("plain", ["--pairs", "3"], "--pairs and --factor go together"),
        ("plain", ["--pairs", "3", "--factor", "pitch"], "expected either --shards or --pairs"),
        ("plain", ["--by", "colour", "--do", "block:zero"], "--by colour: no row has that key; there are task"),
        ("plain", ["--out", "page.txt"], "--out page.txt: expected a page, such as intervene.html"),
        ("plain", ["--donor", "twin"], "row s000: its twin is None, which is no usable row of the same pool"),
    ],
)
def test_what_cannot_be_done(
    runs: dict[str, Path], shards: Path, run: str, arguments: list[str], expected: str
) -> None:
    found = called("--run", runs[run], "--shards", shards, *arguments)
    assert isinstance(found.exception, InputError), found.output
    with pytest.raises(InputError, match=expected):
        raise found.exception
