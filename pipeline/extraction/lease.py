"""Two runs on one target set: each tells the other which units it has in hand, and which it takes next.

    <target set>/running/<run>.json   {"host", "pid", "started", "beat", "units", "claimed"}

A run claims a block of units ahead with one write, and looks at the others' files before and after it. So a unit costs
no request of its own. A unit in the hand of a living run, or claimed by it, is left to it. There is no lock: where two
runs claim a unit at the same moment the older one keeps it; where both do it, one commits (publish.py).

A run rewrites its file at least every HEARTBEAT_S. One that has not for LEASE_TIMEOUT_S is dead. How old a file is is
told by the clock of the store, which wrote ours too. What a run that died had in hand is known to the next one: it may
have died of it.
"""

import os
import re
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError
from coat.manifests.processes import process_is_alive
from coat.pipeline.store.layout import RUNNING, SPEC

HEARTBEAT_S = 5.0
LEAST_PAUSE_S = 1.0  # between two writes to an object store, unless another run must know
LEASE_TIMEOUT_S = 60.0
STALE_S = 300.0  # the same by the clock of a reader, which may differ from that of the store


@dataclass(frozen=True)
class Claims:
    """What the lease of a run says."""

    host: str
    pid: int
    started: float
    units: tuple[str, ...]  # in hand
    claimed: tuple[str, ...]  # next
    modified: datetime  # by the store's clock

    @property
    def owner_is_alive(self) -> bool | None:
        """Whether the process of the run is there; None where it is on another host."""
        return process_is_alive(self.host, self.pid, self.started)

    def is_alive(self, now: datetime, timeout_s: float) -> bool:
        alive = self.owner_is_alive
        return alive if alive is not None else (now - self.modified).total_seconds() < timeout_s


class Lease:
    """The units of this run, and those of other runs. `begin` before the plan is made, `release` at its end."""

    def __init__(self, set_url: str) -> None:
        self.run = f"{time.strftime('%Y%m%dT%H%M%S')}-{file_safe(socket.gethostname())}-{uuid.uuid4().hex[:6]}"
        self.folder, self.spec = storage.join(set_url, RUNNING), storage.join(set_url, SPEC)
        self.url = storage.join(self.folder, f"{self.run}.json")
        self.owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
        self.pause_s = 0.0 if storage.is_local(set_url) else LEAST_PAUSE_S
        self.units: frozenset[str] = frozenset()
        self.claimed: tuple[str, ...] = ()
        self.beats = 0
        self.last_write = float("-inf")
        self.others = Others(self.folder, self.run)
        self.others_seen = False  # another run was ever seen: units may be committed behind our back
        self.left_by_dead: frozenset[str] = frozenset()

    def begin(self) -> None:
        """Write the lease, and remove those of runs that are dead. The set's spec.json is there."""
        self.write()
        self.left_by_dead = self.others.remove_dead()
        self.others_seen = bool(self.others.claims)

    def hold(self, units: Iterable[str]) -> None:
        """Say which units are in hand now; at once on a disk, on an object store when some time has passed."""
        units = frozenset(units)
        since = time.monotonic() - self.last_write
        if since >= HEARTBEAT_S or (units != self.units and since >= self.pause_s):
            self.units = units
            self.write()

    def claim(self, units: Iterable[str], in_hand: Iterable[str]) -> set[str]:
        """Say that these are taken next; gives those that are left to other runs."""
        units = list(units)
        held = self.held_by_others()
        free = [unit for unit in units if unit not in held]
        self.units, self.claimed = frozenset(in_hand), tuple(free)
        self.write()
        rivals = self.held_by_others()
        older = {unit for unit in free if rivals.get(unit, self.run) < self.run}
        return (set(units) - set(free)) | older

    def write(self) -> None:
        self.beats, self.last_write = self.beats + 1, time.monotonic()
        self.check_store()
        lease = {**self.owner, "beat": self.beats, "units": sorted(self.units), "claimed": list(self.claimed)}
        try:
            storage.write_bytes(self.url, storage.to_json(lease), sync=False, parents=False)
        except InputError:
            self.check_store()
            raise

    def check_store(self) -> None:
        if not storage.exists(self.spec):
            raise RunError(f"{self.spec}: gone; the store was removed or moved while a run was at work on it")

    def held_by_others(self) -> dict[str, str]:
        """Units that other living runs have in hand or take next, each with its run."""
        held: dict[str, str] = {}
        for run, claims in self.others.look().items():
            self.others_seen = True
            if claims.is_alive(self.others.now, LEASE_TIMEOUT_S):
                held |= dict.fromkeys([*claims.units, *claims.claimed], run)
        return held

    @property
    def living_others(self) -> int:
        return sum(claims.is_alive(self.others.now, LEASE_TIMEOUT_S) for claims in self.others.claims.values())

    def release(self) -> None:
        storage.remove(self.url)
        storage.remove_if_empty(self.folder)


class Others:
    """The leases of other runs: one listing a look, and a read of what has changed since the last."""

    def __init__(self, folder: str, run: str = "") -> None:
        self.folder, self.run = folder, run
        self.stamps: dict[str, str] = {}
        self.claims: dict[str, Claims] = {}
        self.now = datetime.fromtimestamp(0, UTC)  # by the store's clock, as the newest of all leases says

    def look(self) -> dict[str, Claims]:
        files = {run: f for f in storage.list_files(self.folder) if (run := run_of(f.name))}
        self.now = max([self.now, *(f.modified for f in files.values())])
        for run in self.claims.keys() - files.keys():
            del self.claims[run], self.stamps[run]
        for run, file in files.items():
            if run != self.run and self.stamps.get(run) != file.stamp:
                claims = read_claims(storage.join(self.folder, file.name), file.modified)
                if claims is not None:
                    self.stamps[run], self.claims[run] = file.stamp, claims
        return self.claims

    def remove_dead(self) -> frozenset[str]:
        """Remove the leases of dead runs; gives the units that runs of this host had in hand."""
        found: set[str] = set()
        for run, claims in list(self.look().items()):
            if not claims.is_alive(self.now, LEASE_TIMEOUT_S):
                storage.remove(storage.join(self.folder, f"{run}.json"))
                del self.claims[run], self.stamps[run]
                found.update(claims.units if claims.owner_is_alive is False else ())
        return frozenset(found)


def run_of(name: str) -> str:
    """The run of a lease's file; empty for other files, such as one that is being written."""
    run, _, suffix = name.rpartition(".")
    return run if suffix == "json" and not run.startswith(".") and "/" not in run else ""


def read_claims(url: str, modified: datetime) -> Claims | None:
    """None where the run ended just now, or was killed while it wrote."""
    try:
        lease: dict[str, Any] = storage.read_json(url)
        who = lease["host"], int(lease["pid"]), float(lease["started"])
        return Claims(*who, tuple(lease["units"]), tuple(lease.get("claimed", ())), modified)
    except (FileNotFoundError, InputError, KeyError, TypeError, ValueError):
        return None


def file_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", name)[:40]
