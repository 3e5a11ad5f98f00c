"""Figures in words, the same in the table and on the page."""

import math
from collections.abc import Sequence

from coat.trainer.fidelity.measures.measure import LOWER_IS_BETTER
from coat.trainer.fidelity.results import FLOOR, MEAN, RUN, SUBJECTS, ExpertFidelity, FidelityResults, Figure

WORDS = {"map": "mAP", "ap": "average precision", "auc": "AUC", "r2": "R2", "ccc": "CCC"}
WORDS |= {"r2_others": "R2 of other channels", "ccc_others": "CCC of other channels"}
MOST_NAMES = 12  # of classes that have no figure
EXPLAINED = {
    "pitch": "Measures of melody extraction (mir_eval): f0 is right within 50 cents; chroma forgives octaves.",
    "probabilities": "A class is there from a probability of {present:g} on; means are over classes that are there in "
    "some frame and not in all.",
    "distribution": "Whether the likeliest choice is the target's, by frame, and as the mean over choices.",
    "representation": "Cosine and R2 of standardised values; retrieval: the prediction is closest to the target of its "
    "own frame, of all of its clip.",
    "scalars": "By channel, and the mean over those that vary.",
}


def label_of(name: str) -> str:
    """Of a measure; one where less is better says so."""
    return WORDS.get(name, name.replace("_", " ")) + (" ↓" if name in LOWER_IS_BETTER else "")


def number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


def signed(value: float) -> str:
    return f"{value:+.3f}" if math.isfinite(value) else "-"


def interval_text(figure: Figure | None, signs: bool = False) -> str:
    if figure is None or figure.interval is None:
        return "-"
    low, high = ((signed if signs else number)(v) for v in figure.interval)
    return f"{low} to {high}"


def columns_of(experts: Sequence[ExpertFidelity]) -> list[str]:
    floor = [SUBJECTS[FLOOR], "95 %", "difference", "95 %"]
    return [SUBJECTS[RUN], "95 %", SUBJECTS[MEAN], *(floor if any(FLOOR in e.figures for e in experts) else [])]


def cells_of(expert: ExpertFidelity, name: str, columns: Sequence[str]) -> list[str]:
    """Of one measure, for these columns."""
    run, mean = expert.figures[RUN][name], expert.figures[MEAN][name]
    cells = [number(run.value), interval_text(run), number(mean.value)]
    if FLOOR in expert.figures:
        floor, apart = expert.figures[FLOOR][name], expert.over_floor[name]
        cells += [number(floor.value), interval_text(floor), signed(apart.value), interval_text(apart, signs=True)]
    return cells + ["-"] * (len(columns) - len(cells))


def heading(results: FidelityResults) -> str:
    skipped = f", {sum(results.skipped.values()):,} left out" if results.skipped else ""
    step = "" if results.step is None else f" at step {results.step:,}"
    return f"{results.run}{step} on {', '.join(results.shards)}: {results.clips:,} clips{skipped}"


def facts_of(expert: ExpertFidelity) -> list[str]:
    """What a reader has to know beside the figures."""
    facts = []
    if expert.clips < expert.clips_seen - expert.clips_apart:
        facts.append(f"figures are of a sample of {expert.clips:,} of {expert.clips_seen:,} clips (bound of memory)")
    if expert.clips_apart:
        facts.append(f"{expert.clips_apart:,} clips that not both runs could be asked about are left out")
    if expert.reduction:
        kept = "" if expert.kept_variance is None else f", which hold {expert.kept_variance:.1%} of the variance"
        facts.append(f"targets are reduced ({expert.reduction}){kept}: figures are against these, not the expert's own")
    for why, names in expert.without_figures.items():
        more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
        facts.append(f"in no mean, {why}: {', '.join(names[:MOST_NAMES])}{more}")
    return facts
