"""Metrics of a run for Prometheus, through Ray: `ray_<name>` on the metrics port of the node that the driver runs on.

Only the driver records, from the reports of its workers: a worker that dies takes no count with it, and a unit
counts once. Without Ray (`--workers 0`) nothing is recorded; without `ray[default]` no node exports it.
"""

from coat.pipeline.plan.planning import ExtractionPlan
from coat.pipeline.worker.report import UnitReport

UNIT_SECONDS = [1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0]  # bounds of the histogram

COUNTERS = {  # name: what it counts, tags beside `expert`
    "coat_units": ("units committed", ()),
    "coat_rows": ("rows of committed units, by outcome: ok, failed, skipped", ("outcome",)),
    "coat_failures": ("failed rows, by reason", ("reason",)),
    "coat_audio_seconds": ("audio that has targets now", ()),
    "coat_padding_seconds": ("audio that the expert was given on top, as padding", ()),
    "coat_stage_seconds": ("seconds that units spent, by stage", ("stage",)),
    "coat_bytes": ("bytes of targets committed", ()),
    "coat_halvings": ("times that the batch budget was halved for want of memory", ()),
}
GAUGES = {
    "coat_rows_planned": "rows of the manifest",
    "coat_rows_covered": "rows that were done when the run began",
    "coat_units_left": "units of this run that are not committed yet",
    "coat_audio_seconds_left": "planned audio of this run that is not committed yet",
}
HISTOGRAMS = {"coat_unit_seconds": "from taking a unit in hand to its commit"}


class Metrics:
    """A Listener that records each report. Made once Ray is up, in the driver."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self.counters = {n: Counter(n, text, ("expert", *tags)) for n, (text, tags) in COUNTERS.items()}
        self.gauges = {n: Gauge(n, text, ("expert",)) for n, text in GAUGES.items()}
        self.histograms = {n: Histogram(n, text, UNIT_SECONDS, ("expert",)) for n, text in HISTOGRAMS.items()}
        self.expert = ""
        self.rows = self.covered = self.units_left = 0
        self.seconds_left = 0.0

    def planned(self, plan: ExtractionPlan, covered: int) -> None:
        self.expert, self.units_left, self.seconds_left = plan.spec.expert, len(plan.units), plan.seconds
        self.rows, self.covered = plan.rows, covered
        self.set_gauges()

    def reported(self, report: UnitReport) -> None:
        self.count("coat_units", 1)
        for outcome in ("ok", "failed", "skipped"):
            self.count("coat_rows", getattr(report, outcome), outcome=outcome)
        for reason, rows in report.reasons.items():
            self.count("coat_failures", rows, reason=reason)
        self.count("coat_audio_seconds", report.audio_seconds)
        self.count("coat_padding_seconds", report.padded_seconds - report.audio_seconds)
        for stage, seconds in report.stages.items():
            self.count("coat_stage_seconds", seconds, stage=stage)
        self.count("coat_bytes", report.bytes)
        self.count("coat_halvings", report.halvings)
        self.histograms["coat_unit_seconds"].observe(report.unit_seconds, {"expert": self.expert})
        self.units_left -= 1
        self.seconds_left = max(0.0, self.seconds_left - report.audio_seconds)
        self.set_gauges()

    def say(self, line: str) -> None: ...

    def set_gauges(self) -> None:
        """All gauges, each time: Ray forgets one that was not set since it was last exported."""
        self.gauge("coat_rows_planned", self.rows)
        self.gauge("coat_rows_covered", self.covered)
        self.gauge("coat_units_left", self.units_left)
        self.gauge("coat_audio_seconds_left", self.seconds_left)

    def count(self, name: str, value: float, **tags: str) -> None:
        if value > 0:  # Ray refuses an increment of zero
            self.counters[name].inc(value, {"expert": self.expert, **tags})

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name].set(value, {"expert": self.expert})
