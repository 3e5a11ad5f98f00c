"""A recipe's TOML, read strictly: a section gives its keys up; what is left over is an option, or a mistake.

InputError, one line: the file, the section and key, what was expected.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.recipe.grammar import nearest

SECTIONS = (
    "manifests", "experts", "extract", "stats", "shards", "student", "train", "fidelity", "probe", "listen", "evaluate",
    "report", "export", "plan",
)  # fmt: skip
NAMED = ("manifests", "experts", "shards", "evaluate")  # of which there may be several: [shards.train]
TOP = ("name", "out", *SECTIONS)
FILE_NAME = re.compile(r"[A-Za-z0-9_-]+")
T = TypeVar("T")


class Section:
    """One table of the recipe. `where` names it in messages: `recipe.toml: train`."""

    def __init__(self, where: str, data: Mapping[str, Any]) -> None:
        self.where, self.left = where, dict(data)

    def take(self, key: str, kind: type[T]) -> T | None:
        """A value of the recipe's own, not of the command; None where it is not given."""
        if key not in self.left:
            return None
        value = self.left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{self.where}.{key} = {value!r}: expected {EXPECTED.get(kind, kind.__name__)}")
        return value

    def take_names(self, key: str) -> list[str] | None:
        """A text, or a list of texts."""
        value = self.left.pop(key, None)
        if value is None:
            return None
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise InputError(f"{self.where}.{key} = {value!r}: expected a name, or a list of names")
        return names

    def close(self, known: Sequence[str]) -> None:
        """Nothing may be left over."""
        for key in self.left:
            raise InputError(f"{self.where}.{key}: unknown; {nearest(key, known)}")


EXPECTED: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    dict: "a table",
    bool: "true or false",
    list: "a list",
}
NUMBER = (int, float)


@dataclass
class Recipe:
    """What a file declares. Paths of what is given count from `folder`, those of what is made lie in `out`."""

    file: str  # as it was named
    folder: Path  # where its commands run
    out: Path
    title: str
    tables: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return Path(self.file).name

    def section(self, name: str) -> Section | None:
        """A section of which there is one; None where the recipe does not have it."""
        if name not in self.tables:
            return None
        return Section(f"{self.label}: {name}", self.tables[name])

    def sections(self, name: str) -> dict[str, Section]:
        """Those of which there may be several, by name."""
        return {key: Section(f"{self.label}: {name}.{key}", data) for key, data in self.tables.get(name, {}).items()}

    def given(self, path: str) -> str:
        """The path of what lies beside the recipe, as its commands take it."""
        return path if "://" in path else self.shown(Path(self.file).resolve().parent / Path(path).expanduser())

    def made(self, path: str) -> str:
        """The path of what is made: below `out`, if it is not a place of its own."""
        return path if "://" in path else self.shown(self.out / Path(path).expanduser())

    def shown(self, path: Path) -> str:
        """Relative to the folder of the commands where it lies in it, else absolute."""
        path = Path(storage.absolute(str(path)))
        return str(path.relative_to(self.folder)) if path.is_relative_to(self.folder) else str(path)


def read_recipe(file: str, out: str | None = None, changes: Sequence[str] = (), folder: Path | None = None) -> Recipe:
    """`out` in place of the recipe's own; `changes` are `section.key=value`; `folder` in place of the file's."""
    try:
        data = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise InputError(f"{file}: no such recipe") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{file}: not TOML ({e})") from e
    except OSError as e:
        raise InputError(f"{file}: cannot be read ({e.strerror})") from e
    for change in changes:
        apply_change(data, change)
    name = Path(file).name
    top = Section(name, data)
    check_sections(name, data)
    declared = top.take("out", str)
    if not (declared or out):
        raise InputError(f"{name}: out is missing; expected the folder of all that it makes (or give --out)")
    here = Path(storage.absolute(str(folder or Path(file).parent)))
    made = Path(out).absolute() if out else Path(file).absolute().parent / Path(declared or "").expanduser()
    if "://" in (out or declared or ""):
        raise InputError(
            f"{name}: out {out or declared}: expected a folder of this machine; stores and shards may be URLs"
        )
    title = top.take("name", str) or Path(file).stem
    return Recipe(file, here, Path(storage.absolute(str(made))), title, top.left)


def check_sections(name: str, data: Mapping[str, Any]) -> None:
    for key, value in data.items():
        if key not in TOP:
            raise InputError(f"{name}: {key}: unknown; {nearest(key, TOP)}")
        if key in SECTIONS and not isinstance(value, dict):
            raise InputError(f"{name}: {key} = {value!r}: expected a table, [{key}]")
        for inner, table in value.items() if key in NAMED else ():
            if key != "experts" and not FILE_NAME.fullmatch(inner):
                raise InputError(
                    f"{name}: {key}.{inner}: names are letters, digits, - and _, for they become file names"
                )
            if not isinstance(table, dict):
                raise InputError(f"{name}: {key}.{inner} = {table!r}: expected a table, [{key}.NAME]")


def apply_change(data: dict[str, Any], change: str) -> None:
    """`train.settings.optim.lr=1e-4`: the value is TOML where it parses as such, else a text."""
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {change}: expected section.key=value, such as train.settings.optim.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    node: Any = data
    for name in parents:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise InputError(f"--set {change}: {name} is a value, not a table")
    node[last] = value
