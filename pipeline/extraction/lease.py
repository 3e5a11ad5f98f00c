"""Two runs on one target set: each tells the other which units it has in hand.

    <target set>/running/<run>.json   {"host", "pid", "started", "beat", "units"}

A run rewrites its file whenever its hand changes, and at least every BEAT_S. A unit in the hand of a living
run is left to it. There is no lock (object stores have none): where two runs take one unit at the same moment
both do it, and write the same bytes. What a run that died had in hand is known to the next one: it may have
died of it.
"""

import os
import re
import socket
import time
import uuid
from collections.abc import Iterable
from typing import Any

import psutil

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError
from coat.pipeline.store.layout import RUNNING, SPEC

BEAT_S = 5.0
SILENT_S = 60.0  # a run on another host whose file has not changed for so long, while we watched, is dead


class Lease:
    """What this run has in hand, and what others have. Made when a run begins; `release` when it ends."""

    def __init__(self, set_url: str) -> None:
        self.run = f"{time.strftime('%Y%m%dT%H%M%S')}-{plain(socket.gethostname())}-{uuid.uuid4().hex[:6]}"
        self.folder, self.spec = storage.join(set_url, RUNNING), storage.join(set_url, SPEC)
        self.mine = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        self.units: frozenset[str] = frozenset()
        self.beats = 0
        self.beaten = 0.0
        self.seen: dict[str, tuple[Any, float]] = {}  # of other runs: their last beat, and when it changed
        self.contested = False  # another run was ever seen: units may be committed behind our back
        self.left_by_dead = self.bury()

    def hold(self, units: Iterable[str]) -> None:
        """Say what is in hand now; does nothing where it is known and fresh."""
        units = frozenset(units)
        if units == self.units and time.monotonic() - self.beaten < BEAT_S:
            return
        self.units, self.beats, self.beaten = units, self.beats + 1, time.monotonic()
        if not storage.exists(self.spec):
            raise RunError(f"{self.spec}: gone; the store was removed or moved while a run was at work on it")
        told = {**self.mine, "beat": self.beats, "units": sorted(units)}
        storage.write_bytes(storage.join(self.folder, f"{self.run}.json"), storage.to_json(told), sync=False)

    def elsewhere(self) -> dict[str, str]:
        """Units in the hands of other living runs, each with its run."""
        held: dict[str, str] = {}
        for run, told in self.others().items():
            self.contested = True
            if self.alive(run, told):
                held |= dict.fromkeys(told["units"], run)
        return held

    def release(self) -> None:
        storage.remove(storage.join(self.folder, f"{self.run}.json"))
        storage.remove_if_empty(self.folder)

    def bury(self) -> frozenset[str]:
        """Remove the files of runs that died on this host; what they had in hand."""
        dead = {run: told for run, told in self.others().items() if is_here(told) and not exists(told)}
        for run in dead:
            storage.remove(storage.join(self.folder, f"{run}.json"))
        return frozenset(unit for told in dead.values() for unit in told["units"])

    def others(self) -> dict[str, dict[str, Any]]:
        return {run: told for run, told in read_leases(self.folder).items() if run != self.run}

    def alive(self, run: str, told: dict[str, Any]) -> bool:
        if is_here(told):
            return exists(told)
        beat, since = self.seen.get(run, (None, 0.0))
        if beat != told["beat"]:  # clocks of two hosts are not compared
            self.seen[run] = told["beat"], time.monotonic()
            return True
        return time.monotonic() - since < SILENT_S


def read_leases(folder: str) -> dict[str, dict[str, Any]]:
    """What every run says of itself, by run; of the dead too."""
    found = {}
    for name in storage.list_names(folder):
        run, dot, suffix = name.rpartition(".")
        if not dot or suffix != "json" or not run or run.startswith("."):
            continue
        try:
            told = storage.read_json(storage.join(folder, name))
        except (FileNotFoundError, InputError):
            continue  # it ended just now, or was killed while it wrote
        if isinstance(told, dict) and {"host", "pid", "started", "beat", "units"} <= told.keys():
            found[run] = told
    return found


def exists(told: dict[str, Any]) -> bool:
    """Whether the process is there, and is not another one that was given its number."""
    try:
        process = psutil.Process(told["pid"])
        return abs(process.create_time() - told["started"]) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_here(told: dict[str, Any]) -> bool:
    return told["host"] == socket.gethostname()


def plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", name)[:40]
