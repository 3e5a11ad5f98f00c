"""What the shell that started us lets a process have (ulimit)."""

import getpass
import os
import resource
from collections.abc import Iterator
from typing import Any

from coat.doctor.finding import Finding, Request, broken, ok, size_text, warning

FILES, FILES_NEEDED = (
    65_536,
    1024,
)  # Ray wants the first; with fewer than the second its daemons fail, and readers of many tars
FILES_WARNED = 4096
PROCESSES, PROCESSES_NEEDED = 4096, 256  # threads count: a worker of Ray has some 40, and torch one a CPU
INFINITE = resource.RLIM_INFINITY


def look(request: Request) -> Iterator[Finding]:
    yield open_files()
    yield processes()
    yield from sizes()


def text(limit: int) -> str:
    return "unlimited" if limit == INFINITE else str(limit)


def below(limit: int, needed: int) -> bool:
    return limit != INFINITE and limit < needed


def open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = f"{text(soft)} (at most {text(hard)})"
    if not below(soft, FILES_WARNED):
        return ok("open files", told)
    remedy = f"ulimit -n {FILES if hard == INFINITE else min(hard, FILES)}"
    if below(hard, FILES_WARNED):
        remedy = (
            f"as root: a line `{user()} - nofile {FILES}` in /etc/security/limits.conf, and log in again; a container: "
            f"docker run --ulimit nofile={FILES}:{FILES}"
        )
    if below(soft, FILES_NEEDED):
        return broken("open files", f"{told}: Ray, and shards with many tars, need more", remedy)
    return warning("open files", f"{told}: too few for a Ray head, or for many workers", remedy)


def processes() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    told = f"{text(soft)} (at most {text(hard)}), threads included"
    if not below(soft, PROCESSES):
        return ok("processes", told)
    remedy = f"ulimit -u {PROCESSES}"
    if below(hard, PROCESSES):
        remedy = (
            f"as root: a line `{user()} - nproc {PROCESSES}` in /etc/security/limits.conf, and log in again; a "
            f"container: docker run --pids-limit {PROCESSES}"
        )
    if below(soft, PROCESSES_NEEDED):
        return broken("processes", f"{told}: Ray and torch start more threads than that", remedy)
    return warning("processes", f"{told}: too few for many workers", remedy)


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
            shown = f"{soft} s" if flag == "t" else size_text(soft)
            yield warning(what, f"{shown}: {why}", f"ulimit -{flag} unlimited")


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # of a container, whose user has no name
        return str(os.getuid())
