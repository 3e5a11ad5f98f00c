"""`coat extract`: plan what is missing, run it, and say what became of every row."""

import os
import random
import time
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coat.extractors.expert import Options
from coat.extractors.registry import create
from coat.manifests.digests import to_hex
from coat.manifests.errors import InputError, RunError
from coat.manifests.manifest import Manifest
from coat.manifests.spec import TargetSpec
from coat.pipeline.changes import sounds
from coat.pipeline.cluster import Cluster, connect, disconnect
from coat.pipeline.commit import clean_builds, write_spec
from coat.pipeline.lease import Lease
from coat.pipeline.metrics import Metrics
from coat.pipeline.plan import UNIT_BYTES, Plan, make_plan
from coat.pipeline.queue import Queue
from coat.pipeline.rows import FAILED, Rows
from coat.pipeline.run_log import RunLog
from coat.pipeline.runners import run_local, run_ray
from coat.pipeline.store import TargetSet, TargetStore
from coat.pipeline.worker import Job, Report

REFUSED = (OSError, RunError, InputError)  # what a full or removed store may raise
DECODED_ROWS = 4096  # asked for at a time when all audio is compared


class Listener(Protocol):
    """Who watches a run: the command line's progress bar, or nobody."""

    def planned(self, plan: Plan, covered: int) -> None: ...
    def reported(self, report: Report) -> None: ...
    def say(self, line: str) -> None: ...


class Silent:
    def planned(self, plan: Plan, covered: int) -> None: ...
    def reported(self, report: Report) -> None: ...
    def say(self, line: str) -> None: ...


class Several:
    """Tells each."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def planned(self, plan: Plan, covered: int) -> None:
        for listener in self.listeners:
            listener.planned(plan, covered)

    def reported(self, report: Report) -> None:
        for listener in self.listeners:
            listener.reported(report)

    def say(self, line: str) -> None:
        for listener in self.listeners:
            listener.say(line)


@dataclass(frozen=True, kw_only=True)
class Where:
    """What runs the units. `workers` 0: this process, no Ray; None: as many as the machine's devices ask for."""

    workers: int | None = None
    ray_address: str | None = None
    device: str = "auto"  # auto, cpu, cuda
    gpus_per_worker: float = 1.0
    cpus_per_worker: float | None = None
    max_workers: int | None = None  # grow up to so many as the cluster grows
    unit_deadline: float | None = None  # seconds; None: from the speed of the units before


@dataclass(frozen=True, kw_only=True)
class What:
    """Which rows, and how they are cut."""

    retry_failed: bool = False  # try failed rows again
    refresh: bool = False  # decode all audio, and redo what sounds different now
    unit_bytes: int = UNIT_BYTES  # of targets in a unit, at most
    shuffle: bool = False  # units in any order, not longest first
    only: frozenset[str] | None = None  # ids
    limit: int | None = None  # the first so many rows of the manifest, or of those ids


