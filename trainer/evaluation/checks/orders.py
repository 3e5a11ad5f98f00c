"""The order of choices: a score that moves with it is not of what was heard."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coat.manifests import Utterance
from coat.trainer.evaluation.asking.planning import ORDER
from coat.trainer.evaluation.benchmark import Benchmark, score
from coat.trainer.evaluation.choices import normalise
from coat.trainer.evaluation.predictions import Key, Prediction
from coat.trainer.evaluation.results import Orders


def order_results(
    benchmark: Benchmark, label: str, rows: Sequence[Utterance], answered: Mapping[Key, Prediction]
) -> Orders | None:
    """By the strict rule. None where no row was asked in another order."""
    variants: dict[str, list[Prediction]] = {}
    for (of, identity, variant), prediction in answered.items():
        if of == label and variant.startswith(ORDER):
            variants.setdefault(identity, []).append(prediction)
    asked = [row for row in rows if row.id in variants and row.response is not None]
    if not asked:
        return None
    right, total, same = 0, 0, 0
    most = max(len(row.choices) for row in asked)
    chosen, expected = [0] * most, [0.0] * most
    parsed = 0
    for row in asked:
        plain = answered.get((label, row.id, ""))
        texts = []
        for prediction in [plain, *variants[row.id]]:
            choices = prediction.choices if prediction else row.choices
            verdicts = score(benchmark, replace(row, choices=choices), prediction.answer if prediction else None)
            total += 1
            right += bool(verdicts and verdicts[1].right)
            choice = verdicts[1].choice if verdicts else None
            texts.append(None if choice is None else normalise(choice))
            place = [i for i, c in enumerate(choices) if choice is not None and normalise(c) == texts[-1]]
            if place:
                parsed += 1
                chosen[place[0]] += 1
                truth = [i for i, c in enumerate(choices) if normalise(c) == normalise(row.response or "")]
                for i in truth[:1]:
                    expected[i] += 1
        same += None not in texts and len(set(texts)) == 1
    by_position = [n / parsed if parsed else 0.0 for n in chosen]
    of_truth = [n / sum(expected) if sum(expected) else 0.0 for n in expected]
    return Orders(
        orders=1 + max(map(len, variants.values())),
        rows=len(asked),
        accuracy=right / total,
        consistency=same / len(asked),
        by_position=by_position,
        expected=of_truth,
        bias=sum(abs(a - b) for a, b in zip(by_position, of_truth, strict=True)) / 2,
    )
