"""How far what was heard agrees with the expert's target, in one clip.

One clip has few frames, that are much alike: these figures say what is seen in a panel, and nothing of a run.
`coat fidelity` measures a run, over many clips and with intervals.

N frames, D dim.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from coat.manifests import ExpertInfo
from coat.manifests.targets.frame_rate import LOG2_F0, VOICED, VOICING
from coat.trainer.model.losses import DEAD_STD

CENTS = 1200  # of an octave
NEAR_CENTS = 50  # as in the measures of melody extraction
PRESENT = 0.5  # probability from which a class is there
SMALLEST_VARIANCE = 1e-9  # of standardised values: below it a dimension does not vary

Floats = NDArray[np.float32]


def agreement(heard_ND: Floats, target_ND: Floats, expert: ExpertInfo) -> dict[str, float | None]:
    """By the kind of the target; None where the clip has nothing to measure it by.

    pitch: `cents` (median distance of frames that the expert calls voiced), `near` (share within 50 cents),
    `voicing` (share of frames with the same voicing). probabilities: `auc` (mean over the classes that are present in
    some frames and absent in others). distribution: `accuracy` of the likeliest. Else `cosine` (mean over frames, of
    standardised values) and `r2` (over all dimensions that vary in the clip), for scalars `r2` alone.
    """
    kind = expert.spec.kind
    if kind == "pitch":
        return pitch_agreement(heard_ND, target_ND)
    if kind == "probabilities":
        return {"auc": mean_auc(heard_ND, target_ND)}
    if kind == "distribution":
        return {"accuracy": float((heard_ND.argmax(1) == target_ND.argmax(1)).mean())}
    std_D = np.array(expert.std)
    alive = std_D > DEAD_STD
    mean, std = np.array(expert.mean)[alive], std_D[alive]
    x_ND, y_ND = ((v_ND[:, alive].astype(np.float64) - mean) / std for v_ND in (heard_ND, target_ND))
    found = {"r2": r_squared(x_ND, y_ND)}
    return {"cosine": mean_cosine(x_ND, y_ND), **found} if kind == "representation" else found


def pitch_agreement(heard_ND: Floats, target_ND: Floats) -> dict[str, float | None]:
    voiced = (target_ND[:, VOICING] >= VOICED) & (target_ND[:, LOG2_F0] > 0)
    same = (heard_ND[:, VOICING] >= VOICED) == voiced
    cents = CENTS * np.abs(heard_ND[:, LOG2_F0].astype(np.float64) - target_ND[:, LOG2_F0])[voiced]
    return {
        "cents": float(np.median(cents)) if len(cents) else None,
        "near": float((cents <= NEAR_CENTS).mean()) if len(cents) else None,
        "voicing": float(same.mean()),
    }


def mean_auc(scores_ND: Floats, target_ND: Floats) -> float | None:
    present_ND = target_ND >= PRESENT
    some = [d for d in range(present_ND.shape[1]) if 0 < present_ND[:, d].sum() < len(present_ND)]
    return float(np.mean([auc(scores_ND[:, d], present_ND[:, d]) for d in some])) if some else None


def auc(scores_N: Floats, present_N: NDArray[np.bool_]) -> float:
    """How often a frame with a class is ranked above one without it, equal ones half; 0.5 by chance (Mann-Whitney)."""
    present = int(present_N.sum())
    above = rankdata(scores_N)[present_N].sum() - present * (present + 1) / 2
    return float(above / (present * (len(present_N) - present)))


def mean_cosine(x_ND: NDArray[np.float64], y_ND: NDArray[np.float64]) -> float | None:
    sizes = np.linalg.norm(x_ND, axis=1) * np.linalg.norm(y_ND, axis=1)
    known = sizes > 0
    return float(((x_ND * y_ND).sum(1)[known] / sizes[known]).mean()) if known.any() else None


def r_squared(x_ND: NDArray[np.float64], y_ND: NDArray[np.float64]) -> float | None:
    """1 less the squared error over the squared deviations from the clip's own mean."""
    spread = np.square(y_ND - y_ND.mean(0)).sum()
    return float(1 - np.square(x_ND - y_ND).sum() / spread) if spread > SMALLEST_VARIANCE * y_ND.size else None


WORDS = {
    "cents": "{:.0f} cents off (median)",
    "near": "{:.0%} within 50 cents",
    "voicing": "voicing alike in {:.0%}",
    "auc": "AUC {:.2f}",
    "accuracy": "likeliest alike in {:.0%}",
    "cosine": "cosine {:.2f}",
    "r2": "R² {:.2f}",
}
NOTHING = {"cents": "nothing voiced", "auc": "no class comes and goes", "r2": "nothing varies: no R²"}


def agreement_text(found: dict[str, float | None]) -> str:
    """In a few words, for a panel."""
    return ", ".join(WORDS[k].format(v) if v is not None else NOTHING[k] for k, v in found.items() if said(k, v))


def said(key: str, value: float | None) -> bool:
    return value is not None or key in NOTHING


def columns(found: Sequence[dict[str, float | None]]) -> list[str]:
    """All measures that any of them has, in a fixed order."""
    return [key for key in WORDS if any(one.get(key) is not None for one in found)]
