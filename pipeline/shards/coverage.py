"""What the target sets have for the rows of a manifest. M rows of the manifest, E experts."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow.compute
from numpy.typing import NDArray

from coat.manifests.corpus.digests import hash_texts
from coat.manifests.corpus.manifest import Manifest
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.store.rows import OK
from coat.pipeline.store.target_set import TargetSet

FLAC_BYTES_PER_SECOND = 17_000  # of 16-bit mono speech and music at 16 kHz; only batches are cut by it

pc: Any = pyarrow.compute


MEMBER_BYTES = 1024  # header and padding


UNKNOWN = -1  # status of a row that was not extracted


class TargetCoverage:
    """Of each row: where its targets lie, what became of it, how long it is."""

    def __init__(self, manifest: Manifest, sets: Mapping[str, TargetSet]) -> None:
        self.manifest, self.sets = manifest, sets
        found = [targets.rows.find(manifest.digests) for targets in sets.values()]
        status = [
            np.append(t.rows.status, UNKNOWN)[at].astype(np.int8) for t, at in zip(sets.values(), found, strict=True)
        ]
        decoded = [
            np.append(pc.is_valid(t.rows.locations["source"]).to_numpy(), True)[at]
            for t, at in zip(sets.values(), found, strict=True)
        ]
        self.any_row_ME, self.status_ME = np.stack(found, axis=1), np.stack(status, axis=1)
        self.undecodable_M = ~np.stack(decoded, axis=1).any(axis=1)
        self.target_row_ME = np.where(self.status_ME == OK, self.any_row_ME, -1)
        seconds = [np.append(t.rows.seconds, 0.0)[self.target_row_ME[:, e]] for e, t in enumerate(sets.values())]
        stated = np.nan_to_num(manifest.durations)
        self.seconds_M = np.where((self.target_row_ME >= 0).any(axis=1), np.max(seconds, axis=0), stated)
        self.ids_M = hash_texts(manifest.ids)
        _, first, group = np.unique(self.ids_M, return_index=True, return_inverse=True)
        self.first_with_id_M = first[group]  # the row that has this id first

    def missing_M(self, masked: bool) -> NDArray[np.bool_]:
        """Rows that cannot be a sample. `masked`: only those that no expert could decode, for they have no audio.

        A row of text alone needs no targets.
        """
        is_repeated_M = self.first_with_id_M != np.arange(len(self.manifest))
        has_none_M = self.undecodable_M if masked else (self.target_row_ME < 0).any(axis=1)
        return is_repeated_M | (has_none_M & self.manifest.with_audio)

    def reasons(self, positions: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
        """(id, why it cannot be a sample) of some rows."""
        for position, u in zip(positions.tolist(), self.manifest.take(positions), strict=True):
            if self.first_with_id_M[position] != position:
                yield (
                    u.id,
                    f"row {u.row} repeats the id of row {self.manifest[int(self.first_with_id_M[position])].row}",
                )
                continue
            e = int(np.flatnonzero(self.target_row_ME[position] < 0)[0])
            (name, targets), at = list(self.sets.items())[e], int(self.any_row_ME[position, e])
            yield u.id, f"{name} {targets.rows.row_at(at).error if at >= 0 else 'was not extracted'}"

    def estimated_bytes_M(self, recipe: Recipe) -> NDArray[np.float64]:
        """Of the sample that a row becomes."""
        nbytes = 2.0 * MEMBER_BYTES + self.seconds_M * (FLAC_BYTES_PER_SECOND if recipe.audio != "none" else 0)
        if recipe.layout == "joint":
            for e, targets in enumerate(self.sets.values()):
                frames = np.append(targets.rows.locations["frames"].to_numpy(), 0)[self.target_row_ME[:, e]]
                nbytes += frames * targets.spec.dim * np.dtype(targets.spec.dtype).itemsize + MEMBER_BYTES
        return nbytes
