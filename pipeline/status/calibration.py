"""The speed of an expert, measured on some clips of the manifest."""

import time
from collections.abc import Sequence

import numpy as np

from coat.extractors.expert import Expert
from coat.manifests.errors import RunError
from coat.pipeline.plan.units import PlannedRow, Units
from coat.pipeline.worker.config import Job
from coat.pipeline.worker.decoded_row import Heard
from coat.pipeline.worker.stage_clock import Clock
from coat.pipeline.worker.worker import Worker

MEASURED_S = 10.0  # a shorter measurement is repeated,
PASSES = 5  # ... so often at most


def spread(units: Units, clips: int) -> list[PlannedRow]:
    """So many rows over all lengths: the middle one of each of `clips` equal parts, in ascending length."""
    ascending = units.order[np.argsort(units.seconds[units.order], kind="stable")]
    n = min(clips, len(ascending))
    chosen = ascending[(2 * np.arange(n) + 1) * len(ascending) // (2 * n)]
    utterances = units.manifest.take(chosen)
    return [units.planned(int(row), u) for row, u in zip(chosen, utterances, strict=True)]


def cost_seconds(expert: Expert, seconds: float) -> float:
    """Of audio that the expert is given for a clip."""
    rate = expert.spec.sample_rate
    return expert.padded_samples(round(seconds * rate)) / rate


def calibrate(job: Job, rows: Sequence[PlannedRow]) -> tuple[float, float]:
    """Seconds until the expert is loaded and has heard a clip, and padded seconds per second after that.

    Through the worker's own decoding, batching and forward pass; nothing is stored. A short measurement is made
    again and the fastest counts: what slows one down is mostly not the expert. RunError where none is heard.
    """
    started = time.perf_counter()
    worker = Worker(job)
    warm = worker.in_model_thread(hear, worker, [rows[0]])  # the first pass compiles, allocates and finds its kernels
    startup = time.perf_counter() - started
    passes: list[float] = []
    heard: list[Heard] = []
    while not passes or (sum(passes) < MEASURED_S and len(passes) < PASSES):
        started = time.perf_counter()
        heard = worker.in_model_thread(hear, worker, rows)
        passes.append(time.perf_counter() - started)
    ok = [h.planned for h in heard if h.status == "ok"]
    if not ok:
        first = next(h.error for h in [*warm, *heard] if h.error)
        raise RunError(f"--calibrate: {job.expert} could hear none of {len(rows)} clips; the first: {first}")
    return startup, sum(cost_seconds(worker.expert, row.seconds) for row in ok) / min(passes)


def hear(worker: Worker, rows: Sequence[PlannedRow]) -> list[Heard]:
    clock = Clock()
    return [h for batch in worker.decoded(rows) for h in worker.hear(batch, clock)]
