"""Units on Ray: a pool of actors takes tasks from the queue and gives a report per committed unit."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from coat.manifests.errors import DeviceFault, EnvironmentFault, RunError
from coat.pipeline.cluster.ray_errors import DeathCause, death_cause, error_node, error_summary, worker_error
from coat.pipeline.cluster.resources import Cluster
from coat.pipeline.cluster.signals import Deliver, held_signals
from coat.pipeline.decoding.evidence import Witnesses
from coat.pipeline.extraction.run_queue import Handout, RunQueue
from coat.pipeline.extraction.staff import MAX_FAILED_STARTS, PoolWorker, Staff
from coat.pipeline.extraction.trials import Peer, Trials
from coat.pipeline.extraction.unit_queue import UnitTask
from coat.pipeline.worker.config import UNITS_IN_HAND, WorkerConfig
from coat.pipeline.worker.report import UnitReport

Found = TypeVar("Found")

# Of a worker and its successors without a unit that went well: the device is broken, and not the rows. Where there are
# other devices each death is of another unit; where there is none, halves of one unit with bad rows in both may be it.
MAX_DEVICE_DEATHS, MAX_DEVICE_DEATHS_ALONE = 3, 5


def run_ray(queue: RunQueue, configs: Sequence[WorkerConfig], cluster: Cluster) -> Iterator[UnitReport]:
    """On a pool of Ray actors; Ray is up. Descriptions of units go in, reports come out; features never do."""
    pool = WorkerPool(queue, configs, cluster)
    try:
        with held_signals() as deliver:
            yield from pool.reports(deliver)
    finally:
        pool.staff.dismiss_all()


def run_once_on_ray(function: Callable[[WorkerConfig], Found], config: WorkerConfig, cluster: Cluster) -> Found:
    """What the function gives where a worker would run. What it raises comes out as itself."""
    import ray
    from ray.exceptions import RayError

    task: Any = ray.remote(function)
    reference = task.options(num_cpus=cluster.cpus_per_worker, num_gpus=cluster.gpus_per_worker).remote(config)
    with held_signals() as deliver:
        while not ray.wait([reference], timeout=1.0)[0]:
            deliver()
    try:
        return ray.get(reference)
    except RayError as e:
        raise worker_error(e) from None


class WorkerPool:
    """Workers come and go (`Staff`), the queue stays: a worker gets a unit only once it is up, and its units are taken
    back when it dies, is cut off, or says nothing for longer than their deadline. One that gives a unit up because of
    its environment gets no other before it is known whose fault it was (`Trials`).
    """

    def __init__(self, queue: RunQueue, configs: Sequence[WorkerConfig], cluster: Cluster) -> None:
        self.queue = queue
        self.staff, self.trials, self.witnesses = Staff(queue, configs, cluster), Trials(), Witnesses()

    @property
    def workers(self) -> list[PoolWorker]:
        return self.staff.workers

    def reports(self, deliver_signals: Deliver) -> Iterator[UnitReport]:
        import ray

        while self.queue or self.trials.open or any(w.in_hand for w in self.workers):
            self.staff.grow(self.work())
            for worker in self.workers:
                self.assign(worker)
            references = [*self.staff.starting, *(ref for w in self.workers for ref in w.in_hand)]
            finished, _ = ray.wait(references, num_returns=1, timeout=1.0) if references else ([], [])
            if not references:
                time.sleep(1.0)
            deliver_signals()
            self.queue.send_heartbeat()
            for ref in finished:
                yield from self.take_result(ref)
            yield from self.give_up_unresponsive()
            self.staff.check()
            if self.trials.open:
                self.staff.grow(self.work())  # somebody must be able to try them
                self.trials.check_judged(self.workers, self.staff.more_come())
        for expert, rows in self.queue.unproven():
            raise RunError(
                f"{expert}: {rows} rows lose their device, and no unit goes well with "
                "it; nothing is recorded of them: see to the device, and run the same command again"
            )

    def work(self) -> int:
        """Workers that there is work for: a unit that was given up needs another one than who gave it up."""
        busy = sum(bool(w.in_hand) or self.trials.is_accused(w) for w in self.workers)
        return busy + len(self.queue) + sum(t.judge is None for t in self.trials.open)

    def assign(self, worker: PoolWorker) -> None:
        if not worker.ready or self.trials.is_accused(worker) or any(t.suspect for t in worker.in_hand.values()):
            return
        while worker.cuts_in_hand < UNITS_IN_HAND and (handout := self.next_handout(worker)):
            if not worker.in_hand:
                worker.last_report = time.monotonic()
            witnesses = self.witnesses.of(row.utterance.audio for task in handout.tasks for row in task.unit.rows)
            for task in handout.tasks:
                ref = worker.actor.run.remote(task.expert, task.unit, handout.cut, witnesses)
                worker.in_hand[ref] = task
            if handout.suspect:
                return

    def next_handout(self, worker: PoolWorker) -> Handout | None:
        if task := self.trials.task_for(worker, self.workers):
            return self.queue.handout([task])
        # A unit that lost its device is tried on another one.
        untried = worker.device_deaths > 0 and any(w.ready and not w.device_deaths for w in self.workers)
        return self.queue.take(idle=untried or not worker.in_hand, untried=untried)

    def take_result(self, ref: Any) -> Iterator[UnitReport]:
        """Take what a reference has become: a report, a worker that is up, or one that died or gave up."""
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        starts = self.staff.starting.pop(ref, None)
        worker = starts or next((w for w in self.workers if ref in w.in_hand), None)
        if worker is None:
            return  # of a worker that was dismissed in this round
        try:
            answer: Any = ray.get(ref)
        except RayTaskError as e:
            error = worker_error(e)
            if starts:
                self.staff.start_failed(worker, str(error))
            elif isinstance(error, EnvironmentFault):
                yield from self.gave_up(worker, ref, error)
            else:
                raise error from None
            return
        except (RayActorError, OutOfMemoryError) as e:
            yield from self.died(worker, e)
            return
        if isinstance(answer, UnitReport):
            yield self.finished(worker, worker.in_hand.pop(ref), answer)
        else:
            self.staff.answered(worker, answer)

    def finished(self, worker: PoolWorker, task: UnitTask, report: UnitReport) -> UnitReport:
        self.queue.finished(task, report)
        self.witnesses.add(report.witnesses)
        worker.last_report = time.monotonic()
        if report.ok and worker.lost_by in ("", task.expert):  # what others do well says nothing of this one
            worker.device_deaths, worker.lost_by = 0, ""
        if trial := self.trials.went_well(worker, task):
            self.put_aside(trial.accused, trial.fault)
        return report

    def gave_up(self, worker: PoolWorker, ref: Any, fault: EnvironmentFault) -> Iterator[UnitReport]:
        """A worker gave a unit up that nothing is recorded of."""
        if isinstance(fault, DeviceFault):
            yield from self.lost_device(worker, worker.in_hand[ref].expert, fault)
            return
        task, worker.last_report = worker.in_hand.pop(ref), time.monotonic()
        self.trials.accuse(worker, task, str(fault))
        self.queue.say(f"{worker.name} gave up unit {task.unit.name}, which another worker tries: {fault}")
        self.staff.hurry()

    def lost_device(self, worker: PoolWorker, expert: str, fault: DeviceFault) -> Iterator[UnitReport]:
        """Replace a worker whose device is lost to it. One whose successors fare no better is put aside."""
        worker.device_deaths, worker.lost_by = worker.device_deaths + 1, expert
        others = any(w.ready and w.done and not w.device_deaths for w in self.workers)
        if worker.device_deaths < (MAX_DEVICE_DEATHS if others else MAX_DEVICE_DEATHS_ALONE):
            self.staff.heirs.append((worker.device_deaths, worker.lost_by))
            yield from self.remove_dead(worker, "device")
        elif others:
            self.put_aside(worker, str(fault))
        else:
            raise RunError(Trials.stop_line(str(fault), f"{worker.device_deaths} workers one after the other"))

    def put_aside(self, worker: Peer, fault: str) -> None:
        if not isinstance(worker, PoolWorker) or worker not in self.workers:
            return  # gone meanwhile
        for task in worker.in_hand.values():
            if not self.trials.judge_is_gone(task):
                self.queue.given_back(task)
        self.staff.put_aside(worker, fault)

    def died(self, worker: PoolWorker, error: Exception) -> Iterator[UnitReport]:
        cause, staff = death_cause(error), self.staff
        if "creation task" in str(error):  # by the constructor, which would raise it again on that node
            worker.node = worker.node or error_node(error)
            staff.start_failed(worker, error_summary(error))
            return
        staff.failed_starts = 0 if worker.ready or cause == "lost" else staff.failed_starts + 1
        if staff.failed_starts >= MAX_FAILED_STARTS:
            if not any(w.ready for w in self.workers):
                raise RunError(f"{self.queue.experts}: workers die while they start: {error_summary(error)}") from error
            staff.failed_starts = 0
            staff.start_failed(worker, error_summary(error))
            return
        yield from self.remove_dead(worker, cause)

    def remove_dead(self, worker: PoolWorker, cause: DeathCause) -> Iterator[UnitReport]:
        """Kill what may be left of a worker, give its tasks back, and let another be hired at once."""
        self.staff.dismiss(worker)
        self.staff.hurry()
        tasks = list(worker.in_hand.values())
        for task in tasks:
            self.trials.dissolve(task)
        yield from self.queue.worker_died(tasks, cause)

    def give_up_unresponsive(self) -> Iterator[UnitReport]:
        for worker in list(self.workers):
            silent_s = time.monotonic() - worker.last_report
            if worker.in_hand and silent_s > self.queue.deadline(worker.in_hand.values()):
                yield from self.remove_dead(worker, "timeout")
