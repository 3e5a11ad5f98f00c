"""What the target sets have for the rows of a manifest. M rows of the manifest."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests.corpus.manifest import Manifest
from coat.pipeline.gathering.places import UNKNOWN, TargetPlaces
from coat.pipeline.shards.recipe import Recipe
from coat.pipeline.store.target_set import TargetSet

FLAC_BYTES_PER_SECOND = 17_000  # of 16-bit mono speech and music at 16 kHz; only blocks are cut by it


MEMBER_BYTES = 1024  # header and padding


class TargetCoverage:
    """Of each row: what became of it, how long it is, whether it can be a sample."""

    def __init__(self, manifest: Manifest, sets: Mapping[str, TargetSet], places: Mapping[str, TargetPlaces]) -> None:
        self.manifest, self.sets, self.places = manifest, sets, places
        rows = len(manifest)
        self.undecodable_M, self.incomplete_M, has_target_M = (
            np.ones(rows, bool),
            np.zeros(rows, bool),
            np.zeros(rows, bool),
        )
        longest_M = np.zeros(rows)
        for of_set in places.values():
            self.undecodable_M &= (of_set.source_M == b"") & (of_set.status_M != UNKNOWN)
            self.incomplete_M |= ~of_set.ok_M
            has_target_M |= of_set.ok_M
            longest_M = np.maximum(longest_M, np.where(of_set.ok_M, of_set.seconds_M, 0.0))
        self.seconds_M = np.where(has_target_M, longest_M, np.nan_to_num(manifest.durations))
        self.ids_M = manifest.id_digests
        self.first_with_id_M = first_positions(self.ids_M)

    def missing_M(self, masked: bool) -> NDArray[np.bool_]:
        """Rows that cannot be a sample. `masked`: only those that no expert could decode, for they have no audio.

        A row of text alone needs no targets.
        """
        is_repeated_M = self.first_with_id_M != np.arange(len(self.manifest))
        has_none_M = self.undecodable_M if masked else self.incomplete_M
        return is_repeated_M | (has_none_M & self.manifest.with_audio)

    def reasons(self, positions: NDArray[np.int64]) -> Iterator[tuple[str, str]]:
        """(id, why it cannot be a sample) of some rows."""
        for position, u in zip(positions.tolist(), self.manifest.take(positions), strict=True):
            if self.first_with_id_M[position] != position:
                first, name = self.manifest[int(self.first_with_id_M[position])], self.manifest.row_name
                yield u.id, f"{name(u.row)} repeats the id of {name(first.row)}"
                continue
            name, of_set = next((n, p) for n, p in self.places.items() if not p.ok_M[position])
            if of_set.status_M[position] == UNKNOWN:
                yield u.id, f"{name} was not extracted"
                continue
            rows = self.sets[name].read_rows(of_set.units[int(of_set.unit_M[position])])
            yield u.id, f"{name} {next(row.error for row in rows if row.digest == u.digest)}"

    def estimated_bytes_M(self, recipe: Recipe) -> NDArray[np.float64]:
        """Of the sample that a row becomes."""
        nbytes: NDArray[Any] = 2.0 * MEMBER_BYTES + self.seconds_M * (
            FLAC_BYTES_PER_SECOND if recipe.audio != "none" else 0
        )
        if recipe.layout == "joint":
            for name, of_set in self.places.items():
                spec = self.sets[name].spec
                frame_bytes = spec.dim * np.dtype(spec.dtype).itemsize
                nbytes += np.where(of_set.ok_M, of_set.frames_M, 0) * frame_bytes + MEMBER_BYTES
        return nbytes


def first_positions(ids_M: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Of each row the first row that has its id."""
    order = np.argsort(ids_M, kind="stable")
    in_order = ids_M[order]
    is_first = np.append(True, in_order[1:] != in_order[:-1])[: len(order)]
    group_starts = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    first_M = np.empty(len(order), np.int64)
    first_M[order] = order[group_starts]
    return first_M
