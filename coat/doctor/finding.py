"""What a subject gives: one line of the report, with the remedy where something is wrong."""

from dataclasses import dataclass
from typing import Literal

# absent: not there, and nothing is wrong with that (no GPU, an extra that was not installed)
State = Literal["ok", "absent", "warning", "broken"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    what: str
    state: State
    found: str
    remedy: str | None = None  # a command, or what to do; whatever is a warning or broken has one

    def __post_init__(self) -> None:
        assert self.remedy or self.state in ("ok", "absent"), self


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for."""

    ray_address: str | None = None  # None: a Ray of our own is started on this machine


def ok(what: str, found: str) -> Finding:
    return Finding(what=what, state="ok", found=found)


def absent(what: str, found: str, remedy: str | None = None) -> Finding:
    return Finding(what=what, state="absent", found=found, remedy=remedy)


def warning(what: str, found: str, remedy: str) -> Finding:
    return Finding(what=what, state="warning", found=found, remedy=remedy)


def broken(what: str, found: str, remedy: str) -> Finding:
    return Finding(what=what, state="broken", found=found, remedy=remedy)


def line_of(error: BaseException, limit: int = 300) -> str:
    """Its kind and what it says, in one line. `coat.manifests` has another, and loads what may be broken."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:limit].rstrip(". ")
