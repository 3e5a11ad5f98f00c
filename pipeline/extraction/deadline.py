"""How long a worker may say nothing of a unit before it is taken for hung."""

from collections import deque

from coat.pipeline.plan.units import Unit
from coat.pipeline.worker.report import UnitReport

RECENT_UNITS = 200  # of which the speed is learnt
HIGH = 0.9  # quantile of them: one slow unit, or one that waited for its share, does not set the pace
HEARD_S = 10.0  # of good audio, at least, in a unit that counts: of less, the time is not the audio's
HEARD_SHARE = 0.5  # of its planned audio, at least: a unit of failed rows says nothing
PATIENCE = 10.0  # times what a unit should take
LEAST_S = 600.0
FIRST_S, FIRST_PER_S, FIRST_MOST_S = 1200.0, 20.0, 3600.0  # before any unit counts: and so much per second of audio
MOST_S = 4 * 3600.0  # unless units that went well took a half of it or more


class Deadline:
    """Seconds for a unit, from the seconds per heard second of audio of those that went well."""

    def __init__(self) -> None:
        self.paces: deque[float] = deque(maxlen=RECENT_UNITS)  # seconds per second of good audio
        self.pace: float | None = None  # the HIGH quantile of them
        self.longest = 0.0  # seconds that a unit took that counts

    @property
    def known(self) -> bool:
        return self.pace is not None

    def learn(self, unit: Unit, report: UnitReport) -> None:
        if report.audio_seconds >= max(HEARD_S, HEARD_SHARE * unit.seconds):
            self.paces.append(report.unit_seconds / report.audio_seconds)
            self.pace = sorted(self.paces)[int(HIGH * (len(self.paces) - 1) + 0.5)]
            self.longest = max(self.longest, report.unit_seconds)

    def of(self, unit: Unit) -> float:
        if self.pace is None:
            return min(FIRST_MOST_S, FIRST_S + FIRST_PER_S * unit.seconds)
        return min(max(LEAST_S, PATIENCE * self.pace * unit.seconds), max(MOST_S, 2 * self.longest))
