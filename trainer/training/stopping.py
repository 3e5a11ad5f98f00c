"""Signals that stop a run at the end of its step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGTERM and SIGINT fill the list instead of killing; the step that runs is finished and saved."""
    signals: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield signals  # handlers can be set in the main thread alone
        return

    def add_signal(number: int, _frame: FrameType | None) -> Any:
        if signals and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C
        signals.append(number)

    before = {s: signal.signal(s, add_signal) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
