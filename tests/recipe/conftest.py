"""A recipe of cheap stages, run once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.helpers import coat_run

LEVEL = "tests.pipeline.experts:Level"

# Every kind of stage that is cheap: a few clips, experts of the tests, a tiny student, two steps.
WHOLE = f"""
out = "made here"

[manifests.clips]
synthetic = true
clips = 20

[student]
tiny = "qwen2-audio"
words = "clips.train"

[experts.mel]
[experts."{LEVEL}"]

[extract]
workers = 0

[stats]

[shards.train]
manifest = "clips.train"

[shards.valid]
manifest = "clips.heldout"

[train]
config = "train.toml"
settings.run.log_every = 1
settings.losses.weights.level = 1.0

[fidelity]
samples = 2

[evaluate.heldout]
data = "clips.heldout"
max_new_tokens = 2
guard = 0
cost = 0

[report]
audio = "none"

[export]
"""
TRAIN = """
stages = [{ name = "both", steps = 2 }]
[data]
batch_size = 2
workers = 1
choices = "ignore"
[thinking]
count = 4
[heads]
dim = 16
heads = 2
layers = 1
[lora]
rank = 2
[evaluation]
samples = 2
answers = 0
"""
STAGES = (
    "manifests.clips", "student", "extract", "stats", "shards.train", "shards.valid", "train", "fidelity",
    "evaluate.heldout", "report", "export",
)  # fmt: skip
Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """`coat run FILE ...` with this exit status; all that it and its stages printed."""

    def call(file: Path, *arguments: object, status: int = 0) -> str:
        done = coat_run("run", file, *arguments, status=status)
        return done.stdout + done.stderr

    return call


@pytest.fixture(scope="session")
def done_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a recipe that was run to its end, once. Its name has a space."""
    folder = tmp_path_factory.mktemp("recipe") / "a job"
    folder.mkdir()
    (folder / "recipe.toml").write_text(WHOLE)
    (folder / "train.toml").write_text(TRAIN)
    coat_run("run", folder / "recipe.toml")
    return folder


@pytest.fixture
def done(done_once: Path, tmp_path: Path) -> Path:
    """A copy of it in another place, for one test."""
    return Path(shutil.copytree(done_once, tmp_path / "moved"))
