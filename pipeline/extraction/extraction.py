"""`coat extract`: plan what is missing, run it, and say what became of every row."""

import os
import random
import time
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from coat.extractors.expert import Options
from coat.extractors.registry import create, portable_name
from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError, RunError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.cluster.ray_connection import connect, disconnect, worker_environment
from coat.pipeline.cluster.resources import Cluster, Resources, choose_cluster, threads_per_worker
from coat.pipeline.extraction.index_writer import IndexWriter
from coat.pipeline.extraction.lease import Lease
from coat.pipeline.extraction.listeners import Committed, Listener, Listeners, NullListener
from coat.pipeline.extraction.local_runner import run_local
from coat.pipeline.extraction.metrics import Metrics
from coat.pipeline.extraction.ray_runner import run_once_on_ray, run_ray
from coat.pipeline.extraction.run_log import RunLog
from coat.pipeline.extraction.summary import Summary, add_outcomes, add_reports
from coat.pipeline.extraction.unit_queue import UnitQueue
from coat.pipeline.plan.planning import UNIT_BYTES, ExtractionPlan, make_plan
from coat.pipeline.plan.redo import rows_to_redo
from coat.pipeline.store.builds import remove_abandoned_builds
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import write_spec
from coat.pipeline.worker.config import WorkerConfig

STORE_ERRORS = (OSError, RunError, InputError)  # what a full or removed store may raise


@dataclass(frozen=True, kw_only=True)
class RowSelection:
    """Which rows to extract, and how they are cut into units."""

    retry_failed: bool = False  # try failed rows again
    refresh: bool = False  # decode all audio, and redo what sounds different now
    unit_bytes: int = UNIT_BYTES  # of targets in a unit, at most
    shuffle: bool = False  # units in any order, not longest first
    only: frozenset[str] | None = None  # ids
    accept_missing: bool = False  # files that are not there fail their rows, whatever else is not there
    limit: int | None = None  # the first so many rows of the manifest, or of those ids


def extract(
    manifest: Manifest | str,
    store: str,
    experts: Sequence[str],
    options: Options | None = None,
    resources: Resources | None = None,
    selection: RowSelection | None = None,
    listener: Listener | None = None,
) -> list[Summary]:
    """Run each expert over all rows that have no outcome of it yet; one expert after the other.

    Every expert's spec is made first, so that a wrong name, checkpoint or missing package stops the
    call (InputError) before any work. Interrupted or killed, the same call goes on where it was.
    """
    options, resources = options or Options(), resources or Resources()
    selection, listener = selection or RowSelection(), listener or NullListener()
    check_one_checkpoint(options.checkpoint, experts)
    manifest = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest, spans=True, on_disk=True)
    specs = {name: create(name, options).spec for name in dict.fromkeys(map(portable_name, experts))}
    cluster, device = choose_cluster(resources)
    target_store = TargetStore(store)
    return [
        Extraction(manifest, target_store, options, resources, selection, cluster, device, listener, name, spec).run()
        for name, spec in specs.items()
    ]


def check_one_checkpoint(checkpoint: str | None, experts: Sequence[str]) -> None:
    if checkpoint and len(experts) > 1:
        raise InputError("--checkpoint goes with one --expert; run the experts one by one")


