"""coat, Python and the packages that coat needs: are they there, as new as asked, and those that were tested?"""

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import coat
from coat.doctor.declared import NAME, ROOT, Declared, declared, installed_version, lack, wanted
from coat.doctor.finding import Finding, Request, absent, broken, ok, warning

# Named one by one, for those who read a bug report; others are counted.
NAMED = (
    ("torch", "torchaudio", "transformers", "accelerate", "peft", "safetensors", "huggingface_hub", "ray", "zarr")
    + ("numpy", "pyarrow", "webdataset", "onnxruntime", "av", "soundfile")
)  # fmt: skip
SHOWN = 8  # packages in one line
PIP = f"{sys.executable} -m pip install"


def look(request: Request) -> Iterator[Finding]:
    found = declared()
    yield ok("coat", f"{coat.__version__}, at {Path(coat.__file__).resolve().parent}")
    if found is None:
        yield warning(
            "what coat needs",
            f"coat is neither a checkout nor an installed package ({NAME}), so that its needs are not known",
            f"{PIP} {NAME}",
        )
        return
    yield python(found)
    for requirement in found.needed:
        lacks = lack(requirement)
        if lacks is not None:
            yield broken(requirement.name, lacks, f"{PIP} {wanted(requirement)}")
        elif requirement.name in NAMED:
            yield ok(requirement.name, f"{installed_version(requirement.name)}, needed: {requirement.specifier}")
    well = [r for r in found.needed if lack(r) is None]
    yield ok("packages", f"{len(well)} of {len(found.needed)} that coat needs are as {found.source} asks")
    yield other_than_pinned(found.needed, ROOT / "constraints.txt")


def python(found: Declared) -> Finding:
    version = platform.python_version()
    told = f"{platform.python_implementation()} {version}, needed: {found.python}; {sys.executable}"
    if not SpecifierSet(found.python).contains(version, prereleases=True):
        return broken("Python", told, "make install PYTHON=python3.11")
    return ok("Python", told)


def other_than_pinned(needed: tuple[Requirement, ...], file: Path) -> Finding:
    """Packages whose version is another than that of constraints.txt."""
    if not file.is_file():
        return absent("constraints.txt", "not here: the versions that are tested together are in coat's repository")
    pins = dict(line.strip().lower().replace("_", "-").split("==") for line in file.read_text().splitlines())
    others = []
    for requirement in needed:
        pin = pins.get(requirement.name.lower().replace("_", "-"))
        version = installed_version(requirement.name)
        if pin and version and version.partition("+")[0] != pin:  # 2.14.1+cpu is a build of 2.14.1
            others.append(f"{requirement.name} {version} (tested: {pin})")
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        return warning(
            "constraints.txt",
            f"other versions than those tested together: {', '.join(others[:SHOWN])}{more}",
            f"{sys.executable} deploy/install.py --editable .",
        )
    return ok("constraints.txt", "what coat needs is in the versions that are tested together")
