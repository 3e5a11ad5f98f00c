"""Machine, clock and locale."""

import locale
import os
import platform
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from coat.doctor.finding import Finding, Request, broken, ok

OLDEST = datetime(2026, 1, 1, tzinfo=UTC)  # coat is younger
SAMPLE = "é 語"  # ids and paths hold such


def look(request: Request) -> Iterator[Finding]:
    yield ok("machine", f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPUs")
    yield clock(time.time())
    yield from encodings()


def clock(seconds: float) -> Finding:
    """`seconds` since 1970, as the machine has it."""
    now = datetime.fromtimestamp(seconds, UTC)
    if now < OLDEST:
        return broken(
            "clock",
            f"{now:%Y-%m-%d %H:%M:%S} UTC: before coat was written; certificates and stores refuse such a clock",
            "timedatectl set-ntp true",
        )
    return ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")


def encodings() -> Iterator[Finding]:
    named = next((f"{n}={os.environ[n]}" for n in ("LC_ALL", "LC_CTYPE", "LANG") if os.environ.get(n)), "no LANG")
    files = sys.getfilesystemencoding(), locale.getpreferredencoding(False)
    if not all(can_say(encoding) for encoding in files):
        yield broken(
            "locale",
            f"{named}: names of files are {files[0]}, their text {files[1]}; ids and paths that are not ASCII fail",
            "export LC_ALL=C.UTF-8",
        )
    else:
        yield ok("locale", f"{named}: {files[0]} for names of files, {files[1]} for text")
    printed = sys.stdout.encoding or "ascii"
    if not can_say(printed):
        yield broken("output", f"printed as {printed}: lines that are not ASCII fail", "export PYTHONIOENCODING=utf-8")


def can_say(encoding: str) -> bool:
    try:
        return SAMPLE.encode(encoding).decode(encoding) == SAMPLE
    except UnicodeError:
        return False
