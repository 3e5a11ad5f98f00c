"""The speed of an expert, measured on some clips of the manifest."""

import time
from collections.abc import Sequence

import numpy as np

from coat.extractors.expert import Expert
from coat.manifests.errors import RunError
from coat.pipeline.decoding.decoded_row import DecodedRow
from coat.pipeline.plan.units import PlannedRow, Units
from coat.pipeline.worker.batches import cut_batches
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.stage_clock import StageClock
from coat.pipeline.worker.worker import Worker

MIN_MEASURED_S = 10.0  # a shorter measurement is repeated,
MAX_PASSES = 5  # ... so often at most


def rows_of_all_lengths(units: Units, clips: int) -> list[PlannedRow]:
    """So many rows over all lengths: the middle one of each of `clips` equal parts, in ascending length."""
    ascending = units.order[np.argsort(units.seconds[units.order], kind="stable")]
    n = min(clips, len(ascending))
    chosen = ascending[(2 * np.arange(n) + 1) * len(ascending) // (2 * n)]
    utterances = units.manifest.take(chosen)
    return [units.planned(int(row), u) for row, u in zip(chosen, utterances, strict=True)]


def padded_seconds(expert: Expert, seconds: float) -> float:
    """Of audio that the expert is given for a clip."""
    rate = expert.spec.sample_rate
    return expert.padded_samples(round(seconds * rate)) / rate


def calibrate(config: WorkerConfig, rows: Sequence[PlannedRow]) -> tuple[float, float]:
    """Seconds until the expert is loaded and has run on a clip, and padded seconds per second after that.

    Through the worker's own decoding, batching and forward pass; nothing is stored. A short measurement is made
    again and the fastest counts: what slows one down is mostly not the expert. RunError where it fails on all.
    """
    started = time.perf_counter()
    worker = Worker(config)
    # The first pass compiles, allocates and finds its kernels.
    warm_up = worker.model.in_thread(run_rows, worker, [rows[0]])
    startup = time.perf_counter() - started
    passes: list[float] = []
    extracted: list[DecodedRow] = []
    while not passes or (sum(passes) < MIN_MEASURED_S and len(passes) < MAX_PASSES):
        started = time.perf_counter()
        extracted = worker.model.in_thread(run_rows, worker, rows)
        passes.append(time.perf_counter() - started)
    ok = [row.planned for row in extracted if row.status == "ok"]
    if not ok:
        first = next(row.error for row in [*warm_up, *extracted] if row.error)
        raise RunError(f"--calibrate: {config.expert} could hear none of {len(rows)} clips; the first: {first}")
    return startup, sum(padded_seconds(worker.expert, row.seconds) for row in ok) / min(passes)


def run_rows(worker: Worker, rows: Sequence[PlannedRow]) -> list[DecodedRow]:
    clock, evidence = StageClock(), worker.evidence()
    batches = worker.decoded_batches(list(cut_batches(rows, worker.expert)), evidence)
    return [row for batch in batches for row in worker.model.run_batch(batch, clock, evidence)]