@dataclass(frozen=True)
class Extraction:
    """One expert over one manifest."""

    manifest: Manifest
    store: TargetStore
    options: Options
    resources: Resources
    selection: RowSelection
    cluster: Cluster | None  # None: in this process
    device: str  # of a worker
    listener: Listener
    expert: str  # as the registry finds it
    spec: TargetSpec

    def run(self) -> Summary:
        """The lease is there before the plan is made: what another run commits meanwhile, it has told us of."""
        started = time.perf_counter()
        set_url = self.store.set_url(self.spec)
        remove_abandoned_builds(set_url)
        lease = Lease(set_url)
        cannot_begin = self.begin(lease)
        try:
            targets = TargetSet(set_url, self.spec)
            plan = self.make_plan(targets)
            outcomes = targets.outcomes
            summary = Summary(self.spec.expert, self.spec.fingerprint, set_url, plan.rows)
            if plan.rows:
                write_spec(set_url, self.spec)  # also where all is done: a spec.json that was lost comes back
            if plan.units:
                if cannot_begin:
                    raise cannot_begin
                if not lease.beats:  # a new store
                    lease.begin()
                committed = self.run_units(plan, summary, targets, lease)
                remove_abandoned_builds(set_url)
                if lease.others_seen:  # they committed, too
                    targets = targets.refreshed()
                outcomes = targets.with_units(committed)[0]
            else:
                self.listener.planned(plan, plan.covered)
        finally:
            with suppress(*STORE_ERRORS):
                lease.release()
        add_outcomes(summary, plan, outcomes)
        summary.wall_seconds = time.perf_counter() - started
        return summary

    def begin(self, lease: Lease) -> Exception | None:
        """An error counts only where something is left to do: a finished store may be on a disk that is read alone."""
        try:
            if storage.exists(lease.spec):
                lease.begin()
        except STORE_ERRORS as e:
            return e
        return None

    def make_plan(self, targets: TargetSet) -> ExtractionPlan:
        selection = self.selection
        redo = rows_to_redo(self.manifest, targets, selection.retry_failed, selection.refresh)
        return make_plan(
            self.manifest,
            self.spec,
            targets.outcomes.digests,
            redo,
            selection.unit_bytes,
            only=selection.only,
            limit=selection.limit,
            attempts={unit: targets.done[unit]["attempt"] for unit in set(redo.values())},
        )

    def run_units(self, plan: ExtractionPlan, summary: Summary, targets: TargetSet, lease: Lease) -> list[str]:
        """Run what a plan has left, telling other runs, the log and the metrics of it; gives the units committed."""
        started = time.perf_counter()
        cluster = self.cluster
        log = RunLog(summary.set_url, lease.run)
        if lease.left_by_dead and cluster is None:
            cluster = cluster_after_crash(lease.left_by_dead, self.resources, self.listener)
        facts = {"expert": self.expert, "fingerprint": self.spec.fingerprint, "device": self.device}
        index, committed, finished = IndexWriter(targets), Committed(), False
        started_ray = connect(cluster) if cluster else False
        try:
            index.add(targets.not_indexed)
            listeners = Listeners(self.listener, log, index, committed, *((Metrics(),) if cluster else ()))
            log.started(**facts, where=asdict(self.resources))
            if cluster and (line := worker_environment()):
                listeners.say(line)
            config = self.worker_config(summary.set_url, cluster, listeners)
            order = unit_order(plan, self.selection.shuffle)
            queue = UnitQueue(plan.units, order, config, lease, listeners.say, self.resources.unit_deadline)
            listeners.planned(plan, plan.covered)
            reports = run_ray(queue, config, cluster) if cluster else run_local(queue, config)
            add_reports(summary, reports, started, listeners)
            summary.worker_deaths, summary.units_elsewhere = queue.worker_deaths, queue.committed_elsewhere
            summary.put_aside = queue.put_aside
            log.write("finished", summary=summary.to_dict())
            finished = True
        except BaseException as e:
            with suppress(*STORE_ERRORS):  # the error itself matters more than its line in the log
                log.write("stopped", why=f"{type(e).__name__}: {e}")
            raise
        finally:
            with suppress(*STORE_ERRORS):
                log.flush()
            if line := index.close(finished):
                self.listener.say(line)
            if started_ray:
                disconnect()
        return committed.units

    def worker_config(self, set_url: str, cluster: Cluster | None, listener: Listener) -> WorkerConfig:
        config = WorkerConfig(
            expert=self.expert,
            options=self.options,
            set_url=set_url,
            spec=self.spec,
            device=self.device,
            threads=threads_per_worker(cluster),
            decode_threads=self.resources.decode_threads,
            accept_missing=self.selection.accept_missing,
            patience_s=self.resources.patience_s,
        )
        return replace(config, batch_seconds=self.batch_seconds(config, cluster, listener))

    def batch_seconds(self, config: WorkerConfig, cluster: Cluster | None, listener: Listener) -> float | None:
        """What the user said, or what was measured here or by an earlier run; None: the expert's own."""
        if self.resources.batch_seconds != "auto":
            return self.resources.batch_seconds
        from coat.pipeline.worker.batch_size import measure_batch_size, record_batch_size, recorded_batch_seconds

        if known := recorded_batch_seconds(config.set_url):
            return known
        listener.say("measuring how much audio a batch should hold")
        size = run_once_on_ray(measure_batch_size, config, cluster) if cluster else measure_batch_size(config)
        record_batch_size(config.set_url, size)
        listener.say(str(size))
        return size.seconds


def cluster_after_crash(units: Set[str], resources: Resources, listener: Listener) -> Cluster | None:
    """A run that died may have died of its rows: in this process the next one would, too."""
    listener.say(f"an earlier run died with {len(units)} units in hand: {', '.join(sorted(units))}")
    if resources.workers == 0:
        listener.say("if it dies again, use --workers 1: a worker that dies leaves the run, and the row is found")
        return None
    listener.say("so units run in a worker of their own this time: if a row kills it, the row is found")
    return Cluster(workers=1, cpus_per_worker=float(os.cpu_count() or 1))


def unit_order(plan: ExtractionPlan, shuffle: bool) -> Sequence[int]:
    """Longest rows first, so that no long unit is left alone at the end; or any, for a steadier estimate."""
    numbers = range(len(plan.units))
    return random.sample(numbers, len(numbers)) if shuffle else numbers[::-1]
