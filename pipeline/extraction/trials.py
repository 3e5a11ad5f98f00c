"""Whose fault is a unit that was given up: the worker's, or of something that all workers see?

A worker gives a unit up where its environment is at fault: audio that it cannot read, a disk that is full, a device
that is broken. The same unit is then given to another worker, on another node where there is one. Where it goes well
there, the first worker has a strike; with MAX_STRIKES, and no unit that went well in between, it is put aside. Where
it fails there too, or where nobody else is left to try it, the run stops. Nothing of the unit is recorded meanwhile.

Knows neither threads nor Ray.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from coat.manifests.errors import RunError
from coat.pipeline.extraction.unit_queue import UnitTask

MAX_STRIKES = 2


@dataclass(eq=False)
class Peer:
    """What is known of a worker when it is judged."""

    name: str = "a worker"  # host:pid
    node: str = ""
    ready: bool = False
    done: int = 0  # units that went well
    # Units that it gave up and that went well elsewhere, by expert, since one of that expert went well here.
    strikes: Counter[str] = field(default_factory=Counter[str])


@dataclass(eq=False)
class Trial:
    """A unit that `accused` gave up, and who tries it now."""

    task: UnitTask
    accused: Peer
    fault: str
    judge: Peer | None = None


class Trials:
    """The units that were given up and have not gone well or failed elsewhere yet."""

    def __init__(self) -> None:
        self.open: list[Trial] = []

    def of(self, task: UnitTask) -> Trial | None:
        return next((t for t in self.open if t.task is task), None)

    def is_accused(self, peer: Peer) -> bool:
        """Whether a peer is to get no unit before it is known who is at fault."""
        return any(t.accused is peer for t in self.open)

    def accuse(self, peer: Peer, task: UnitTask, fault: str) -> None:
        """A peer gave a unit up. RunError where another one did so before."""
        if trial := self.of(task):
            raise RunError(self.stop_line(fault, f"{trial.accused.name} and {peer.name} see the same"))
        self.open.append(Trial(task, peer, fault))

    def task_for(self, peer: Peer, peers: Iterable[Peer]) -> UnitTask | None:
        """A unit that this peer is to try; the peer counts as its judge from now on."""
        peers = list(peers) if self.open else []
        for trial in self.open:
            if trial.judge is None and peer in self.fit_to_judge(trial, peers):
                trial.judge = peer
                return trial.task
        return None

    def fit_to_judge(self, trial: Trial, peers: Iterable[Peer]) -> list[Peer]:
        """Of those that are up and not accused themselves: on another node, with a unit that went well, if any are."""
        fit = [p for p in peers if p.ready and p is not trial.accused and not self.is_accused(p)]
        fit = [p for p in fit if p.node != trial.accused.node] or fit
        return [p for p in fit if p.done] or fit

    def went_well(self, peer: Peer, task: UnitTask) -> Trial | None:
        """A unit went well. Where another peer has given it up before and is to be put aside for that: its trial."""
        peer.done += 1
        if not self.is_accused(peer):
            del peer.strikes[task.expert]
        trial = self.of(task)
        if trial is None:
            return None
        self.open.remove(trial)
        if self.is_accused(trial.accused):
            return None  # of several units, the last one counts
        trial.accused.strikes[task.expert] += 1
        return trial if trial.accused.strikes.total() >= MAX_STRIKES else None

    def judge_is_gone(self, task: UnitTask) -> bool:
        """The peer that tried it was put aside: another one is to try it. False where nobody gave it up before."""
        if trial := self.of(task):
            trial.judge = None
        return trial is not None

    def dissolve(self, task: UnitTask) -> None:
        """The peer that tried it died of it: nobody is at fault but the unit."""
        self.open = [t for t in self.open if t.task is not task]

    def check_judged(self, peers: Iterable[Peer], more_come: bool) -> None:
        """RunError where nobody is left to try a unit that was given up. `more_come`: other workers start up."""
        peers = list(peers)
        for trial in self.open:
            if trial.judge is None and not more_come and not self.fit_to_judge(trial, peers):
                accused = {t.accused.name: t for t in self.open}
                who = "no other worker is up" if len(accused) == 1 else f"all {len(accused)} workers give up"
                raise RunError(self.stop_line(trial.fault, who))

    @staticmethod
    def stop_line(fault: str, who: str) -> str:
        return f"{fault} ({who}; nothing is recorded of it: see to that, and run the same command again)"
