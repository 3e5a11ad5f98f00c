"""`python -m coat.doctor.child SUBJECT PLACE`: looks at one subject, and writes each finding as a line of JSON."""

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from coat.doctor.finding import Request
from coat.doctor.subjects import findings_of

T = TypeVar("T")


def main(subject: str, ray_address: str) -> None:
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is none of the findings

    for finding in findings_of(subject, Request(ray_address=ray_address or None)):
        lines.write(json.dumps(asdict(finding)) + "\n")
        lines.flush()
    os._exit(0)  # without waiting for threads that hang on a disk or a network


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` gives or raises. TimeoutError where it takes longer: it goes on in a thread that nobody waits for."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append((call(), None))
        except BaseException as e:  # noqa: BLE001 - raised below
            results.append((None, e))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    value, error = results[0]
    if error is not None:
        raise error
    return value


if __name__ == "__main__":
    main(*sys.argv[1:])
