"""Runs that are at work on a target set, from their leases and logs: how far, how fast, how long still."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coat.manifests import storage
from coat.pipeline.extraction.lease import STALE_S, Claims, Others
from coat.pipeline.store.layout import RUNNING, RUNS

RECENT_S = 600.0  # that the rate is taken over


@dataclass(frozen=True)
class RunActivity:
    """One run. Of a dead one the lease is still there, because nothing could take it away."""

    run: str
    host: str
    alive: bool
    units: int
    units_done: int
    audio_seconds: float  # to do when it began
    audio_done: float
    failed: int
    rate: float  # seconds of audio a second, lately
    workers: int  # that gave a unit lately
    in_hand: int

    @property
    def eta_seconds(self) -> float | None:
        return max(0.0, self.audio_seconds - self.audio_done) / self.rate if self.rate else None


class RunLogs:
    """The logs of a target set's runs; what was read of them and has not changed since is not read again."""

    def __init__(self, set_url: str) -> None:
        self.folder = storage.join(set_url, RUNS)
        self.parts: dict[str, tuple[str, bytes]] = {}  # by name: stamp and contents

    def read(self, run: str) -> list[dict[str, Any]]:
        """Its events, oldest first; a last line that is still being written is left out."""
        files = {f.name: f for f in storage.list_files(self.folder) if f.name.endswith(".jsonl")}
        names = sorted(name for name in files if name.startswith(f"{run}."))
        for name in names:
            if self.parts.get(name, ("", b""))[0] != files[name].stamp:
                self.parts[name] = files[name].stamp, storage.read_bytes(storage.join(self.folder, name))
        text = b"".join(self.parts[name][1] for name in names).decode()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def run_activities(set_url: str, logs: RunLogs) -> tuple[RunActivity, ...]:
    """Every run that has a lease. One on another host is taken to be alive while its lease is rewritten."""
    leases = Others(storage.join(set_url, RUNNING)).look()
    return tuple(run_activity(logs, run, claims) for run, claims in leases.items())


def run_activity(logs: RunLogs, run: str, claims: Claims) -> RunActivity:
    events = logs.read(run)
    planned: dict[str, Any] = next((e for e in events if e["event"] == "planned"), {})
    units = [e for e in events if e["event"] == "unit"]
    now = datetime.now(UTC)
    ages = [(now - datetime.fromisoformat(e["time"])).total_seconds() for e in units]
    recent = [e for e, age in zip(units, ages, strict=True) if age <= RECENT_S]
    rate = 0.0
    if recent:
        span_s = max(age + e["unit_seconds"] for e, age in zip(units, ages, strict=True) if age <= RECENT_S)
        rate = sum(e["audio_seconds"] for e in recent) / max(span_s, 1e-6)
    return RunActivity(
        run=run,
        host=claims.host,
        alive=claims.is_alive(now, STALE_S),
        units=int(planned.get("units", 0)),
        units_done=len(units),
        audio_seconds=float(planned.get("audio_seconds", 0.0)),
        audio_done=sum(e["audio_seconds"] for e in units),
        failed=sum(e["failed"] for e in units),
        rate=rate,
        workers=len(Counter(e["worker"] for e in recent)),
        in_hand=len(claims.units),
    )
