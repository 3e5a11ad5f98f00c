"""What the shell that started us lets a process have (ulimit)."""

import getpass
import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from coat.doctor.finding import Finding, Request, broken, ok, warning
from coat.drawing.text import bytes_text


@dataclass(frozen=True)
class Limit:
    """`given`: what a remedy sets it to. Below `warned` some work fails, below `needed` nearly all does."""

    what: str
    resource: int
    flag: str  # of ulimit
    given: int
    warned: int
    needed: int
    name: str  # in limits.conf
    container: str
    told: str
    why_needed: str
    why_warned: str


FILES = 65_536  # that Ray wants
LIMITS = (
    Limit(
        "open files", resource.RLIMIT_NOFILE, "n", FILES, 4096, 1024, "nofile",
        f"a container: docker run --ulimit nofile={FILES}:{FILES}", "",
        "Ray, and shards with many tars, need more", "too few for a Ray head, or for many workers",
    ),
    Limit(  # threads count: a worker of Ray has some 40, and torch one a CPU
        "processes", resource.RLIMIT_NPROC, "u", 4096, 4096, 256, "nproc",
        "a container: docker run --pids-limit 4096", ", threads included",
        "Ray and torch start more threads than that", "too few for many workers",
    ),
)  # fmt: skip
INFINITE = resource.RLIM_INFINITY


def look(request: Request) -> Iterator[Finding]:
    yield from map(finding_of, LIMITS)
    yield from sizes()


def text(limit: int) -> str:
    return "unlimited" if limit == INFINITE else str(limit)


def below(limit: int, needed: int) -> bool:
    return limit != INFINITE and limit < needed


def finding_of(limit: Limit) -> Finding:
    soft, hard = resource.getrlimit(limit.resource)
    told = f"{text(soft)} (at most {text(hard)}){limit.told}"
    if not below(soft, limit.warned):
        return ok(limit.what, told)
    remedy = f"ulimit -{limit.flag} {limit.given if hard == INFINITE else min(hard, limit.given)}"
    if below(hard, limit.warned):
        line = f"{user()} - {limit.name} {limit.given}"
        remedy = f"as root: a line `{line}` in /etc/security/limits.conf, and log in again; {limit.container}"
    if below(soft, limit.needed):
        return broken(limit.what, f"{told}: {limit.why_needed}", remedy)
    return warning(limit.what, f"{told}: {limit.why_warned}", remedy)


def sizes() -> Iterator[Finding]:
    """Limits that nobody has unless somebody set them."""
    limits: tuple[tuple[str, Any, str, str], ...] = (
        ("address space", resource.RLIMIT_AS, "v", "torch, Ray and CUDA reserve much more than they use"),
        ("size of a file", resource.RLIMIT_FSIZE, "f", "larger targets, tars and checkpoints are cut off"),
        ("CPU time", resource.RLIMIT_CPU, "t", "a process that used so many seconds is killed"),
    )
    for what, limit, flag, why in limits:
        soft, _ = resource.getrlimit(limit)
        if soft != INFINITE:
            shown = f"{soft} s" if flag == "t" else bytes_text(soft)
            yield warning(what, f"{shown}: {why}", f"ulimit -{flag} unlimited")


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # of a container, whose user has no name
        return str(os.getuid())
