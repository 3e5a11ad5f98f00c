"""What the experts of one worker share: decoding threads, the one thread that runs models, and witnesses."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from coat.pipeline.decoding.evidence import Witnesses
from coat.pipeline.worker.config import WorkerConfig

Found = TypeVar("Found")
Place = tuple[int, float, str]  # cut, planned seconds and digest of a row: rows of a cut are in this order in each unit
FIRST_ROW = (0.0, "")
DOWNLOADS = 64  # at once: at 50 ms each, some 1,000 files a second


class Hands:
    """Of one worker, whether it has one expert or several."""

    def __init__(self, config: WorkerConfig) -> None:
        self.stopped = threading.Event()  # set: units in hand are dropped at their next batch
        self.decoders = ThreadPoolExecutor(decode_threads(config), thread_name_prefix="decode")
        self.downloads = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="download")
        self.models = ModelThread()
        self.witnesses = Witnesses()


def decode_threads(config: WorkerConfig) -> int:
    """Two at least: one reads from a slow store while the other decodes."""
    if config.decode_threads is not None:
        return config.decode_threads
    return max(2, (os.cpu_count() or 1) if config.device.startswith("cuda") else config.threads)


@dataclass(eq=False)
class Turn:
    """A unit that is to be run, batch by batch. `steps` says before each batch which row comes next."""

    cut: int
    steps: Iterator[tuple[float, str]]
    next_row: tuple[float, str] = FIRST_ROW
    ended: Future[None] = field(default_factory=Future[None])

    @property
    def place(self) -> Place:
        return self.cut, *self.next_row


class ModelThread:
    """The one thread in which all models of a worker load and run.

    Each thread that runs a model has OpenMP threads of its own, and where these are more than the CPUs, libgomp lets
    all of them wait more slowly. Of several units an earlier cut's come first, and of one cut's the one whose next row
    comes first: so experts go through a cut together, and few decoded clips wait for the last of them.
    """

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.lock = threading.Lock()
        self.turns: list[Turn] = []

    def call(self, function: Callable[[], Found]) -> Found:
        return self.thread.submit(function).result()

    def run(self, cut: int, steps: Iterator[tuple[float, str]]) -> None:
        """All steps of a unit, some between those of other units. What a step raises comes out here."""
        turn = Turn(cut, steps)
        with self.lock:
            self.turns.append(turn)
        self.thread.submit(self.work)
        turn.ended.result()

    def work(self) -> None:
        """One step at a time, until no unit has any left."""
        while True:
            with self.lock:
                turn = min(self.turns, key=lambda t: t.place, default=None)
            if turn is None:
                return
            try:
                turn.next_row = next(turn.steps)
            except StopIteration:
                self.end(turn)
                turn.ended.set_result(None)
            except BaseException as e:  # noqa: BLE001  whatever it is, it belongs to who waits for the unit
                self.end(turn)
                turn.ended.set_exception(e)

    def end(self, turn: Turn) -> None:
        with self.lock:
            self.turns.remove(turn)
