"""`coat plan`: what an extract would do, how long it would take and what it would cost. Writes nothing.

Time is predicted in *padded* seconds, the audio that the expert is really given: an expert that hears 30 s
whatever a clip holds costs the same for each clip.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from coat.extractors.expert import Expert, Options
from coat.extractors.registry import create
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from coat.pipeline.plan.planning import UNIT_BYTES, make_plan
from coat.pipeline.status.calibration import calibrate, padded_seconds, rows_of_all_lengths
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.worker.config import WorkerConfig


@dataclass(frozen=True, kw_only=True)
class ForecastOptions:
    """How units are cut, where the speed is known from, how many workers share the work, and what an hour costs."""

    speed: float | None = None  # audio seconds per second of one worker
    calibrate: int = 0  # ... or measured on so many clips, here
    workers: int = 1
    gpus_per_worker: float = 1.0
    gpu_hour_price: float | None = None
    device: str = "cpu"  # of the calibration
    unit_bytes: int = UNIT_BYTES

    def __post_init__(self) -> None:
        if self.speed and self.calibrate:
            raise InputError("--speed and --calibrate: give one of them")
        if self.gpu_hour_price is not None and not (self.speed or self.calibrate):
            raise InputError("--gpu-hour-price needs to know the time: give --speed or --calibrate too")


@dataclass(frozen=True)
class Forecast:
    """What is left to do for one expert. `seconds` of wall time, without start-up; None where no rate is known."""

    expert: str
    fingerprint: str
    rows: int  # of the manifest
    covered: int  # of them, by committed units
    units: int
    hours: float  # of audio
    bytes: int  # of targets
    speed: float | None = None  # audio seconds per second of one worker
    startup_seconds: float | None = None  # of one worker, as measured: its weights
    seconds: float | None = None
    cost: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def forecast(
    manifest: Manifest, store: str, experts: Sequence[str], expert_options: Options, options: ForecastOptions
) -> list[Forecast]:
    """One forecast per expert. RunError where a calibration failed on all of its clips."""
    created = {name: create(name, expert_options) for name in dict.fromkeys(experts)}
    return [
        forecast_one(manifest, TargetStore(store), name, expert, expert_options, options)
        for name, expert in created.items()
    ]


def forecast_one(
    manifest: Manifest,
    store: TargetStore,
    name: str,
    expert: Expert,
    expert_options: Options,
    options: ForecastOptions,
) -> Forecast:
    spec = expert.spec
    covered = TargetSet(store.set_url(spec), spec).outcomes.digests
    plan = make_plan(manifest, spec, covered, unit_bytes=options.unit_bytes)
    left = plan.units.seconds[plan.units.order]  # of audio, by row
    startup = None
    one_worker_seconds = plan.seconds / options.speed if options.speed else None
    if options.calibrate and len(left):
        config = WorkerConfig(name, expert_options, "", spec, options.device, os.cpu_count() or 1)
        startup, rate = calibrate(config, rows_of_all_lengths(plan.units, options.calibrate))
        one_worker_seconds = sum(padded_seconds(expert, row_seconds) for row_seconds in left.tolist()) / rate
    elif options.calibrate:
        one_worker_seconds = 0.0
    seconds = cost = None
    if one_worker_seconds is not None:
        seconds = one_worker_seconds / max(1, min(options.workers, len(plan.units)))
        if options.gpu_hour_price is not None:
            cost = one_worker_seconds / 3600 * options.gpus_per_worker * options.gpu_hour_price
    return Forecast(
        expert=spec.expert,
        fingerprint=spec.fingerprint,
        rows=plan.rows,
        covered=plan.covered,
        units=len(plan.units),
        hours=plan.seconds / 3600,
        bytes=plan.bytes,
        speed=plan.seconds / one_worker_seconds if one_worker_seconds else options.speed,
        startup_seconds=startup,
        seconds=seconds,
        cost=cost,
    )


def total(forecasts: Sequence[Forecast]) -> dict[str, Any]:
    """Of experts that run one after the other, as `coat extract` runs them; None where one is not known."""

    def add(values: list[Any]) -> Any:
        return None if None in values else sum(values)

    summed = ("units", "hours", "bytes", "seconds", "cost")
    return {name: add([getattr(f, name) for f in forecasts]) for name in summed}
