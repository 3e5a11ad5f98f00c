from pathlib import Path

import pytest

from tests.pipeline.inspect.helpers import corpus


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return corpus(tmp_path / "corpus")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"
