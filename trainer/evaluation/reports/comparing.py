"""`coat compare`: evaluations of the same rows, each against the first."""

from collections.abc import Sequence
from dataclasses import dataclass

from coat.manifests import InputError
from coat.trainer.evaluation.reports.finished import Finished
from coat.trainer.evaluation.statistics.paired import Difference, differences, shared_rows
from coat.trainer.evaluation.transcripts.error_rate import LOWER_IS_BETTER


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: an evaluation, or one for each seed of a training."""

    name: str
    seeds: Sequence[Finished]

    def figures(self, label: str, rule: str, metric: str) -> list[float]:
        """Of each seed, over all of its rows."""
        return [getattr(one.results.benchmarks[label].scores, rule)[metric] for one in self.seeds]


@dataclass(frozen=True)
class Comparison:
    """Of one benchmark. `left_out`: rows that not all of them have. `clips`: what the rows are heard of. `same_data`:
    whether all were asked the very same rows; else a row of one id may ask something else in each.
    """

    benchmark: str
    first: Arm
    second: Arm
    rows: int
    left_out: int
    clips: int
    same_data: bool
    differences: Sequence[Difference]

    @property
    def overall(self) -> list[Difference]:
        return [d for d in self.differences if d.group == ("", "")]


def compare(arms: Sequence[Arm]) -> list[Comparison]:
    """Every arm but the first against it, by benchmark. InputError where they have none in common."""
    if len(arms) < 2:
        raise InputError("one evaluation; expected two or more to compare (seeds of one arm are joined by commas)")
    shared = [label for label in arms[0].seeds[0].results.benchmarks if all(has(arm, label) for arm in arms)]
    if not shared:
        listed = "; ".join(f"{arm.name}: {', '.join(arm.seeds[0].results.benchmarks)}" for arm in arms)
        raise InputError(f"they share no benchmark ({listed})")
    return [comparison(label, arms[0], arm) for arm in arms[1:] for label in shared]


def has(arm: Arm, label: str) -> bool:
    return all(label in one.results.benchmarks for one in arm.seeds)


def comparison(label: str, first: Arm, second: Arm) -> Comparison:
    scores = [[one.scores[label] for one in arm.seeds] for arm in (first, second)]
    try:
        a, b, left_out = shared_rows(*scores)
    except InputError as e:
        raise InputError(f"{first.name} and {second.name}, {label}: {e}") from e
    found = differences(first.seeds[0].benchmark_of[label], a, b)
    clips = len({score.audio or score.id for score in a[0]})
    data = {one.results.benchmarks[label].data for arm in (first, second) for one in arm.seeds}
    return Comparison(label, first, second, len(a[0]), left_out, clips, len(data) == 1, found)


def verdict(difference: Difference) -> str:
    """In words: which is better, or that the difference is not one."""
    if not difference.is_one:
        return "not a difference"
    better = (difference.value < 0) == (difference.metric in LOWER_IS_BETTER)
    return "better" if better else "worse"


def sentence(one: Comparison, difference: Difference) -> str:
    """One line about all rows."""
    low, high = difference.interval or (0.0, 0.0)
    what = f"{one.benchmark}, {difference.metric} ({difference.rule}): {one.second.name} {points(difference.second)}"
    against = f"{one.first.name} {points(difference.first)}, {signed(difference.value)} [{signed(low)}, {signed(high)}]"
    if not difference.is_one:
        return f"{what} against {against}: not a difference, the interval holds 0"
    return f"{what} against {against}: {verdict(difference)}"


def points(share: float) -> str:
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    return f"{100 * share:+.1f}"
