"""Is it the file, or the machine? What must hold before an error of audio is believed.

A share that is not mounted looks like a folder without files, one that went away like files that are cut short. So a
file counts as missing only where its folder holds something, and where files that were read before are still there
(witnesses; other workers' too). What cannot be read for a while is read again: `Patience`.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from threading import Event, Lock
from typing import TypeVar

from coat.manifests import addresses, storage
from coat.manifests.audio import faults
from coat.manifests.audio.clip import AudioError
from coat.manifests.errors import ReadFault
from coat.pipeline.decoding.decoded_row import DecodedRow

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
WITNESSES = 64  # folders of which one is remembered
SENT = 8  # at most, along with a unit
ACCEPT = "where files are really gone, --accept-missing records them as missing"

Found = TypeVar("Found")


class Patience:
    """Reads again what could not be read, for some seconds. Once it is out, it is out for all reads of the unit."""

    def __init__(self, seconds: float, stopped: Event) -> None:
        self.seconds, self.stopped = seconds, stopped
        self.out = False

    def retried(self, read: Callable[[], Found]) -> Found:
        """What `read` gives in the end; ReadFault where it never does."""
        ends, pause = time.monotonic() + self.seconds, min(FIRST_PAUSE_S, self.seconds / 4)
        while True:
            try:
                return read()
            except ReadFault:
                if self.out or time.monotonic() + pause > ends or self.stopped.wait(pause):
                    self.out = True
                    raise
            pause = min(2 * pause, LONGEST_PAUSE_S)


class Witnesses:
    """Files that were read well, one a folder, the latest ones of so many folders."""

    def __init__(self) -> None:
        self.by_folder: dict[str, str] = {}
        self.lock = Lock()

    def add(self, files: Iterable[str]) -> None:
        with self.lock:
            for file in files:
                folder = folder_of(file)
                self.by_folder.pop(folder, None)
                self.by_folder[folder] = file
            while len(self.by_folder) > WITNESSES:
                del self.by_folder[next(iter(self.by_folder))]

    def nearest(self, file: str) -> str | None:
        """Of the same folder, else of the one whose path has most in common with it."""
        with self.lock:
            known = list(self.by_folder.values())
            same = self.by_folder.get(folder_of(file))
        return same or max(known, key=lambda w: shared_folders(w, file), default=None)

    def of(self, files: Iterable[str]) -> tuple[str, ...]:
        """Those that say most about these files: few, to go along with a unit."""
        folders = {folder_of(file): file for file in files}
        found = {witness for file in [*folders.values()][:SENT] if (witness := self.nearest(file))}
        return tuple(sorted(found))


def shared_folders(one: str, other: str) -> int:
    """How many folders two paths have in common, from the root on."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def folder_of(audio: str) -> str:
    return addresses.container(audio).rpartition("/")[0]


class Evidence:
    """Of one unit: believes or doubts what decoding says."""

    def __init__(self, patience: Patience, witnesses: Witnesses, accept_missing: bool) -> None:
        self.patience, self.witnesses, self.accept_missing = patience, witnesses, accept_missing

    def believed(self, audio: str, decode: Callable[[bytes | None], Found]) -> Found:
        """What `decode` gives. Its AudioError comes out where it is the file's, ReadFault where it may not be.

        `decode` takes the bytes of the file where these were read already, else None.
        """
        return self.patience.retried(lambda: self.doubted(audio, decode))

    def doubted(self, audio: str, decode: Callable[[bytes | None], Found]) -> Found:
        try:
            return decode(None)
        except AudioError as e:
            error = e
        if error.reason in faults.DOUBTED:
            try:
                held = faults.second_look(audio)
                if held is not None:
                    return decode(held.getvalue())
            except AudioError as e:
                error = e
        if error.reason == "missing" and not self.accept_missing:
            self.check_missing(audio)
        raise error

    def check_missing(self, audio: str) -> None:
        """ReadFault unless the folder of a file that is not there holds something, and its witness is there."""
        witness = self.witnesses.nearest(audio)
        if witness and not faults.is_there(witness):
            raise ReadFault(f"{audio}: not there, and {witness} is gone too, which was read before; {ACCEPT}")
        folder = storage.parent(addresses.container(audio))
        if not (witness and folder_of(witness) == folder_of(audio)) and not faults.holds_anything(folder):
            raise ReadFault(f"{audio}: not there, and its folder is empty or not there; is it mounted here? {ACCEPT}")

    def check_not_all_missing(self, rows: Sequence[DecodedRow]) -> None:
        """ReadFault where none of several files was found. Rows that are tried once more were judged before."""
        fresh = [row for row in rows if not row.planned.fault and not row.planned.previous_unit]
        files = {row.planned.utterance.audio for row in fresh}
        if self.accept_missing or len(files) < 2 or any(row.reason != "missing" for row in fresh):
            return
        raise ReadFault(f"none of the {len(files)} files of a unit is there ({min(files)}, ...); {ACCEPT}")
