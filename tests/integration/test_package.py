"""What is handed out: the sdist, the wheel, and coat installed from it where nothing else of ours is."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.helpers import ROOT, hiding

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
ROOMS = ("extractors", "manifests", "pipeline", "trainer")  # coat/ has symlinks to them
# Modules of the packages of [dev] that coat might import by mistake: an installed coat has none of them.
DEV = (
    "pytest",
    "hypothesis",
    "lhotse",
    "moto",
    "flask",
    "datasets",
    "sklearn",
    "megatron",
    "torchcodec",
    "build",
    "tests",
)


def folders() -> dict[str, Path]:
    """Every package on disk, by its name."""
    found = {}
    for top, name in [(ROOT / "coat", "coat"), *((ROOT / room, f"coat.{room}") for room in ROOMS)]:
        for init in top.rglob("__init__.py"):  # which does not follow symlinks
            found[".".join([name, *init.parent.relative_to(top).parts])] = init.parent
    return found


def test_the_packages_that_are_named_are_those_on_disk() -> None:
    on_disk = folders()
    assert sorted(SETUPTOOLS["packages"]) == sorted(on_disk)
    assert len(set(SETUPTOOLS["packages"])) == len(SETUPTOOLS["packages"])
    for name, folder in SETUPTOOLS["package-dir"].items():
        assert on_disk[name] == ROOT / folder


def test_all_that_is_no_python_is_named_as_data() -> None:
    data = {
        f"{package}/{file.relative_to(folder)}"
        for package, folder in folders().items()
        for file in folder.iterdir()
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    named = {
        f"{package}/{file.relative_to(folders()[package])}"
        for package, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for file in folders()[package].glob(pattern)
    }
    assert named == data


@dataclass
class Built:
    tracked: list[str]
    sdist: Path
    wheel: Path  # built of the sdist
    of_tree: Path  # built of the tree


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Of a copy of what git knows: setuptools would take along what an older build left in build/."""
    at = tmp_path_factory.mktemp("package")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
    for name in tracked:
        (at / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, at / "tree" / name, follow_symlinks=False)
    shutil.copytree(at / "tree", at / "tree2", symlinks=True)
    for out, tree, flags in (("of-sdist", "tree", []), ("of-tree", "tree2", ["--wheel"])):
        # Without flags: an sdist, and a wheel of it.
        command = [sys.executable, "-m", "build", "--no-isolation", *flags, "--outdir", str(at / out), str(at / tree)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (sdist,) = (at / "of-sdist").glob("*.tar.gz")
    (wheel,) = (at / "of-sdist").glob("*.whl")
    (of_tree,) = (at / "of-tree").glob("*.whl")
    return Built(tracked, sdist, wheel, of_tree)


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names))
        return {name: archive.read(name) for name in names}


def test_the_wheel_holds_each_file_once(built: Built) -> None:
    code = {name for name in files_of(built.wheel) if not name.startswith("coat_audio-")}
    rooms = tuple(f"{room}/" for room in ROOMS)
    expected = {f"coat/{name}" for name in built.tracked if name.startswith(rooms)} | {
        name for name in built.tracked if name.startswith("coat/") and name.removeprefix("coat/") not in ROOMS
    }
    assert code == expected


def test_sdist_and_tree_give_the_same_wheel(built: Built) -> None:
    assert files_of(built.wheel) == files_of(built.of_tree)
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
    names = [member.name.split("/", 1)[-1] for member in members]
    assert len(names) == len(set(names))
    assert not [member.name for member in members if member.issym() or member.islnk()]
    assert {"LICENSE", "README.md", "pyproject.toml", "coat/__init__.py", "trainer/__init__.py"} <= set(names)


@pytest.fixture(scope="module")
def clean(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of an environment with the wheel, what it needs (as installed here), and no tool of [dev]."""
    home = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(built.wheel)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    hiding(site, *DEV)
    return home / "bin"


def run(*command: object, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd, env=env | {"NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_coat_runs_where_its_wheel_is_installed(clean: Path, tmp_path: Path) -> None:
    assert run(clean / "coat", "--version", cwd=tmp_path) == f"coat {PROJECT['project']['version']}\n"
    assert "coat quickstart --out" in run(clean / "coat", "quickstart", "--help", cwd=tmp_path)
    assert run(clean / "python", "-m", "coat", "experts", cwd=tmp_path).count("\n") > 20


def test_what_it_needs_is_known_from_the_wheel_as_from_the_checkout(clean: Path, tmp_path: Path) -> None:
    shown = json.loads(run(clean / "coat", "doctor", "--only", "versions", "--only", "extras", "--json", cwd=tmp_path))
    by_what = {finding["what"]: finding for finding in shown["findings"]}
    assert f"at {clean.parent}/" in by_what["coat"]["found"]
    needed = len(PROJECT["project"]["dependencies"])
    assert by_what["packages"]["found"] == f"{needed} of {needed} that coat needs are as the installed package asks"
    extras = {what.removeprefix("extra ") for what in by_what if what.startswith("extra ")}
    assert extras == PROJECT["project"]["optional-dependencies"].keys() - {"all"}
    assert by_what["constraints.txt"]["state"] == "absent"


@pytest.mark.slow
def test_every_module_and_file_of_the_wheel_is_there(clean: Path, tmp_path: Path) -> None:
    code = f"""
import importlib, pkgutil
from importlib.resources import files
import coat, coat.extractors, coat.manifests, coat.pipeline, coat.trainer
assert coat.__file__.startswith({str(clean.parent)!r}), coat.__file__
modules = [m.name for m in pkgutil.walk_packages(coat.__path__, "coat.") if not m.name.endswith("__main__")]
for name in modules:
    importlib.import_module(name)
for package, names in {SETUPTOOLS["package-data"]!r}.items():
    for name in names:
        assert files(package).joinpath(name).is_file(), (package, name)
print(len(modules))
"""
    files = [file for folder in folders().values() for file in folder.glob("*.py") if file.name != "__main__.py"]
    assert int(run(clean / "python", "-c", code, cwd=tmp_path)) == len(files) - 1  # the root itself is none of them
