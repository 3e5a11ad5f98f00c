"""`coat extract`: plan what is missing, run it, and say what became of every row."""

import os
import random
import time
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial

from coat.extractors.expert import Options
from coat.extractors.registry import create, portable_name
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError, RunError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.cluster.ray_connection import connect, disconnect
from coat.pipeline.cluster.resources import Cluster, Where, choose, threads_of
from coat.pipeline.extraction.lease import Lease
from coat.pipeline.extraction.listeners import Listener, Several, Silent
from coat.pipeline.extraction.local_runner import run_local
from coat.pipeline.extraction.metrics import Metrics
from coat.pipeline.extraction.ray_runner import run_ray
from coat.pipeline.extraction.run_log import RunLog
from coat.pipeline.extraction.summary import Summary, count, outcomes
from coat.pipeline.extraction.unit_queue import Queue
from coat.pipeline.plan.planning import UNIT_BYTES, Plan, make_plan
from coat.pipeline.plan.redo import to_redo
from coat.pipeline.store.builds import remove_abandoned_builds
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import write_spec
from coat.pipeline.worker.config import Job

REFUSED = (OSError, RunError, InputError)  # what a full or removed store may raise


@dataclass(frozen=True, kw_only=True)
class What:
    """Which rows, and how they are cut."""

    retry_failed: bool = False  # try failed rows again
    refresh: bool = False  # decode all audio, and redo what sounds different now
    unit_bytes: int = UNIT_BYTES  # of targets in a unit, at most
    shuffle: bool = False  # units in any order, not longest first
    only: frozenset[str] | None = None  # ids
    limit: int | None = None  # the first so many rows of the manifest, or of those ids


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
    specs = {name: create(name, options).spec for name in dict.fromkeys(map(portable_name, experts))}
    run = partial(Extraction, manifest, TargetStore(store), options, where, what, choose(where), listener)
    return [run(name, spec).run() for name, spec in specs.items()]


def check_one_checkpoint(checkpoint: str | None, experts: Sequence[str]) -> None:
    if checkpoint and len(experts) > 1:
        raise InputError("--checkpoint goes with one --expert; run the experts one by one")


@dataclass(frozen=True)
class Extraction:
    """One expert over one manifest."""

    manifest: Manifest
    store: TargetStore
    options: Options
    where: Where
    what: What
    pool: tuple[Cluster | None, str]  # and the device of a worker
    listener: Listener
    expert: str  # as the registry finds it
    spec: TargetSpec

    def run(self) -> Summary:
        started, what = time.perf_counter(), self.what
        set_url = self.store.set_url(self.spec)
        remove_abandoned_builds(set_url)
        targets = TargetSet(set_url, self.spec)
        again = to_redo(self.manifest, targets, what.retry_failed, what.refresh)
        covered = targets.outcomes.digests
        plan = make_plan(self.manifest, self.spec, covered, again, what.unit_bytes, only=what.only, limit=what.limit)
        summary = Summary(self.spec.expert, self.spec.fingerprint, set_url, plan.rows)
        if plan.rows:
            write_spec(set_url, self.spec)  # also where all is done: a spec.json that was lost comes back
        if plan.units:
            self.run_units(plan, summary)
            remove_abandoned_builds(set_url)
            targets = TargetSet(set_url, self.spec)
        else:
            self.listener.planned(plan, plan.covered)
        outcomes(summary, plan, targets.outcomes)
        summary.wall_seconds = time.perf_counter() - started
        return summary

    def run_units(self, plan: Plan, summary: Summary) -> None:
        """Run what a plan has left, telling other runs, the log and the metrics of it."""
        started = time.perf_counter()
        cluster, device = self.pool
        lease = Lease(summary.set_url)
        log = RunLog(summary.set_url, lease.run)
        if lease.left_by_dead and cluster is None:
            cluster = after_a_death(lease.left_by_dead, self.where, self.listener)
        started_ray = connect(cluster) if cluster else False
        watchers = Several(self.listener, log, *((Metrics(),) if cluster else ()))
        job = Job(self.expert, self.options, summary.set_url, self.spec, device, threads_of(cluster))
        queue = Queue(plan.units, order(plan, self.what.shuffle), job, lease, watchers.say, self.where.unit_deadline)
        about = {"expert": self.expert, "fingerprint": self.spec.fingerprint, "device": device}
        try:
            log.started(**about, where=asdict(self.where))
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


def order(plan: Plan, shuffle: bool) -> Sequence[int]:
    """Longest rows first, so that no long unit is left alone at the end; or any, for a steadier estimate."""
    numbers = range(len(plan.units))
    return random.sample(numbers, len(numbers)) if shuffle else numbers[::-1]
