"""`coat status`: what a store holds, by target set, and what is being done about the rest."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.corpus.manifest import Manifest
from coat.pipeline.plan.row_identities import identify_rows
from coat.pipeline.status.activity import RunActivity, RunLogs, run_activities
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_table import STAGES


@dataclass(frozen=True)
class SetStatus:
    """One target set. Counts are utterances; `missing` counts those of a manifest that no unit holds."""

    expert: str
    fingerprint: str
    checkpoint: str
    dim: int
    rate_hz: float
    units: int
    ok: int
    failed: int
    skipped: int
    missing: int | None
    hours: float
    bytes: int
    reasons: dict[str, int]
    failures: tuple[tuple[str, str], ...]  # id, error
    stages: dict[str, float]  # seconds by stage, of all units; decode: of all decoding threads together
    padding_share: float | None  # of the audio that the expert was given
    runs: tuple[RunActivity, ...]  # at work, or dead with units in hand

    @property
    def examples(self) -> dict[str, tuple[str, str]]:
        """Of each reason to fail, the first row: id, error."""
        found: dict[str, tuple[str, str]] = {}
        for identity, error in self.failures:
            found.setdefault(error.split(":", 1)[0], (identity, error))
        return found

    @property
    def at_work(self) -> bool:
        return any(run.alive for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        runs = [{**asdict(run), "eta_seconds": run.eta_seconds} for run in self.runs]
        return {**asdict(self), "examples": self.examples, "runs": runs}


def status(store: str, manifest: Manifest | None = None) -> list[SetStatus]:
    """Every target set of a store; with a manifest, of its rows alone. An empty list: nothing there."""
    return Watch(store, manifest).look()


class Watch:
    """Looks at a store again and again; from the second look on it reads what is new alone."""

    def __init__(self, store: str, manifest: Manifest | None = None) -> None:
        self.store = TargetStore(store)
        self.wanted = None if manifest is None else identify_rows(manifest).digests[manifest.with_audio]
        self.targets: dict[str, TargetSet] = {}
        self.logs: dict[str, RunLogs] = {}

    def look(self) -> list[SetStatus]:
        """As `status`."""
        found = []
        for targets in self.store.target_sets():
            before = self.targets.get(targets.url)
            self.targets[targets.url] = now = before.refreshed() if before else targets
            logs = self.logs.setdefault(now.url, RunLogs(now.url))
            found.append(set_status(now, self.wanted, logs))
        return found


def set_status(targets: TargetSet, wanted: NDArray[np.uint64] | None, logs: RunLogs) -> SetStatus:
    """Of all rows, or of those with the `wanted` digests."""
    rows = targets.outcomes
    positions = missing = None
    if wanted is not None:
        found = rows.find(wanted)
        positions = found[found >= 0]
        missing = len(wanted) - len(positions)
    counts = rows.count(positions)
    spec, done = targets.spec, targets.done
    stages = {name: done.sum(name) for name in STAGES}
    padded, heard = done.sum("padded_audio_seconds"), done.sum("heard_audio_seconds")
    return SetStatus(
        expert=spec.expert,
        fingerprint=spec.fingerprint,
        checkpoint=spec.checkpoint,
        dim=spec.dim,
        rate_hz=spec.rate_hz,
        units=len(done),
        ok=counts.ok,
        failed=counts.failed,
        skipped=counts.skipped,
        missing=missing,
        hours=counts.seconds / 3600,
        bytes=int(done.sum("bytes")),
        reasons=counts.reasons,
        failures=counts.failures,
        stages=stages,
        padding_share=1 - heard / padded if padded else None,
        runs=run_activities(targets.url, logs),
    )
