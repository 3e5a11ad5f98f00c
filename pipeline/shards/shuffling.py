"""Whether the frames of a build are read block by block, or shuffled first through a scratch folder.

In a global shuffle a block of samples has rows of nearly as many units as it has samples. Read block by block, a sample
then costs one request an expert. So where that would be many, blocks are taken in groups whose frames fit the scratch
folder. Each unit is read once a group (`gathering/shuffle.py`), so that a sample costs about (units / samples of a
group) requests, however small its block is. S samples, B blocks of a group.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.manifests import storage
from coat.pipeline.cluster.ordered import RESULTS_AHEAD
from coat.pipeline.cluster.pool import WorkerPool
from coat.pipeline.gathering.frames import Source
from coat.pipeline.gathering.scratch import ScratchFolder
from coat.pipeline.gathering.shuffle import ShuffleJob, shuffle_units
from coat.pipeline.shards.plan import ShardPlan
from coat.pipeline.shards.recipe import Layout

FEW_REQUESTS = 0.05  # a sample and expert: not worth a shuffle. A unit that is touched is one request, at times two
MANY_REQUESTS = 0.1  # worth a word of advice
JOB_BYTES = 256 * 2**20  # of frames: in memory
RAY_JOB_BYTES = 2**30
MOST_REGIONS, RAY_REGIONS = 2**27, 2**18  # of a group: 8 bytes each; on Ray each is an object

Block = tuple[int, int]  # first sample and the one behind its last


@dataclass
class Group:
    """Blocks that follow each other; `frames`: of each job handles of the regions, by block. None: from the store."""

    blocks: Sequence[Block]
    frames: list[Sequence[Any]] = field(default_factory=list)

    def take_frames(self, block: int) -> list[Any]:
        """Of one block of the group, which lets them go."""
        taken = [regions[block] for regions in self.frames]
        for regions in self.frames:
            if isinstance(regions, list):  # Ray's: an object is freed when nobody holds its handle
                regions[block] = None
        return taken


@dataclass(frozen=True)
class Costs:
    """Requests of a build, and frames in bytes by block."""

    samples: int  # times experts
    direct: int
    bytes_B: NDArray[np.int64]


class FrameShuffle:
    """Groups of blocks, with their frames at hand."""

    def __init__(
        self,
        plan: ShardPlan,
        layout: Layout,
        pool: WorkerPool,
        workers: int,
        scratch: ScratchFolder,
        scratch_bytes: int | None = None,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        """`scratch_bytes`: None: two fifths of what is free there, or of Ray's object store."""
        self.plan, self.layout, self.pool, self.ahead = plan, layout, pool, max(1, RESULTS_AHEAD * workers)
        self.scratch, self.on_note = scratch, on_note
        self.scratch_bytes = pool.scratch_bytes(scratch.parent) if scratch_bytes is None else scratch_bytes
        self.job_bytes, self.most_regions = JOB_BYTES, MOST_REGIONS
        if not pool.shares_disk:
            self.job_bytes, self.most_regions = RAY_JOB_BYTES, RAY_REGIONS

    def groups(self, blocks: Sequence[Block]) -> Iterator[Group]:
        """In order. The frames of one are gone when the next is taken."""
        chosen = self.choose(blocks)
        if chosen is None:
            yield Group(blocks)
            return
        for of_group in chosen:
            yield Group(of_group, self.shuffle(of_group))
            self.scratch.clear()

    def choose(self, blocks: Sequence[Block]) -> list[Sequence[Block]] | None:
        """Groups to shuffle; None where blocks are to be read by themselves."""
        sets = self.plan.sets.values()
        if not blocks or self.layout != "joint" or all(storage.is_local(targets.url) for targets in sets):
            return None  # no frames are read here, or not by requests
        costs = self.costs(blocks)
        if costs.direct <= FEW_REQUESTS * costs.samples:
            return None
        groups = list(group_blocks(blocks, costs.bytes_B, self.most_bytes(costs.bytes_B)))
        shuffled = sum(self.units_touched([(of_group[0][0], of_group[-1][1])]) for of_group in groups)
        is_worth_it = int(costs.bytes_B.max()) <= self.scratch_bytes and 2 * shuffled <= costs.direct
        requests, total = (shuffled if is_worth_it else costs.direct), int(costs.bytes_B.sum())
        place = str(self.scratch.parent) if self.pool.shares_disk else "Ray's object store"
        if is_worth_it:
            note = f"frames are shuffled through {place}: {gigabytes(total)} in {len(groups)} parts"
        else:
            note = f"frames are read block by block: {place} has room for {gigabytes(self.scratch_bytes)}"
        note += f", {requests / costs.samples:.2g} requests a sample and expert"
        if requests > MANY_REQUESTS * costs.samples:
            wanted = total * min(1.0, requests / (len(groups) * MANY_REQUESTS * costs.samples))
            note += f"; fewer with more room (--scratch, --scratch-size; {gigabytes(wanted)} would do)"
        self.on_note(note)
        return groups if is_worth_it else None

    def most_bytes(self, bytes_B: NDArray[np.int64]) -> int:
        """Of one group: what there is room for, and no more than makes so many regions."""
        mean = max(1.0, float(bytes_B.mean()))
        return min(self.scratch_bytes, int((self.most_regions * self.job_bytes * mean) ** 0.5))

    def costs(self, blocks: Sequence[Block]) -> Costs:
        bytes_B = np.zeros(len(blocks), np.int64)
        first, stop = blocks[0][0], blocks[-1][1]
        starts = np.array([block[0] - first for block in blocks])
        for name, targets in self.plan.sets.items():
            frame_bytes = targets.spec.dim * np.dtype(targets.spec.dtype).itemsize
            bytes_B += frame_bytes * np.add.reduceat(self.plan.frames_of(name, first, stop), starts)
        return Costs((stop - first) * len(self.plan.sets), self.units_touched(blocks), bytes_B)

    def units_touched(self, runs: Sequence[Block]) -> int:
        """Summed over runs of samples, and over target sets."""
        total = 0
        for name in self.plan.sets:
            seen_U = np.zeros(len(self.plan.unit_names(name)), bool)
            for first, stop in runs:
                unit_S = self.plan.units_of(name, first, stop)
                seen_U[:] = False
                seen_U[unit_S[unit_S >= 0]] = True
                total += int(seen_U.sum())
        return total

    def shuffle(self, blocks: Sequence[Block]) -> list[Sequence[Any]]:
        """Handles of each job's regions, when all are there."""
        frames: list[Sequence[Any]] = []
        pending: deque[Any] = deque()
        for number, job in enumerate(self.jobs(blocks)):
            path = self.scratch.path / f"frames-{number:06d}" if self.pool.shares_disk else None
            parts = self.pool.submit_parts(shuffle_units, len(blocks), replace(job, path=path))
            frames.append(parts)
            pending.append(parts[0])
            if len(pending) >= self.ahead:
                self.pool.wait(pending.popleft())
        while pending:
            self.pool.wait(pending.popleft())
        return frames

    def jobs(self, blocks: Sequence[Block]) -> Iterator[ShuffleJob]:
        """Each of units of one set in their order, with about `job_bytes` of wanted frames.

        For tens of millions of samples: in memory are some 30 bytes each, of one set at a time.
        """
        first, stop = blocks[0][0], blocks[-1][1]
        starts = np.array([block[0] for block in blocks])
        for name, targets in self.plan.sets.items():
            frame_bytes = targets.spec.dim * np.dtype(targets.spec.dtype).itemsize
            unit_S = self.plan.units_of(name, first, stop)
            units = len(self.plan.unit_names(name))
            rows_U = np.bincount(unit_S + 1, minlength=units + 1)  # of each unit, behind those without one
            bytes_U = frame_bytes * np.bincount(unit_S + 1, self.plan.frames_of(name, first, stop), units + 1)
            order = np.argsort(unit_S, kind="stable").astype(np.int32 if stop - first < 2**31 else np.int64)
            ends_U, reached_U = np.cumsum(rows_U), np.cumsum(bytes_U)
            unit = 0  # jobs begin behind it
            while unit < units:
                last = int(np.searchsorted(reached_U, reached_U[unit] + self.job_bytes, side="right")) - 1
                last = min(max(last, unit + 1), units)
                chosen = order[ends_U[unit] : ends_U[last]].astype(np.int64)
                unit = last
                if len(chosen):
                    block_N = (np.searchsorted(starts, first + chosen, side="right") - 1).astype(np.int32)
                    yield self.job(name, first + chosen, unit_S[chosen], block_N, len(blocks))

    def job(
        self,
        name: str,
        positions_N: NDArray[np.int64],
        unit_N: NDArray[np.int32],
        block_N: NDArray[np.int32],
        blocks: int,
    ) -> ShuffleJob:
        first_N, frames_N = self.plan.spans_of(name, positions_N)
        # Several samples of a block may be of one row: it is put away once.
        by_block = np.lexsort((first_N, unit_N, block_N))
        spans = np.stack([block_N[by_block], unit_N[by_block], first_N[by_block]])
        is_new = np.ones(len(by_block), bool)
        is_new[1:] = (np.diff(spans) != 0).any(axis=0)
        kept = by_block[is_new]
        numbers, place_N = np.unique(unit_N[kept], return_inverse=True)
        targets, known = self.plan.sets[name], self.plan.unit_frames[name]
        names = self.plan.unit_names(name)
        units = tuple(names[int(number)] for number in numbers)
        source = Source.of(targets, units, known)
        return ShuffleJob(
            name, source, units, place_N.astype(np.int32), first_N[kept], frames_N[kept], block_N[kept], blocks, None
        )


def group_blocks(blocks: Sequence[Block], bytes_B: NDArray[np.int64], most: int) -> Iterator[Sequence[Block]]:
    """Of at most so many bytes, but at least one block."""
    start, total = 0, 0
    for block, nbytes in enumerate(bytes_B.tolist()):
        if block > start and total + nbytes > most:
            yield blocks[start:block]
            start, total = block, 0
        total += nbytes
    if start < len(blocks):
        yield blocks[start:]


def gigabytes(nbytes: float) -> str:
    return f"{nbytes / 1e9:.3g} GB"
