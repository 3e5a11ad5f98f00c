"""One tiny student and one small shard set for all tests of the trainer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from coat.trainer.tiny_students.make import BUILDERS, make_tiny_student
from tests.trainer.helpers import toy_sample, write_shards


@pytest.fixture(scope="session")
def student_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_student(tmp_path_factory.mktemp("student") / "tiny")


@pytest.fixture(scope="session")
def shards_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten samples of 0.5 to 1.4 s in three shards; s003 has no pitch, s005 no target at all."""
    samples = [toy_sample(i, seconds=0.5 + 0.1 * i) for i in range(10)]
    del samples[3]["targets"]["pitch"]
    samples[5]["targets"] = {}
    return write_shards(tmp_path_factory.mktemp("shards"), samples)


@pytest.fixture(scope="session", params=list(BUILDERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student of each kind."""
    if "omni" in request.param:
        pytest.importorskip("torchvision", reason="pip install .[omni]")
    return make_tiny_student(tmp_path_factory.mktemp("students") / request.param, name=request.param)


@pytest.fixture
def student(student_dir: Path) -> Student:
    return load_student(str(student_dir))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bit-exactness needs a fixed number of threads. A second one is only waited for by matrices so small: with it the
    same tests took a quarter more CPU time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
