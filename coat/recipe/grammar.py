"""What recipes need to know of the commands of coat: their options, to write them, and whether a command line is one.

The command line itself gives it (`coat.cli.whole.commands`), so that a recipe takes the options that the commands take.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coat.manifests.errors import InputError


@dataclass(frozen=True)
class Option:
    """One option of a command. `off`: the flag that turns it off, of those that have one."""

    flag: str  # --batch-seconds
    is_flag: bool = False
    off: str | None = None
    multiple: bool = False

    def write(self, where: str, value: Any) -> list[str]:
        """As a command line has it. InputError where it cannot be written so."""
        if isinstance(value, bool) != self.is_flag:
            wanted = "true or false" if self.is_flag else "a value"
            raise InputError(f"{where}: {value_text(value)}; expected {wanted}")
        if self.is_flag:
            return [self.flag] if value else [self.off] if self.off else []
        if isinstance(value, Mapping):
            parts = [f"{key}={value_text(one)}" for key, one in value.items()]
        else:
            parts = [value_text(one) for one in (value if isinstance(value, list) else [value])]
        if self.multiple:
            return [word for part in parts for word in (self.flag, part)]
        return [self.flag, ",".join(parts)] if parts else []


@dataclass(frozen=True)
class Grammar:
    """Options of each command (`extract`, `manifest import`) by key: `batch_seconds`.

    `check` gives what is wrong with a command line, in one line; None where nothing is. `ask` runs a command that only
    looks, with --json, and gives its document. `unusable` says why an expert cannot run here, `version` gives its
    code's.
    """

    options: Mapping[str, Mapping[str, Option]]
    check: Callable[[Sequence[str]], str | None]
    ask: Callable[[Sequence[str]], Any]
    unusable: Callable[[str], str | None]
    version: Callable[[str], Any]

    def write(self, command: str, where: str, values: Mapping[str, Any]) -> list[str]:
        """Options of a section, as arguments of the command. InputError names the key that it does not have."""
        known, found = self.options[command], []
        for key, value in values.items():
            if key not in known:
                hint = nearest(key, known, f"`coat {command} --help` has its options")
                raise InputError(f"{where}.{key}: unknown; {hint}")
            found += known[key].write(f"{where}.{key}", value)
        return found


def value_text(value: Any) -> str:
    """A value as it stands behind an option."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else toml_text(value)


def toml_text(value: Any) -> str:
    """A value in TOML, on one line, as `--set key=value` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{toml_text(key)} = {toml_text(one)}" for key, one in value.items()) + "}"
    return str(value)


def nearest(name: str, known: Iterable[str], hint: str | None = None) -> str:
    """What was probably meant; else the hint, or all that there is."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else hint or f"expected one of {', '.join(names) or '(there is none)'}"
