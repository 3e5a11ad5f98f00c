"""What target sets have."""

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

FLAC_BYTES_PER_SECOND = 17_000  # of 16-bit mono speech and music at 16 kHz; only parts are cut by it

pc: Any = pyarrow.compute


MEMBER_BYTES = 1024  # header and padding


UNKNOWN = -1  # status of a row that was not extracted


class Found:
    """What the target sets have for the rows of a manifest."""

    def __init__(self, manifest: Manifest, sets: Mapping[str, TargetSet]) -> None:
        self.manifest, self.sets = manifest, sets
        found = [targets.rows.find(manifest.digests) for targets in sets.values()]
        status = [
            np.append(t.rows.status, UNKNOWN)[at].astype(np.int8) for t, at in zip(sets.values(), found, strict=True)
        ]
        heard = [
            np.append(pc.is_valid(t.rows.place["source"]).to_numpy(), True)[at]
            for t, at in zip(sets.values(), found, strict=True)
        ]
        self.at_ME, self.status_ME = np.stack(found, axis=1), np.stack(status, axis=1)
        self.unheard_M = ~np.stack(heard, axis=1).any(axis=1)
        self.place_ME = np.where(self.status_ME == OK, self.at_ME, -1)
        seconds = [np.append(t.rows.seconds, 0.0)[self.place_ME[:, e]] for e, t in enumerate(sets.values())]
        stated = np.nan_to_num(manifest.durations)
        self.seconds_M = np.where((self.place_ME >= 0).any(axis=1), np.max(seconds, axis=0), stated)
        self.ids_M = hash_texts(manifest.ids)
        _, first, group = np.unique(self.ids_M, return_index=True, return_inverse=True)
        self.first_M = first[group]  # the row that has this id first

    def lacks(self, masks: bool) -> NDArray[np.bool_]:
        """Rows that cannot be a sample. Masked: those alone that no expert could decode, so that there is no audio.

        Text alone lacks nothing.
        """
        repeated = self.first_M != np.arange(len(self.manifest))
        lacking = self.unheard_M if masks else (self.place_ME < 0).any(axis=1)
        return repeated | (lacking & self.manifest.with_audio)

    def reasons(self, positions: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
        for position, u in zip(positions.tolist(), self.manifest.take(positions), strict=True):
            if self.first_M[position] != position:
                yield u.id, f"row {u.row} repeats the id of row {self.manifest[int(self.first_M[position])].row}"
                continue
            e = int(np.flatnonzero(self.place_ME[position] < 0)[0])
            (name, targets), at = list(self.sets.items())[e], int(self.at_ME[position, e])
            yield u.id, f"{name} {targets.rows.at(at).error if at >= 0 else 'was not extracted'}"

    def bytes_M(self, sets: Mapping[str, TargetSet], recipe: Recipe) -> NDArray[np.float64]:
        nbytes = 2.0 * MEMBER_BYTES + self.seconds_M * (FLAC_BYTES_PER_SECOND if recipe.audio != "none" else 0)
        if recipe.layout == "joint":
            for e, targets in enumerate(sets.values()):
                frames = np.append(targets.rows.place["frames"].to_numpy(), 0)[self.place_ME[:, e]]
                nbytes += frames * targets.spec.dim * np.dtype(targets.spec.dtype).itemsize + MEMBER_BYTES
        return nbytes
