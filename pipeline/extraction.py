"""`coat extract`: plan what is missing, run it, and say what became of every row."""

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from coat.extractors.expert import Options
from coat.extractors.registry import create
from coat.manifests.errors import InputError
from coat.manifests.manifest import Manifest
from coat.manifests.spec import TargetSpec
from coat.pipeline.changes import sounds
from coat.pipeline.commit import clean_builds, write_spec
from coat.pipeline.plan import Plan, make_plan
from coat.pipeline.runners import Cluster, run_local, run_ray
from coat.pipeline.store import Row, TargetSet, TargetStore
from coat.pipeline.worker import Job, Report


class Listener(Protocol):
    """Who watches a run: the command line's progress bar, or nobody."""

    def planned(self, plan: Plan, covered: int) -> None: ...
    def reported(self, report: Report) -> None: ...
    def say(self, line: str) -> None: ...


class Silent:
    def planned(self, plan: Plan, covered: int) -> None: ...
    def reported(self, report: Report) -> None: ...
    def say(self, line: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Where:
    """What runs the units. `workers` 0: this process, no Ray; None: as many as the machine's devices ask for."""

    workers: int | None = None
    ray_address: str | None = None
    device: str = "auto"  # auto, cpu, cuda
    gpus_per_worker: float = 1.0
    cpus_per_worker: float | None = None


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
    startup_seconds: float = 0.0  # until the first unit began: weights, Ray
    forward_seconds: float = 0.0
    padding_share: float = 0.0  # of the audio that the expert was given
    halvings: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)  # every failed row: id, error

    @property
    def rtfx(self) -> float:
        """Seconds of audio per second of wall time after start-up."""
        busy = self.wall_seconds - self.startup_seconds
        return self.audio_seconds / busy if busy > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "rtfx": self.rtfx}


def extract(
    manifest: Manifest | str,
    store: str,
    experts: Sequence[str],
    options: Options | None = None,
    where: Where | None = None,
    retry_failed: bool = False,
    refresh: bool = False,
    listener: Listener | None = None,
) -> list[Summary]:
    """Run each expert over all rows that it has not heard yet; one after the other.

    Every expert's spec is made first, so that a wrong name, checkpoint or missing package stops the
    call (InputError) before any work. Interrupted or killed, the same call goes on where it was.
    `retry_failed` tries failed rows again; `refresh` decodes all audio and redoes what sounds different now.
    """
    options, where, listener = options or Options(), where or Where(), listener or Silent()
    check_one_checkpoint(options.checkpoint, experts)
    manifest = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    specs = {name: create(name, options).spec for name in dict.fromkeys(experts)}
    pool = choose(where)
    return [
        extract_one(manifest, TargetStore(store), name, spec, options, pool, (retry_failed, refresh), listener)
        for name, spec in specs.items()
    ]


def check_one_checkpoint(checkpoint: str | None, experts: Sequence[str]) -> None:
    if checkpoint and len(experts) > 1:
        raise InputError("--checkpoint goes with one --expert; run the experts one by one")


def extract_one(
    manifest: Manifest,
    store: TargetStore,
    expert: str,
    spec: TargetSpec,
    options: Options,
    pool: tuple[Cluster | None, str],
    redo: tuple[bool, bool],
    listener: Listener,
) -> Summary:
    started = time.perf_counter()
    set_url = store.set_url(spec)
    clean_builds(set_url)
    rows = TargetSet(set_url, spec).rows
    again = to_redo(manifest, rows, *redo)
    covered = rows.keys() - again.keys()
    plan = make_plan(manifest, spec, covered, again)
    listener.planned(plan, sum(r.digest in covered for r in plan.rows))

    summary = Summary(expert=spec.expert, fingerprint=spec.fingerprint, set_url=set_url, rows=len(plan.rows))
    if plan.rows:
        write_spec(set_url, spec)  # also where all is done: a spec.json that was lost comes back
    if plan.units:
        cluster, device = pool
        threads = max(1, int(cluster.cpus)) if cluster else os.cpu_count() or 1
        job = Job(expert, options, set_url, spec, device, threads)
        longest_first = plan.units[::-1]  # so that no long unit is left alone at the end
        reports = run_ray(longest_first, job, cluster, listener.say) if cluster else run_local(longest_first, job)
        count(summary, reports, started, listener)
        clean_builds(set_url)
    outcomes(summary, plan, TargetSet(set_url, spec))
    summary.wall_seconds = time.perf_counter() - started
    return summary


def to_redo(manifest: Manifest, rows: Mapping[str, Row], failed: bool, changed: bool) -> dict[str, str]:
    """Digests of rows that are tried once more, with the unit that holds what became of them."""
    found = {d: row.unit for d, row in rows.items() if failed and row.status == "failed"}
    if changed:
        heard = (u for u in manifest if u.digest in rows and rows[u.digest].source)
        found |= {u.digest: rows[u.digest].unit for u, now, _ in sounds(heard) if now != rows[u.digest].source}
    return found


def count(summary: Summary, reports: Any, started: float, listener: Listener) -> None:
    padded = 0.0
    for report in reports:
        if not summary.units_done:
            summary.startup_seconds = max(0.0, time.perf_counter() - started - report.unit_seconds)
        summary.units_done += 1
        summary.audio_seconds += report.audio_seconds
        summary.bytes += report.bytes
        summary.frames += report.frames
        summary.forward_seconds += report.forward_seconds
        summary.halvings += report.halvings
        padded += report.padded_seconds
        listener.reported(report)
    if padded:
        summary.padding_share = max(0.0, 1 - summary.audio_seconds / padded)


def outcomes(summary: Summary, plan: Plan, targets: TargetSet) -> None:
    """Count the manifest's rows as they now stand in the store, whichever run put them there."""
    reasons: Counter[str] = Counter()
    for planned in plan.rows:
        row = targets.rows[planned.digest]
        if row.status == "ok":
            summary.ok += 1
            continue
        reasons[row.reason or row.status] += 1
        if row.status == "failed":
            summary.failed += 1
            summary.failures.append({"id": row.id, "error": row.error or ""})
        else:
            summary.skipped += 1
    summary.reasons = dict(reasons.most_common())


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
    cluster = Cluster(workers=workers, address=where.ray_address, cpus=cpus_per_worker, gpus=gpus_per_worker)
    return cluster, "cuda:0" if use_gpu else "cpu"
