"""Progress on stderr: a bar on a terminal, a line now and then in a log, nothing when quiet.

Results go to stdout and are never mixed with this.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

EVERY_S = 5.0  # between lines where stderr is not a terminal


class Advance(Protocol):
    """`advance(n)`: n more are done; `total` once it is known; `note` stands behind the count from then on."""

    def __call__(self, n: float = 1, total: float | None = None, note: str | None = None) -> None: ...


@contextmanager
def progress(total: float | None, unit: str, label: str, quiet: bool = False) -> Iterator[Advance]:
    """Gives `advance(n)`, to be called as work is done (from one thread). No total, here or there: only count and rate.

    with progress(len(rows), "files", "reading headers") as advance:
        for row in rows: ...; advance(1)
    """
    if quiet:
        yield lambda n=1, total=None, note=None: None
    elif sys.stderr.isatty():
        with bar(total, unit, label) as advance:
            yield advance
    else:
        with lines(total, unit, label) as advance:
            yield advance


@contextmanager
def bar(total: float | None, unit: str, label: str) -> Iterator[Advance]:
    """A rich progress bar with rate and time left; it disappears when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            of = f"/{task.total:,.0f}" if task.total is not None else ""
            rate = f" {task.speed:,.1f}/s" if task.speed else ""
            return Text(f"{task.completed:,.0f}{of} {unit}{rate}{task.fields['note']}")

    columns = (TextColumn("{task.description}"), BarColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(label, total=total, note="")

        def advance(n: float = 1, total: float | None = None, note: str | None = None) -> None:
            shown.update(task, advance=n, total=total)
            if note is not None:
                shown.update(task, note=f", {note}")

        yield advance


@contextmanager
def lines(total: float | None, unit: str, label: str) -> Iterator[Advance]:
    """A line at most every few seconds; short work says nothing."""
    start = last = time.monotonic()
    done, whole, noted = 0.0, total, ""

    def advance(n: float = 1, total: float | None = None, note: str | None = None) -> None:
        nonlocal done, last, whole, noted
        done, whole = done + n, total if total is not None else whole
        noted = noted if note is None else f", {note}"
        now = time.monotonic()
        if now - last >= EVERY_S:
            last = now
            print(line(label, unit, done, whole, now - start) + noted, file=sys.stderr, flush=True)  # noqa: T201

    yield advance


def line(label: str, unit: str, done: float, total: float | None, seconds: float) -> str:
    rate = done / seconds if seconds > 0 else 0.0
    if total is None:
        return f"{label}: {done:,.0f} {unit}, {rate:,.1f}/s"
    left = f", {duration((total - done) / rate)} left" if rate > 0 else ""
    return f"{label}: {done:,.0f}/{total:,.0f} {unit}, {rate:,.1f}/s{left}"


def duration(seconds: float) -> str:
    """`48s`, `3m20s`, `2h05m`."""
    s = max(round(seconds), 0)
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m{s % 60:02d}s" if s < 3600 else f"{s // 3600}h{s % 3600 // 60:02d}m"
