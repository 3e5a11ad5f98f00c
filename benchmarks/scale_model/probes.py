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
from coat.analysis.probing.ridge import Matrix, Part, fit_and_score, r_squared
from coat.analysis.probing.ridge import accuracy as class_accuracy
from coat.trainer.model.coat_model import CoatModel

# And what is asked meanwhile: the first of these that the model was trained on.
PROBED = {
    "f0": ("count", "contour"),
    "event": ("vowel", "note"),
    "vowel": ("count", "contour"),
    "mood": ("count", "note"),
}


def probe(model: CoatModel, train: Asker, validation: Asker, test: Asker, clips: int) -> dict[str, dict[str, float]]:
    """By place and what is probed: R^2 of log2 f0, or accuracy, on test. `clips` of the training ones are fitted to."""
    splits = [(train, clips), (validation, None), (test, None)]
    parts = [states(model, asker, n) for asker, n in splits]
    found: dict[str, dict[str, float]] = {}
    for what, others in PROBED.items():
        y = [truth(asker, what)[:n] for asker, n in splits]
        unasked = next(q for q in others if q in train.questions)
        for place in parts[0]:
            if place in ("audio", "think", f"response to {unasked}"):
                score = fitted([part[place] for part in parts], y)
                found.setdefault(place.split()[0], {})[what] = round(score, 4)
    return found


@torch.inference_mode()
def states(model: CoatModel, asker: Asker, clips: int | None) -> Mapping[str, Matrix]:
    """`[n, D]` by place."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for batch in batches(asker, clips):
        states_BTD, _ = model.states(batch.inputs)
        rows_B1 = torch.arange(len(batch))[:, None]
        at = {"audio": audio_at(model, batch)}
        if model.block.ids_K:
            at["think"] = block_at(model, batch)[:, 1:-1]
        for place, at_BK in at.items():
            parts.setdefault(place, []).append(states_BTD[rows_B1, at_BK].mean(1).numpy())
        for question, t in zip(asker.questions, asker.response_Q - 1, strict=True):
            parts.setdefault(f"response to {question}", []).append(states_BTD[:, t].numpy())
    return {place: np.concatenate(part).astype(np.float64) for place, part in parts.items()}


def truth(asker: Asker, what: str) -> Matrix:
    """`[n, 1]` log2 f0, or `[n, C]` one-hot."""
    if what == "f0":
        return np.array([[t["f0_log2"]] for t in asker.clips.truths])
    answers = QUESTIONS[what].answers
    return np.eye(len(answers))[[answers.index(t[what]) for t in asker.clips.truths]]


def fitted(x: Sequence[Matrix], y: Sequence[Matrix]) -> float:
    """Ridge on the first split, its penalty chosen on the second, its score on the third: as `coat probe` does it."""
    train, validation, test = (Part(states, targets) for states, targets in zip(x, y, strict=True))
    return fit_and_score(train, validation, test, r_squared if y[0].shape[1] == 1 else class_accuracy)
