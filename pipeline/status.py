"""`coat status`: what a store holds, by target set."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.manifest import Manifest
from coat.pipeline.plan import identities
from coat.pipeline.store import TargetSet, TargetStore


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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def status(store: str, manifest: Manifest | None = None) -> list[SetStatus]:
    """Every target set of a store; with a manifest, of its rows alone. An empty list: nothing there."""
    wanted = None if manifest is None else identities(manifest).digests
    return [set_status(targets, wanted) for targets in TargetStore(store).target_sets()]


def set_status(targets: TargetSet, wanted: NDArray[np.uint64] | None) -> SetStatus:
    """Of all rows, or of those with the `wanted` digests."""
    rows = targets.outcomes
    positions = missing = None
    if wanted is not None:
        found = rows.find(wanted)
        positions = found[found >= 0]
        missing = len(wanted) - len(positions)
    counts = rows.count(positions)
    spec = targets.spec
    return SetStatus(
        expert=spec.expert,
        fingerprint=spec.fingerprint,
        checkpoint=spec.checkpoint,
        dim=spec.dim,
        rate_hz=spec.rate_hz,
        units=len(targets.done),
        ok=counts.ok,
        failed=counts.failed,
        skipped=counts.skipped,
        missing=missing,
        hours=counts.seconds / 3600,
        bytes=sum(int(done["bytes"]) for done in targets.done.values()),
        reasons=counts.reasons,
        failures=counts.failures,
    )
