"""Progress on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_SECONDS = 10.0  # between plain lines

Advance = Callable[[float], None]


@contextmanager
def progress(total: float | None, unit: str, label: str, quiet: bool = False) -> Iterator[Advance]:
    """Gives `advance(n)`. `total` None: not known. `quiet`: nothing is shown (for --json)."""
    if quiet:
        yield lambda n: None
    elif sys.stderr.isatty():
        with bar(total, unit, label) as advance:
            yield advance
    else:
        lines = Lines(total, unit, label)
        try:
            yield lines.advance
        finally:
            lines.show()


@contextmanager
def bar(total: float | None, unit: str, label: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.1f} {unit}/s" if task.speed else "")

    count = "{task.completed:,.0f}/{task.total:,.0f} " if total is not None else "{task.completed:,.0f} "
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn(count + unit), Rate()]
    shown = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
    with shown:
        task = shown.add_task(label, total=total)
        yield lambda n: shown.advance(task, n)


class Lines:
    """One line every LINE_SECONDS, and one at the end."""

    def __init__(self, total: float | None, unit: str, label: str) -> None:
        self.total, self.unit, self.label = total, unit, label
        self.done = 0.0
        self.started = self.shown = time.monotonic()

    def advance(self, n: float) -> None:
        self.done += n
        if time.monotonic() - self.shown >= LINE_SECONDS:
            self.show()

    def show(self) -> None:
        self.shown = time.monotonic()
        rate = self.done / max(self.shown - self.started, 1e-9)
        line = f"{self.label}: {self.done:,.0f}"
        if self.total is not None:
            left = max(0.0, self.total - self.done)
            line += f"/{self.total:,.0f} {self.unit}, {rate:,.1f}/s"
            line += f", {left / rate:,.0f} s left" if left and rate else ""
        else:
            line += f" {self.unit}, {rate:,.1f}/s"
        print(line, file=sys.stderr, flush=True)  # noqa: T201
