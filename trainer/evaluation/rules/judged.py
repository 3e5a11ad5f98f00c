"""Open answers that a judge rates. Without a judge such rows are left unscored, and counted."""

import re
from typing import ClassVar

from coat.trainer.evaluation.benchmark import ACCURACY, Benchmark, QuestionRow, Verdict
from coat.trainer.evaluation.templates import AS_IT_IS

JUDGE = "judge"
RATING = re.compile(r"rating\W{0,6}\s*(\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*\d+)?\W*\s*$", re.IGNORECASE)


def rating(judgement: str, lowest: float, highest: float) -> float | None:
    """The number of the last `Rating: N`, where it ends what the judge said. None: there is none, or it is out of
    range."""
    found = RATING.search(judgement.strip())
    value = float(found[1]) if found else None
    return value if value is not None and lowest <= value <= highest else None


class JudgedBenchmark(Benchmark):
    """The headline is `judge`, 0..1: the mean rating as a share of the best one. Accuracy counts ratings of 4 and 5."""

    templates = (AS_IT_IS,)
    template = AS_IT_IS.name
    metrics: ClassVar[tuple[str, ...]] = (JUDGE, ACCURACY)
    max_new_tokens = 512

    def nothing(self, row: QuestionRow, why: str) -> Verdict:
        return Verdict(False, why, sums={JUDGE: (0.0, 1.0)})
