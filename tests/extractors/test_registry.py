"""Where experts come from, and what is said where one cannot be had."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coat.extractors import Options, create, find
from coat.extractors.registry import EXPERTS, expert_names, portable_name
from coat.manifests import InputError
from tests.extractors import tiny
from tests.integration.helpers import coat

OWN = """
from coat.extractors.experts.mel import Mel


class Own(Mel):
    name = "own"


class Nothing:
    pass
"""
INFO = "[coat.experts]\nown = own_experts:Own\nmel = own_experts:Own\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with an entry point for an expert, and one that takes the name of a built-in."""
    (tmp_path / "own_experts.py").write_text(OWN)
    info = tmp_path / "own_experts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-experts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(INFO)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_experts", None)


def test_experts_of_installed_packages(package: Path) -> None:
    assert expert_names() == [*EXPERTS, "own"]
    assert find("own").name == "own"
    assert find("mel").name == "mel", "a package must not replace a built-in expert"
    assert create("own", Options()).spec.expert == "own"


def test_experts_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    assert find(f"{path}:Own") is find(f"{path}:Own")
    monkeypatch.chdir(tmp_path)
    assert find("mine.py:Own") is find(f"{path}:Own")
    assert portable_name("mine.py:Own") == f"{path}:Own"
    assert portable_name("mel") == "mel"
    assert portable_name("package.module:Own") == "package.module:Own"
    path.write_text(OWN.replace('"own"', '"other"'))
    assert find("mine.py:Own").name == "other", "a file that changed is read anew"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "no such expert; one of mel, .*, package.module:Class, or path/to/file.py:Class"),
        ("absent.py:Own", "no file .*absent.py"),
        ("mine.py:Absent", "cannot be imported .there is no Absent in .*mine.py"),
        ("mine.py:Nothing", "is not an Expert"),
        ("wrong.py:Own", "cannot be imported .*wrong.py"),
        ("no.such.module:Own", "cannot be imported .No module named"),
    ],
)
def test_names_that_lead_nowhere(name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "wrong.py").write_text("class Own(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"--expert {name}: {said}"):
        find(name)


def spoil(folder: Path, value: float) -> None:
    state = load_file(folder / "model.safetensors")
    key = "encoder.layers.1.fc1.weight"
    (name,) = [k for k in state if k.endswith(key)]
    state[name][3, 4] = value
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_found_before_any_work(tmp_path: Path, value: float) -> None:
    folder = tiny.whisper(tmp_path)
    options = Options(checkpoint=str(folder))
    create("whisper", options)
    spoil(folder, value)
    with pytest.raises(
        InputError, match=r"model.safetensors holds NaN or infinite values in .*layers.1.fc1.weight; get"
    ):
        create("whisper", options)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin holds NaN"):
        create("whisper", options)


def test_the_command_line_tries_an_expert(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    done = coat("experts", "--check", "mine.py:Own", cwd=tmp_path)
    assert "own: holds" in done.stdout
    assert "a burst shows where the spec says: 0." in done.stdout
    off = "    def extract(self, waveforms):\n        return [f[1:] for f in super().extract(waveforms)]\n"
    (tmp_path / "mine.py").write_text(OWN.replace('    name = "own"\n', f'    name = "own"\n\n{off}'))
    done = coat("experts", "--check", "mine.py:Own", "--json", cwd=tmp_path, status=1)
    found = {f["check"]: f for f in json.loads(done.stdout)["findings"]}
    assert found["a burst shows where the spec says"]["held"] is False
    assert found["no clips give no targets"]["held"] is True
