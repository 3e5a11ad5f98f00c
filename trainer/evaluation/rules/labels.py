"""Classification with a fixed list of labels: accuracy, and F1 weighted by how often each label is right.

Emotion sets have few labels, and one of them (neutral) is half of the rows: accuracy alone rewards saying it always.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from coat.trainer.evaluation.benchmark import ACCURACY, Benchmark, QuestionRow, Verdict, ratio
from coat.trainer.evaluation.choices import normalise

WEIGHTED_F1 = "weighted_f1"


class LabelBenchmark(Benchmark):
    """Every row has the same choices. Sums of a row: for its true label and the chosen one, what F1 is made of."""

    labels: ClassVar[tuple[str, ...]]
    metrics = (ACCURACY, WEIGHTED_F1)
    max_new_tokens = 32

    def official(self, row: QuestionRow, answer: str) -> Verdict:
        """Equal strings, but for space before it: "Joy" and "joy." are wrong where the label is "joy"."""
        right = answer.lstrip() == row.response
        choice = answer.lstrip() if answer.lstrip() in row.choices else None
        why = "the very label" if right else "another label" if choice else "not the very string of a label"
        return self.with_f1(row, Verdict(right, why, choice, unparsed=choice is None))

    def strict(self, row: QuestionRow, answer: str) -> Verdict:
        found = super().strict(row, answer)
        return found if found.sums else self.with_f1(row, found)

    def chosen(self, row: QuestionRow, index: int, why: str) -> Verdict:
        return self.with_f1(row, super().chosen(row, index, why))

    def nothing(self, row: QuestionRow, why: str) -> Verdict:
        return self.with_f1(row, super().nothing(row, why))

    def with_f1(self, row: QuestionRow, verdict: Verdict) -> Verdict:
        truth, chosen = normalise(row.response or ""), normalise(verdict.choice or "")
        sums = {f"true:{truth}": (1.0, 0.0)}
        if chosen:
            sums[f"chosen:{chosen}"] = 1.0, 0.0
        if verdict.right:
            sums[f"hit:{truth}"] = 1.0, 0.0
        return Verdict(verdict.right, verdict.why, verdict.choice, verdict.unparsed, sums)

    def from_totals(self, totals: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
        """F1 of a label is 2 hits / (true + chosen); weighted by `true`, as scikit-learn's `average="weighted"`."""
        plain = {name: total for name, total in totals.items() if ":" not in name}
        over = under = np.zeros(1)[0]
        for name, (true, _) in totals.items():
            if name.startswith("true:"):
                label = name.removeprefix("true:")
                hits, chosen = (totals.get(f"{kind}:{label}", (0.0, 0.0))[0] for kind in ("hit", "chosen"))
                over = over + true * ratio(2 * hits, true + chosen)
                under = under + true
        return {**super().from_totals(plain), WEIGHTED_F1: ratio(over, under)}

    def label_row(self, record: Mapping[str, Any], audio: str, label: str) -> dict[str, Any]:
        """The prompt is ours where the record has none. ValueError where its label is none of the list."""
        if label not in self.labels:
            raise ValueError(f"label {label!r}; expected one of {', '.join(self.labels)}")
        return {"audio_filepath": audio, "response": label, "choices": list(self.labels)}
