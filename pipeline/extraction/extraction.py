"""`coat extract`: plan what is missing, run it, and say what became of every row."""

import os
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coat.extractors.expert import Options
from coat.extractors.registry import create, portable_name
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.cluster.ray_connection import connect, disconnect, worker_environment
from coat.pipeline.cluster.resources import Cluster, Resources, choose_cluster, threads_per_worker
from coat.pipeline.extraction.expert_run import ExpertRun
from coat.pipeline.extraction.listeners import Listener, NullListener
from coat.pipeline.extraction.local_runner import run_local
from coat.pipeline.extraction.metrics import Metrics
from coat.pipeline.extraction.ray_runner import run_once_on_ray, run_ray
from coat.pipeline.extraction.run_queue import RunQueue
from coat.pipeline.extraction.summary import Summary, add_outcomes
from coat.pipeline.plan.planning import UNIT_BYTES, Covered, ExtractionPlan, make_plans
from coat.pipeline.plan.redo import rows_to_redo
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.worker.config import WorkerConfig


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
    """Run each expert over all rows that have no outcome of it yet: one expert after the other, or, where
    `resources.share_decode`, all in one pass in which each clip is decoded once.

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
    passes = shared_passes(specs) if resources.share_decode else [{name: spec} for name, spec in specs.items()]
    if resources.share_decode and len(specs) < 2:
        listener.say("--share-decode: one expert has nobody to share with; give --expert several times")
    return [
        summary
        for together in passes
        for summary in Extraction(
            manifest, target_store, options, resources, selection, cluster, device, listener, together
        ).run()
    ]


def shared_passes(specs: Mapping[str, TargetSpec]) -> list[dict[str, TargetSpec]]:
    """All experts in one pass; of two names for one target set the second comes after the first."""
    passes: list[dict[str, TargetSpec]] = []
    for name, spec in specs.items():
        free = (p for p in passes if all(other.fingerprint != spec.fingerprint for other in p.values()))
        found = next(free, None)
        if found is None:
            passes.append({name: spec})
        else:
            found[name] = spec
    return passes


def check_one_checkpoint(checkpoint: str | None, experts: Sequence[str]) -> None:
    if checkpoint and len(experts) > 1:
        raise InputError("--checkpoint goes with one --expert; run the experts one by one")


@dataclass(frozen=True)
class Extraction:
    """One expert over one manifest, or several that share what is decoded."""

    manifest: Manifest
    store: TargetStore
    options: Options
    resources: Resources
    selection: RowSelection
    cluster: Cluster | None  # None: in this process
    device: str  # of a worker
    listener: Listener
    experts: Mapping[str, TargetSpec]  # by name, as the registry finds it

    def run(self) -> list[Summary]:
        """The leases are there before the plan is made: what another run commits meanwhile, it has told us of."""
        started = time.perf_counter()
        runs = [ExpertRun(name, spec, self.store.set_url(spec)) for name, spec in self.experts.items()]
        with ExitStack() as leases:
            for run in runs:
                leases.callback(run.release)
                run.begin()
            for run, plan in zip(runs, self.make_plans(runs), strict=True):
                run.set_plan(plan)
            for run in runs:
                if not run.plan.units:
                    self.listener.planned(run.plan, run.plan.covered)
            if work := [run for run in runs if run.plan.units]:
                self.run_units(work)
                for run in work:
                    run.read_outcomes()
        for run in runs:
            add_outcomes(run.summary, run.plan, run.outcomes)
            run.summary.wall_seconds = time.perf_counter() - started
        return [run.summary for run in runs]

    def make_plans(self, runs: Sequence[ExpertRun]) -> list[ExtractionPlan]:
        selection = self.selection
        covered: list[Covered] = []
        for run in runs:
            redo = rows_to_redo(self.manifest, run.targets, selection.retry_failed, selection.refresh)
            attempts = {unit: run.targets.done[unit]["attempt"] for unit in set(redo.values())}
            covered.append(Covered(run.spec, run.targets.outcomes.digests, redo, attempts))
        return make_plans(self.manifest, covered, selection.unit_bytes, only=selection.only, limit=selection.limit)

    def run_units(self, runs: Sequence[ExpertRun]) -> None:
        """Run what the plans have left, telling other runs, the logs and the metrics of it."""
        started = time.perf_counter()
        cluster, finished = self.cluster, False
        left_by_dead = frozenset[str]().union(*(run.lease.left_by_dead for run in runs))
        if left_by_dead and cluster is None:
            cluster = cluster_after_crash(left_by_dead, self.resources, self.listener)
        started_ray = connect(cluster) if cluster else False
        try:
            facts = {"device": self.device, "where": asdict(self.resources)}
            for run in runs:
                run.start(self.listener, started, Metrics() if cluster else None, **facts)

            def say(line: str) -> None:
                self.listener.say(line)
                for run in runs:
                    run.log.say(line)

            if cluster and (line := worker_environment()):
                say(line)
            configs = [self.worker_config(run, cluster) for run in runs]
            turns = cut_turns(runs[0].plan.cuts, self.selection.shuffle)
            queue = RunQueue(
                [r.make_queue(c, turns, self.resources.unit_deadline) for r, c in zip(runs, configs, strict=True)], say
            )
            for run in runs:
                run.listeners.planned(run.plan, run.plan.covered)
            named = {run.expert: run for run in runs}
            for report in run_ray(queue, configs, cluster) if cluster else run_local(queue, configs):
                named[report.expert].reported(report)
            for run in runs:
                run.finish(queue)
            finished = True
        except BaseException as e:
            for run in runs:
                run.stop(f"{type(e).__name__}: {e}")
            raise
        finally:
            for run in runs:
                run.close(finished, self.listener)
            if started_ray:
                disconnect()

    def worker_config(self, run: ExpertRun, cluster: Cluster | None) -> WorkerConfig:
        config = WorkerConfig(
            expert=run.expert,
            options=self.options,
            set_url=run.set_url,
            spec=run.spec,
            device=self.device,
            threads=threads_per_worker(cluster),
            decode_threads=self.resources.decode_threads,
            accept_missing=self.selection.accept_missing,
            patience_s=self.resources.patience_s,
        )
        return replace(config, batch_seconds=self.batch_seconds(config, cluster, run.listeners))

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


def cut_turns(cuts: int, shuffle: bool) -> NDArray[np.int64]:
    """When each cut comes: longest rows first, so that no long unit is left alone at the end; or any, for a steadier
    estimate.
    """
    return np.random.default_rng().permutation(cuts) if shuffle else np.arange(cuts)[::-1]
