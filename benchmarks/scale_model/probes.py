"""Linear probes: what can be read off hidden states by a ridge regression, at audio, think and response positions.

n clips, D dim of the states, C classes. States are the last ones (behind the final norm), their mean over the audio's
or the block's positions; at the response, those of the position that says its first token. Question and probe differ
there: what is probed was not asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.scale_model.corpus import QUESTIONS
from benchmarks.scale_model.data import Asker
from benchmarks.scale_model.measure import audio_at, batches, block_at
from coat.trainer.batches import IGNORED
from coat.trainer.model import CoatModel

PROBED = {"f0": "event", "event": "vowel", "vowel": "event", "mood": "event"}  # and what is asked meanwhile
PENALTIES = tuple(10.0**p for p in range(-2, 5))
Matrix = NDArray[np.float64]


def probe(model: CoatModel, train: Asker, validation: Asker, test: Asker, clips: int) -> dict[str, dict[str, float]]:
    """By place and what is probed: R^2 of log2 f0, or accuracy, on test. `clips` of the training ones are fitted to."""
    splits = [(train, clips), (validation, None), (test, None)]
    asked = {q: [states(model, asker, q, n) for asker, n in splits] for q in sorted(set(PROBED.values()))}
    found: dict[str, dict[str, float]] = {}
    for what, question in PROBED.items():
        truths = [truth(asker, what)[:n] for asker, n in splits]
        for place in asked[question][0]:
            x = [part[place] for part in asked[question]]
            found.setdefault(place, {})[what] = round(fitted(x, truths), 4)
    return found


@torch.inference_mode()
def states(model: CoatModel, asker: Asker, question: str, clips: int | None) -> Mapping[str, Matrix]:
    """`[n, D]` by place."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for batch in batches(asker, question, clips):
        states_BTD, _ = model.states(batch.inputs)
        rows_B = torch.arange(len(batch))
        before_B = (batch.labels_BT != IGNORED).int().argmax(1) - 1
        places = {"audio": audio_at(model, batch)} | (
            {"think": block_at(model, batch)[:, 1:-1]} if model.block.ids_K else {}
        )
        for place, at_BK in places.items():
            parts.setdefault(place, []).append(states_BTD[rows_B[:, None], at_BK].mean(1).numpy())
        parts.setdefault("response", []).append(states_BTD[rows_B, before_B].numpy())
    return {place: np.concatenate(p).astype(np.float64) for place, p in parts.items()}


def truth(asker: Asker, what: str) -> Matrix:
    """`[n, 1]` log2 f0, or `[n, C]` one-hot."""
    if what == "f0":
        return np.array([[t["f0_log2"]] for t in asker.clips.truths])
    answers = QUESTIONS[what].answers
    return np.eye(len(answers))[[answers.index(t[what]) for t in asker.clips.truths]]


def fitted(x: Sequence[Matrix], y: Sequence[Matrix]) -> float:
    """Ridge on the first split, its penalty chosen on the second, its score on the third."""
    mean, std = x[0].mean(0), x[0].std(0) + 1e-9
    train, validation, test = (np.hstack([(part - mean) / std, np.ones((len(part), 1))]) for part in x)
    weights = [ridge(train, y[0], penalty) for penalty in PENALTIES]
    best = max(weights, key=lambda w: score(validation @ w, y[1]))
    return score(test @ best, y[2])


def ridge(x: Matrix, y: Matrix, penalty: float) -> Matrix:
    """The constant is the last column, and not penalised."""
    penalties = np.full(x.shape[1], penalty)
    penalties[-1] = 0.0
    return np.linalg.solve(x.T @ x + np.diag(penalties), x.T @ y)


def score(predicted: Matrix, y: Matrix) -> float:
    if y.shape[1] == 1:
        return float(1 - ((y - predicted) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())
    return float((predicted.argmax(1) == y.argmax(1)).mean())
