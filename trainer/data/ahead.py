"""An iterator that is run ahead in a thread, as far as a budget of bytes allows."""

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
LOOK_S = 0.2  # how often a thread that waits looks whether it is still wanted
EXIT_S = 10.0  # that threads have for the items in hand when the process ends

running: "dict[threading.Thread, Ahead[Any]]" = {}  # threads that have not ended


@atexit.register
def end_threads() -> None:
    """A thread that is within C++ (torch, soxr) when the interpreter goes away ends the process by SIGABRT: a run that
    is finished would have failed. One that waits for a store is left behind, which is harmless there.
    """
    threads, until = list(running.items()), time.monotonic() + EXIT_S
    for _, ahead in threads:
        ahead.close()
    for thread, _ in threads:
        if thread.is_alive():
            thread.join(max(0.0, until - time.monotonic()))


class Ahead(Generic[T]):
    """The items of an iterator, in its order. At most `max_bytes` wait to be taken, or `max_items`, or one item.

    An error of the iterator is raised where its item would come. `close` neither waits nor locks: the garbage collector
    may call it in any thread, also in this one.
    """

    def __init__(
        self, items: Generator[T], size_of: Callable[[T], int], max_bytes: float, max_items: float = float("inf")
    ) -> None:
        self.size_of, self.max_bytes, self.max_items = size_of, max_bytes, max_items
        self.changed = threading.Condition()
        self.ready: deque[tuple[T, int]] = deque()
        self.bytes = 0  # of these
        self.ended, self.closed = False, False
        self.error: Exception | None = None
        thread = threading.Thread(target=self.run, args=(items,), daemon=True)
        running[thread] = self
        thread.start()

    def run(self, items: Generator[T]) -> None:
        try:
            self.take_all(items)
        finally:
            running.pop(threading.current_thread(), None)

    def take_all(self, items: Generator[T]) -> None:
        error: Exception | None = None
        try:
            for item in items:
                size = self.size_of(item)
                with self.changed:
                    while self.is_full(size) and not self.closed:
                        self.changed.wait(LOOK_S)
                    if self.closed:
                        break
                    self.ready.append((item, size))
                    self.bytes += size
                    self.changed.notify_all()
        except Exception as e:  # noqa: BLE001 - raised again where its item is taken
            error = e
        finally:
            items.close()
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def is_full(self, size: int) -> bool:
        return bool(self.ready) and (self.bytes + size > self.max_bytes or len(self.ready) >= self.max_items)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self.changed:
            while not self.ready and not self.ended and not self.closed:
                self.changed.wait(LOOK_S)
            if self.ready:
                item, size = self.ready.popleft()
                self.bytes -= size
                self.changed.notify_all()
                return item
            if self.error is not None:
                raise self.error
            raise StopIteration

    def close(self) -> None:
        """Nothing more is read, behind the item in hand."""
        self.closed = True
