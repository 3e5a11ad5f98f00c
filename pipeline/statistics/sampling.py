"""A sample of the frames of a large target set, which stands for all of them.

Frames of one utterance are alike, so what counts is how many utterances a sample has some of. All frames, in the order
of the units' names, are cut into PLACES equal parts, and two chunks are taken at random out of each part. A frame is as
likely to be taken as any other, and no part of the corpus is left out. Which chunks they are follows from the number of
frames of each unit alone, so a set always gives the same sample. `benchmarks/stats_sampling.py` shows the error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.pipeline.statistics.saved_sums import SumsJob
from coat.pipeline.store.frames_writer import CHUNK_FRAMES
from coat.pipeline.store.target_set import TargetSet

PLACES = 4096
PLACE_CHUNKS = 2  # some 20 s at 50 frames a second: two or three utterances
SAMPLE_FRAMES = PLACES * PLACE_CHUNKS * CHUNK_FRAMES  # 4,194,304: at most, of one sample
WHOLE_FRAMES = 2 * SAMPLE_FRAMES  # up to so many frames are read whole: a sample would not be much less
SEED = 0
JOBS = 64  # however many workers there are: their sums are added in this order


@dataclass(frozen=True)
class FrameSample:
    """Numbers of chunks by unit, ascending."""

    chunks: Mapping[str, Sequence[int]]
    unit_frames: Mapping[str, int]  # of all units

    @cached_property
    def frames(self) -> int:
        return sum(count for unit in self.chunks for _, count in self.spans(unit))

    @cached_property
    def of_frames(self) -> int:
        return sum(self.unit_frames.values())

    def spans(self, unit: str) -> list[tuple[int, int]]:
        """First frame and number of frames of each run of chunks."""
        runs: list[tuple[int, int]] = []
        for chunk in self.chunks[unit]:
            if runs and runs[-1][1] == chunk:
                runs[-1] = runs[-1][0], chunk + 1
            else:
                runs.append((chunk, chunk + 1))
        end = self.unit_frames[unit]
        return [(a * CHUNK_FRAMES, min(b * CHUNK_FRAMES, end) - a * CHUNK_FRAMES) for a, b in runs]

    def contains(self, unit: str, first: int, frames: int) -> NDArray[np.bool_]:
        """Of frames that follow each other, whether each is in the sample."""
        return np.isin(np.arange(first, first + frames) // CHUNK_FRAMES, list(self.chunks.get(unit, ())))

    def to_dict(self) -> dict[str, Any]:
        return {"frames": self.frames, "of_frames": self.of_frames, "units": len(self.chunks), "seed": SEED}


def choose_sample(unit_frames: Mapping[str, int], places: int = PLACES, seed: int = SEED) -> FrameSample:
    """Of units with frames."""
    names = sorted(unit for unit, frames in unit_frames.items() if frames)
    ends = np.cumsum([unit_frames[unit] for unit in names])
    total = int(ends[-1])
    places_P = ((np.arange(places) + np.random.default_rng(seed).random(places)) * (total / places)).astype(np.int64)
    unit_P = np.searchsorted(ends, np.minimum(places_P, total - 1), side="right")
    chosen: dict[str, set[int]] = {}
    for unit, place in zip(unit_P.tolist(), places_P.tolist(), strict=True):
        name = names[unit]
        held = -(-unit_frames[name] // CHUNK_FRAMES)
        inside = place - (int(ends[unit]) - unit_frames[name])
        first = max(0, min(inside // CHUNK_FRAMES, held - PLACE_CHUNKS))
        chosen.setdefault(name, set()).update(range(first, min(first + PLACE_CHUNKS, held)))
    return FrameSample({name: sorted(chunks) for name, chunks in chosen.items()}, unit_frames)


def sample_jobs(targets: TargetSet, sample: FrameSample, covariance: bool) -> list[SumsJob]:
    """Sums of the sample, by workers; the same jobs for any number of these."""
    names = list(sample.chunks)
    jobs: list[SumsJob] = []
    for group in np.array_split(np.arange(len(names)), min(JOBS, len(names))):
        job = SumsJob.of(targets, [names[i] for i in group], covariance, None)
        jobs.append(replace(job, spans=tuple(tuple(sample.spans(names[i])) for i in group)))
    return jobs