@dataclass
class Summary:
    """One expert's run, and the state of the whole manifest after it. Counts are rows."""

    expert: str
    fingerprint: str
    set_url: str
    rows: int
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    units_done: int = 0  # by this run
    audio_seconds: float = 0.0  # extracted by this run
    bytes: int = 0  # written by this run
    frames: int = 0
    wall_seconds: float = 0.0
    startup_seconds: float = 0.0  # until the first unit was begun: weights, Ray
    busy_seconds: float = 0.0  # from then until the last report
    forward_seconds: float = 0.0
    padding_share: float = 0.0  # of the audio that the expert was given
    decode_seconds: float = 0.0  # of all decoding threads together
    wait_seconds: float = 0.0  # of experts, for audio
    write_seconds: float = 0.0
    halvings: int = 0
    worker_deaths: int = 0  # with units in hand
    units_elsewhere: int = 0  # that another run committed meanwhile
    reasons: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)  # every failed row: id, error

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of work."""
        return self.audio_seconds / self.busy_seconds if self.busy_seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rtfx": self.rtfx}


def extract(
    manifest: Manifest | str,
    store: str,
    experts: Sequence[str],
    options: Options | None = None,
    where: Where | None = None,
    what: What | None = None,
    listener: Listener | None = None,
) -> list[Summary]:
    """Run each expert over all rows that it has not heard yet; one after the other.

    Every expert's spec is made first, so that a wrong name, checkpoint or missing package stops the
    call (InputError) before any work. Interrupted or killed, the same call goes on where it was.
    """
    options, where, what, listener = options or Options(), where or Where(), what or What(), listener or Silent()
    check_one_checkpoint(options.checkpoint, experts)
    manifest = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest, spans=True)
    specs = {name: create(name, options).spec for name in dict.fromkeys(experts)}
    pool = choose(where)
    run = partial(extract_one, manifest, TargetStore(store), where=where, what=what, pool=pool, listener=listener)
    return [run(name, spec, options) for name, spec in specs.items()]


def check_one_checkpoint(checkpoint: str | None, experts: Sequence[str]) -> None:
    if checkpoint and len(experts) > 1:
        raise InputError("--checkpoint goes with one --expert; run the experts one by one")


def extract_one(
    manifest: Manifest,
    store: TargetStore,
    expert: str,
    spec: TargetSpec,
    options: Options,
    *,
    where: Where,
    what: What,
    pool: tuple[Cluster | None, str],
    listener: Listener,
) -> Summary:
    started = time.perf_counter()
    set_url = store.set_url(spec)
    clean_builds(set_url)
    rows = TargetSet(set_url, spec).rows
    again = to_redo(manifest, rows, what.retry_failed, what.refresh)
    plan = make_plan(manifest, spec, rows.digests, again, what.unit_bytes, only=what.only, limit=what.limit)
    summary = Summary(expert=spec.expert, fingerprint=spec.fingerprint, set_url=set_url, rows=plan.rows)
    if plan.rows:
        write_spec(set_url, spec)  # also where all is done: a spec.json that was lost comes back
    if plan.units:
        run_units(plan, summary, expert, options, where, what, pool, listener)
        clean_builds(set_url)
        del rows  # or both would be held while the new ones are read
        rows = TargetSet(set_url, spec).rows
    else:
        listener.planned(plan, plan.covered)
    outcomes(summary, plan, rows)
    summary.wall_seconds = time.perf_counter() - started
    return summary


def run_units(
    plan: Plan,
    summary: Summary,
    expert: str,
    options: Options,
    where: Where,
    what: What,
    pool: tuple[Cluster | None, str],
    listener: Listener,
) -> None:
    """Run what a plan has left, telling other runs, the log and the metrics of it."""
    started = time.perf_counter()
    cluster, device = pool
    lease = Lease(summary.set_url)
    log = RunLog(summary.set_url, lease.run)
    if lease.left_by_dead and cluster is None:
        cluster = after_a_death(lease.left_by_dead, where, listener)
    started_ray = connect(cluster) if cluster else False
    watchers = Several(listener, log, *((Metrics(),) if cluster else ()))
    job = Job(expert, options, summary.set_url, plan.spec, device, threads_of(cluster))
    queue = Queue(plan.units, order(plan, what.shuffle), job, lease, watchers.say, where.unit_deadline)
    try:
        log.started(expert=expert, fingerprint=plan.spec.fingerprint, device=device, where=asdict(where))
        watchers.planned(plan, plan.covered)
        reports = run_ray(queue, job, cluster) if cluster else run_local(queue, job)
        count(summary, reports, started, watchers)
        summary.worker_deaths, summary.units_elsewhere = queue.deaths, queue.elsewhere
        log.write("finished", summary=summary.to_dict())
    except BaseException as e:
        with suppress(*REFUSED):  # the error itself matters more than its line in the log
            log.write("stopped", why=f"{type(e).__name__}: {e}")
        raise
    finally:
        with suppress(*REFUSED):
            log.flush()
        with suppress(*REFUSED):
            lease.release()
        if started_ray:
            disconnect()


def after_a_death(units: Set[str], where: Where, listener: Listener) -> Cluster | None:
    """A run that died may have died of its rows: in this process the next one would, too."""
    listener.say(f"an earlier run died with {len(units)} units in hand: {', '.join(sorted(units))}")
    if where.workers == 0:
        listener.say("if it dies again, use --workers 1: a worker that dies leaves the run, and the row is found")
        return None
    listener.say("so units run in a worker of their own this time: if a row kills it, the row is found")
    return Cluster(workers=1, cpus=float(os.cpu_count() or 1))


def threads_of(cluster: Cluster | None) -> int:
    return max(1, int(cluster.cpus)) if cluster else os.cpu_count() or 1


def order(plan: Plan, shuffle: bool) -> Sequence[int]:
    """Longest rows first, so that no long unit is left alone at the end; or any, for a steadier estimate."""
    numbers = range(len(plan.units))
    return random.sample(numbers, len(numbers)) if shuffle else numbers[::-1]


def to_redo(manifest: Manifest, rows: Rows, failed: bool, changed: bool) -> dict[str, str]:
    """Digests of rows that are tried once more, with the unit that holds what became of them."""
    positions = np.flatnonzero(rows.status == FAILED) if failed else np.empty(0, np.int64)
    if changed:
        positions = np.union1d(positions, changed_rows(manifest, rows))
    units = (rows.units[u] for u in rows.unit[positions])
    return dict(zip(to_hex(rows.digests[positions]), units, strict=True))


def changed_rows(manifest: Manifest, rows: Rows) -> NDArray[np.int64]:
    """Positions of rows whose audio sounds different now; it is all decoded."""
    positions = rows.find(manifest.digests)
    found: list[int] = []
    for start in range(0, len(manifest), DECODED_ROWS):
        known = start + np.flatnonzero(positions[start : start + DECODED_ROWS] >= 0)
        before = rows.column("source").take(pa.array(positions[known])).to_pylist()
        now = sounds(manifest.take(known))
        found += [p for p, b, (_, n, _) in zip(positions[known].tolist(), before, now, strict=True) if b and b != n]
    return np.array(found, np.int64)


def count(summary: Summary, reports: Iterable[Report], started: float, listener: Listener) -> None:
    padded, begun, ended = 0.0, float("inf"), 0.0  # seconds since `started`
    for report in reports:
        ended = time.perf_counter() - started
        begun = min(begun, max(0.0, ended - report.unit_seconds))
        summary.units_done += 1
        summary.audio_seconds += report.audio_seconds
        summary.bytes += report.bytes
        summary.frames += report.frames
        summary.decode_seconds += report.decode_seconds
        summary.wait_seconds += report.wait_seconds
        summary.forward_seconds += report.forward_seconds
        summary.write_seconds += report.write_seconds
        summary.halvings += report.halvings
        padded += report.padded_seconds
        listener.reported(report)
    if summary.units_done:
        summary.startup_seconds, summary.busy_seconds = begun, ended - begun
    if padded:
        summary.padding_share = max(0.0, 1 - summary.audio_seconds / padded)


def outcomes(summary: Summary, plan: Plan, rows: Rows) -> None:
    """Count the manifest's rows as they now stand in the store, whichever run put them there."""
    positions = rows.find(plan.digests)
    if gone := int((positions < 0).sum()):
        raise RunError(f"{summary.set_url}: {gone} rows are in no unit; did something else change the store? Run again")
    counts = rows.count(positions)
    summary.ok, summary.failed, summary.skipped = counts.ok, counts.failed, counts.skipped
    summary.reasons = counts.reasons
    summary.failures = [{"id": identity, "error": error} for identity, error in counts.failures]


def choose(where: Where) -> tuple[Cluster | None, str]:
    """The pool and the device of a worker: a worker per GPU share, else per CPU share, else this process."""
    import torch

    if where.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {where.device}: expected auto, cpu or cuda")
    gpus = torch.cuda.device_count() if where.device in ("auto", "cuda") else 0
    if where.device == "cuda" and not gpus and not where.ray_address:
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu, or --ray-address of a cluster")
    use_gpu = gpus > 0 or (where.device == "cuda")
    cpus = os.cpu_count() or 1
    workers = where.workers
    if workers is None:
        workers = round(gpus / where.gpus_per_worker) if use_gpu and gpus else cpus // 4
        workers = 0 if workers <= 1 and not where.ray_address else max(1, workers)
    if workers == 0 and not where.ray_address:
        return None, "cuda:0" if use_gpu else "cpu"
    workers = max(1, workers)
    cpus_per_worker = where.cpus_per_worker or (1.0 if where.ray_address else max(1.0, cpus // workers))
    gpus_per_worker = where.gpus_per_worker if use_gpu else 0.0
    cluster = Cluster(
        workers=workers,
        max_workers=where.max_workers,
        address=where.ray_address,
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
    )
    return cluster, "cuda:0" if use_gpu else "cpu"
