"""Two runs on one target set: each tells the other which units it has in hand.

    <target set>/running/<run>.json   {"host", "pid", "started", "beat", "units"}

A run rewrites its file whenever it takes or finishes a unit, and at least every HEARTBEAT_S. A unit in the hand of
a living run is left to it. There is no lock (object stores have none): where two runs take one unit at the same
moment both do it, and write the same bytes. What a run that died had in hand is known to the next one: it may have
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
from coat.manifests.processes import process_is_alive
from coat.pipeline.store.layout import RUNNING, SPEC

HEARTBEAT_S = 5.0
LEASE_TIMEOUT_S = 60.0  # a run on another host whose file has not changed for so long, while we watched, is dead


class Lease:
    """The units that this run has in hand, and those of other runs. Made when a run begins; `release` at its end."""

    def __init__(self, set_url: str) -> None:
        self.run = f"{time.strftime('%Y%m%dT%H%M%S')}-{file_safe(socket.gethostname())}-{uuid.uuid4().hex[:6]}"
        self.folder, self.spec = storage.join(set_url, RUNNING), storage.join(set_url, SPEC)
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        self.units: frozenset[str] = frozenset()
        self.beats = 0
        self.last_beat = 0.0
        self.seen_beats: dict[str, tuple[Any, float]] = {}  # of other runs: their last beat, and when it changed
        self.others_seen = False  # another run was ever seen: units may be committed behind our back
        self.left_by_dead = self.remove_dead()

    def hold(self, units: Iterable[str]) -> None:
        """Say which units are in hand now; does nothing where that is known and fresh."""
        units = frozenset(units)
        if units == self.units and time.monotonic() - self.last_beat < HEARTBEAT_S:
            return
        self.units, self.beats, self.last_beat = units, self.beats + 1, time.monotonic()
        if not storage.exists(self.spec):
            raise RunError(f"{self.spec}: gone; the store was removed or moved while a run was at work on it")
        lease = {**self.owner, "beat": self.beats, "units": sorted(units)}
        storage.write_bytes(storage.join(self.folder, f"{self.run}.json"), storage.to_json(lease), sync=False)

    def held_by_others(self) -> dict[str, str]:
        """Units in the hands of other living runs, each with its run."""
        held: dict[str, str] = {}
        for run, lease in self.other_leases().items():
            self.others_seen = True
            if self.is_alive(run, lease):
                held |= dict.fromkeys(lease["units"], run)
        return held

    def release(self) -> None:
        storage.remove(storage.join(self.folder, f"{self.run}.json"))
        storage.remove_if_empty(self.folder)

    def remove_dead(self) -> frozenset[str]:
        """Remove the files of runs that died on this host; gives the units that they had in hand."""
        dead = {run: lease for run, lease in self.other_leases().items() if owner_is_alive(lease) is False}
        for run in dead:
            storage.remove(storage.join(self.folder, f"{run}.json"))
        return frozenset(unit for lease in dead.values() for unit in lease["units"])

    def other_leases(self) -> dict[str, dict[str, Any]]:
        return {run: lease for run, lease in read_leases(self.folder).items() if run != self.run}

    def is_alive(self, run: str, lease: dict[str, Any]) -> bool:
        alive = owner_is_alive(lease)
        if alive is not None:
            return alive
        beat, since = self.seen_beats.get(run, (None, 0.0))
        if beat != lease["beat"]:  # clocks of two hosts are not compared
            self.seen_beats[run] = lease["beat"], time.monotonic()
            return True
        return time.monotonic() - since < LEASE_TIMEOUT_S


def read_leases(folder: str) -> dict[str, dict[str, Any]]:
    """The lease of every run, by run; of the dead too."""
    found = {}
    for name in storage.list_names(folder):
        run, dot, suffix = name.rpartition(".")
        if not dot or suffix != "json" or not run or run.startswith("."):
            continue
        try:
            lease = storage.read_json(storage.join(folder, name))
        except (FileNotFoundError, InputError):
            continue  # it ended just now, or was killed while it wrote
        if isinstance(lease, dict) and {"host", "pid", "started", "beat", "units"} <= lease.keys():
            found[run] = lease
    return found


def owner_is_alive(lease: dict[str, Any]) -> bool | None:
    """Whether the process of the run is there; None where it is on another host."""
    return process_is_alive(lease["host"], lease["pid"], lease["started"])


def file_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", name)[:40]
