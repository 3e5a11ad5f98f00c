"""What coat says that it needs: its pyproject.toml in a checkout, else the metadata of the installed package."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import coat

NAME = "coat-audio"
ROOT = Path(coat.__file__).resolve().parent.parent  # of a checkout


@dataclass(frozen=True)
class Declared:
    source: str
    python: str
    needed: tuple[Requirement, ...]
    extras: dict[str, tuple[Requirement, ...]]  # but those that only name others


def declared(root: Path = ROOT) -> Declared | None:
    """None where coat runs from a folder that has neither."""
    file = root / "pyproject.toml"
    if file.is_file() and (project := tomllib.loads(file.read_text("utf-8")).get("project", {})).get("name") == NAME:
        optional = project["optional-dependencies"]
        return Declared(
            "pyproject.toml",
            project["requires-python"],
            applicable(project["dependencies"]),
            others({extra: applicable(lines) for extra, lines in optional.items()}),
        )
    try:
        package = metadata.metadata(NAME)
    except metadata.PackageNotFoundError:
        return None
    lines = package.get_all("Requires-Dist") or []
    extras = package.get_all("Provides-Extra") or []
    needed = applicable(lines)
    by_extra = {e: tuple(r for r in applicable(lines, e) if r not in needed) for e in extras}
    return Declared("the installed package", package["Requires-Python"], needed, others(by_extra))


def applicable(lines: Iterable[str], extra: str = "") -> tuple[Requirement, ...]:
    """Those whose marker holds on this machine."""
    found = map(Requirement, lines)
    return tuple(r for r in found if r.marker is None or r.marker.evaluate({"extra": extra}))


def others(extras: dict[str, tuple[Requirement, ...]]) -> dict[str, tuple[Requirement, ...]]:
    return {e: needed for e, needed in extras.items() if all(r.name != NAME for r in needed)}


def installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def lack(requirement: Requirement) -> str | None:
    """What of it is not there, or too old; None where all is well. Packages of its extras need only be there."""
    version = installed_version(requirement.name)
    if version is None:
        return "not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{version}, needed: {requirement.specifier}"
    missing = [
        needed.name
        for extra in requirement.extras
        for needed in applicable(metadata.requires(requirement.name) or (), extra)
        if installed_version(needed.name) is None
    ]
    return f"{version}, without {', '.join(sorted(set(missing)))}" if missing else None


def wanted(requirement: Requirement) -> str:
    """As pip takes it on a command line, quoted for a shell."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"'{requirement.name}{extras}{requirement.specifier}'"
