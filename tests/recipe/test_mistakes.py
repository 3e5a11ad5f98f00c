"""Mistakes in a recipe are one line each: file, key, what was expected, the nearest name. Nothing is written."""

from pathlib import Path

import pytest

from coat.recipe.grammar import toml_text
from tests.recipe.conftest import TRAIN, WHOLE, Run


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.toml").write_text(WHOLE)
    (tmp_path / "train.toml").write_text(TRAIN)
    return tmp_path / "recipe.toml"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[shards.valid]", "[shardz.valid]", "recipe.toml: shardz: unknown; did you mean shards?"),
        ('out = "made here"', "", "recipe.toml: out is missing"),
        ('out = "made here"', 'out = "s3://b/c"', "expected a folder of this machine"),
        ('out = "made here"', 'out = "o"\nprobe = true', "recipe.toml: probe = True: expected a table, [probe]"),
        ("synthetic = true", "", "manifests.clips: expected one of path, import and synthetic"),
        ("clips = 20", "clip = 20", "manifests.clips.clip: unknown; did you mean clips?"),
        ("clips = 20", 'clips = "many"', "manifests.clips: Invalid value for '--clips': Input should be"),
        ("workers = 0", "workerz = 0", "extract.workerz: unknown; did you mean workers?"),
        ("workers = 0", "workers = true", "workers: true; expected a value"),
        ("workers = 0", "workers = -1", "extract: Invalid value for '--workers'"),
        ("workers = 0", "share_decode = 1", "share_decode: 1; expected true or false"),
        ("[experts.mel]", "[experts.mell]", "--expert mell: no such expert; did you mean mel?"),
        ('manifest = "clips.train"', 'manifest = "clips.trian"', "did you mean clips.train?"),
        ('manifest = "clips.train"', "", "shards.train.manifest is missing"),
        ('manifest = "clips.train"', 'manifest = "clips.train"\nexperts = ["mell"]', "did you mean mel?"),
        ('config = "train.toml"', 'config = "trian.toml"', "trian.toml: no such config"),
        ('config = "train.toml"', 'config = "train.toml"\nshards = "trian"', "train.shards = 'trian': no shards"),
        ("settings.run.log_every = 1", "settings.run.log_evry = 1", "unknown key run.log_evry"),
        ("settings.run.log_every = 1", "processes = 0", "train.processes = 0: expected a whole number from 1 on"),
        ('data = "clips.heldout"', 'data = "clips.heldut"', "nor a file; did you mean clips.heldout?"),
        ("guard = 0", 'guard = 0\nbenchmark = "mmaw"', "no such benchmark; did you mean mmau?"),
        ("[stats]", "[plan]\nspeeds = 3\n[stats]", "plan.speeds: unknown; did you mean speed?"),
        ("[stats]", "[plan]\nspeed = -3\n[stats]", "plan.speed = -3: expected a number above 0"),
        ("[manifests.clips]", "[manifests.clips", "recipe.toml: not TOML"),
        ("[shards.valid]", '[shards."../valid"]', "shards.../valid: names are letters, digits, - and _"),
        ('out = "made here"', 'out = "train.toml"', "train.toml/stages: cannot be written (Not a directory)"),
    ],
)  # fmt: skip
def test_one_line_and_nothing_written(old: str, new: str, message: str, recipe: Path, run: Run) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new, 1))
    said = run(recipe, status=2)
    (line,) = said.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert sorted(p.name for p in recipe.parent.iterdir()) == ["recipe.toml", "train.toml"]


def test_what_is_given_must_be_there(recipe: Path, run: Run) -> None:
    recipe.write_text(recipe.read_text().replace("synthetic = true\nclips = 20", 'path = "data/corpus.jsonl"'))
    recipe.write_text(recipe.read_text().replace('"clips.train"', '"clips"').replace('"clips.heldout"', '"clips"'))
    said = run(recipe, status=2)
    assert "data/corpus.jsonl: no such file or folder" in said
    assert "no such recipe" in run(recipe.with_name("another.toml"), status=2)
    assert "expected section.key=value" in run(recipe, "--set", "nothing", status=2)


def test_what_was_there_before_is_not_written_over(recipe: Path, run: Run) -> None:
    mine = recipe.parent / "made here/clips/train.jsonl"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine\n")
    assert "is there, and this recipe did not make it" in run(recipe, "--until", "manifests", status=2)
    assert mine.read_text() == "mine\n"
    mine.unlink()
    page = recipe.parent / "made here/index.html"
    page.write_text("mine\n")
    assert "index.html: is there, and this recipe did not make it" in run(recipe, "--until", "manifests", status=2)
    assert page.read_text() == "mine\n"


@pytest.mark.parametrize("value", ['a "b" \\ c', "ü\n\t\x07", 1, 0.5, True, [1, "a"], {"a b": {"c": [1.5]}}])
def test_values_survive_the_command_line(value: object) -> None:
    import tomllib

    assert tomllib.loads(f"v = {toml_text(value)}")["v"] == value
