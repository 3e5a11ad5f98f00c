"""Figures in words, the same in the table and on the page."""

import math
from collections.abc import Sequence

from coat.trainer.fidelity.measures.measure import LOWER_IS_BETTER
from coat.trainer.fidelity.results import FLOOR, MEAN, RUN, SUBJECTS, ExpertFidelity, FidelityResults, Figure, Row

WORDS = {"map": "mAP", "ap": "average precision", "auc": "AUC", "r2": "R2", "ccc": "CCC"}
WORDS |= {"r2_others": "R2 of other channels", "ccc_others": "CCC of other channels"}
MOST_NAMES = 12  # of classes that have no figure
FEW_CLIPS = 5  # below it a class is a matter of single clips
EXPLAINED = {
    "pitch": "Measures of melody extraction (mir_eval): f0 is right within 50 cents; chroma forgives octaves.",
    "probabilities": "A class is there from a probability of {present:g} on; means are over classes that are there in "
    "some frame and not in all.",
    "distribution": "Whether the likeliest choice is the target's, by frame, and as the mean over choices.",
    "representation": "Cosine and R2 of standardised values; retrieval: the prediction is closest to the target of its "
    "own frame, of all of its clip.",
    "scalars": "R2 and CCC of each channel; above, their means over channels that vary.",
}


def label_of(name: str) -> str:
    """Of a measure; one where less is better says so."""
    return WORDS.get(name, name.replace("_", " ")) + (" ↓" if name in LOWER_IS_BETTER else "")


def number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}" if math.isfinite(value) else "-"  # + 0.0: no -0.000


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


def headings_of(subject: str) -> list[str]:
    """Columns of one subject; the constant one has no interval."""
    return [SUBJECTS[subject]] if subject == MEAN else [SUBJECTS[subject], "95 %"]


def subject_cells(figures: Row, subject: str, name: str) -> list[str]:
    """One measure in these columns."""
    if subject not in figures:
        return ["-"] * len(headings_of(subject))
    figure = figures[subject][name]
    return [number(figure.value), interval_text(figure)][: len(headings_of(subject))]


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
    rare = [part for part in expert.parts[RUN] if part.figures and 0 < part.clips < FEW_CLIPS]
    if rare:
        classes = sum(1 for part in expert.parts[RUN] if part.figures)
        facts.append(
            f"{len(rare)} of {classes} classes are in fewer than {FEW_CLIPS} clips: draws have them twice or "
            "not at all, which puts the intervals of their means too high"
        )
    for why, names in expert.without_figures.items():
        more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
        facts.append(f"in no mean, {why}: {'; '.join(names[:MOST_NAMES])}{more}")
    return facts
