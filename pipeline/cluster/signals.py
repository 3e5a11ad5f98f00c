"""Signals while Ray is in use: its calls do not survive an exception out of a handler. A wait that is interrupted
by one gives a SystemError, or exits by itself with Ray's code.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
Deliver = Callable[[], None]


@contextmanager
def held_signals() -> Iterator[Deliver]:
    """Holds signals back until `deliver()` is called, which gives them to the handlers that were there before.

    A second one is not held: whoever sends it has no patience.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {s: signal.getsignal(s) for s in SIGNALS}
    caught: list[int] = []

    def hold(signum: int, frame: FrameType | None) -> None:
        caught.append(signum)
        if len(caught) > 1:
            deliver()

    def deliver() -> None:
        if not caught:
            return
        handler = before[signal.Signals(caught[0])]
        if not callable(handler):
            raise KeyboardInterrupt
        handler(caught[0], None)

    for s in SIGNALS:
        signal.signal(s, hold)
    try:
        yield deliver
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Ray puts a handler of its own over SIGTERM that aborts the process; afterwards ours stands again."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)
