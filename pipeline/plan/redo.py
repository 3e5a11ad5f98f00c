"""Rows to extract once more: those that failed, or whose audio sounds different now."""

import numpy as np
from numpy.typing import NDArray

from coat.manifests.corpus.digests import to_hex
from coat.manifests.corpus.manifest import Manifest
from coat.pipeline.store.outcomes import RowsByDigest
from coat.pipeline.store.rows import FAILED
from coat.pipeline.store.source_changes import current_digests
from coat.pipeline.store.target_set import TargetSet

DECODED_ROWS = 4096  # looked up at a time when all audio is compared


def rows_to_redo(manifest: Manifest, targets: TargetSet, failed: bool, changed: bool) -> dict[str, str]:
    """Digests of rows that are extracted once more, with the unit that holds their outcome so far."""
    rows = targets.outcomes
    positions = np.flatnonzero(rows.status == FAILED) if failed else np.empty(0, np.int64)
    if changed:
        positions = np.union1d(positions, changed_rows(manifest, targets.rows))
    units = (rows.units[u] for u in rows.unit[positions])
    return dict(zip(to_hex(rows.digests[positions]), units, strict=True))


def changed_rows(manifest: Manifest, rows: RowsByDigest) -> NDArray[np.int64]:
    """Positions in `rows` of those whose audio sounds different now; all audio is decoded."""
    positions = rows.find(manifest.digests)
    found: list[int] = []
    for start in range(0, len(manifest), DECODED_ROWS):
        known = start + np.flatnonzero(positions[start : start + DECODED_ROWS] >= 0)
        now = current_digests(manifest.take(known))
        for position, (_, source, _) in zip(positions[known].tolist(), now, strict=True):
            if rows.row_at(position).source not in (None, source):
                found.append(position)
    return np.array(found, np.int64)
