"""`coat status`: what a store holds, by target set."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from coat.manifests.manifest import Manifest
from coat.pipeline.plan import planned_rows
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
    return [set_status(targets, manifest) for targets in TargetStore(store).target_sets()]


def set_status(targets: TargetSet, manifest: Manifest | None) -> SetStatus:
    rows = targets.rows
    missing = None
    if manifest is not None:
        wanted = [p.digest for p in planned_rows(manifest, lambda n: None)]
        rows = {d: rows[d] for d in wanted if d in rows}
        missing = len(wanted) - len(rows)
    by_status = Counter(row.status for row in rows.values())
    bad = [row for row in rows.values() if row.status != "ok"]
    spec = targets.spec
    return SetStatus(
        expert=spec.expert,
        fingerprint=spec.fingerprint,
        checkpoint=spec.checkpoint,
        dim=spec.dim,
        rate_hz=spec.rate_hz,
        units=len(targets.done),
        ok=by_status["ok"],
        failed=by_status["failed"],
        skipped=by_status["skipped"],
        missing=missing,
        hours=sum(row.seconds for row in rows.values() if row.status == "ok") / 3600,
        bytes=sum(int(done["bytes"]) for done in targets.done.values()),
        reasons=dict(Counter(row.reason or "" for row in bad).most_common()),
        failures=tuple((row.id, row.error or "") for row in bad if row.status == "failed"),
    )
