"""Who watches a run: each is told the plan, every report, and lines for people."""

from typing import Protocol

from coat.pipeline.plan.planning import ExtractionPlan
from coat.pipeline.worker.report import UnitReport


class Listener(Protocol):
    """Who watches a run: the command line's progress bar, or nobody."""

    def planned(self, plan: ExtractionPlan, covered: int) -> None: ...
    def reported(self, report: UnitReport) -> None: ...
    def say(self, line: str) -> None: ...


class NullListener:
    """Nobody watches."""

    def planned(self, plan: ExtractionPlan, covered: int) -> None: ...
    def reported(self, report: UnitReport) -> None: ...
    def say(self, line: str) -> None: ...


class Committed(NullListener):
    """Remembers which units were committed."""

    def __init__(self) -> None:
        self.units: list[str] = []

    def reported(self, report: UnitReport) -> None:
        self.units.append(report.unit)


class Listeners:
    """Passes everything on to several listeners."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def planned(self, plan: ExtractionPlan, covered: int) -> None:
        for listener in self.listeners:
            listener.planned(plan, covered)

    def reported(self, report: UnitReport) -> None:
        for listener in self.listeners:
            listener.reported(report)

    def say(self, line: str) -> None:
        for listener in self.listeners:
            listener.say(line)
