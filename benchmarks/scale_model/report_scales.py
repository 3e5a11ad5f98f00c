"""The section of the report on scales of the losses."""

from collections.abc import Sequence

import numpy as np

from benchmarks.scale_model.arms import ASKED, BOTH, SCALES
from benchmarks.scale_model.report_parts import NAMES, Found, hits, interval, percent, resampled, table
from benchmarks.scale_model.results import Result, mean_accuracy

VARIANT_NAMES = {"": "none", **{name: name.removeprefix("scale-").replace("-", " ") for name in (*SCALES, *BOTH)}}


def scales(found: Found, regime: str) -> list[str]:
    """The losses on one footing: which scale was chosen on validation, and what it does to the arms that distil."""
    questions = ASKED[regime]
    lines = by_variants("C under scales of its losses", "scale", found.of(regime, "C", "scale"), regime)
    rows = []
    for arm in ("C", "D"):
        for variant, results in by_variant(found.of(regime, arm, "scaled")).items():
            seeds = {r["run"]["seed"] for r in results}
            before = [r for r in found.of(regime, arm, "final") if r["run"]["seed"] in seeds]
            a, b = resampled([hits(results, questions), hits(before, questions)])
            for name, of in (("none", before), (VARIANT_NAMES[variant], results)):
                whole = hits(of, questions)
                cells = [percent(hits(of, [q]).mean()) for q in questions]
                mean = f"**{percent(whole.mean())}** ({interval(resampled([whole])[0])})"
                gain = f"{percent(float((a - b).mean()))} ({interval(a - b)})" if of is results else ""
                rows.append([NAMES[arm], name, *cells, mean, ", ".join(percent(row.mean()) for row in whole), gain])
    if rows:
        head = ["arm", "scale", *questions, "mean (95 %)", "seeds", "points more than none (95 %)"]
        lines += ["The same test clips and seeds under the new scales:", "", *table(head, rows)]
    return lines


def by_variants(text: str, what: str, results: Sequence[Result], regime: str) -> list[str]:
    """What an arm is like with each of some settings, on validation."""
    questions, rows = ASKED[regime], []
    choosing = by_variant(results)
    for variant, of in choosing.items():
        by_seed = [mean_accuracy(r["validation"], questions) for r in of]
        cells = [percent(np.mean([mean_accuracy(r["validation"], [q]) for r in of])) for q in questions]
        mean = f"**{percent(np.mean(by_seed))}**; {', '.join(map(percent, by_seed))}"
        rows.append([VARIANT_NAMES[variant], *cells, mean])
    if not rows:
        return []
    seeds = ", ".join(str(r["run"]["seed"]) for r in next(iter(choosing.values())))
    return [f"{text}, on **validation**, seeds {seeds}:", "", *table([what, *questions, "mean; seeds"], rows)]


def by_variant(results: Sequence[Result]) -> dict[str, list[Result]]:
    """In the order of the names."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["run"]["variant"], []).append(result)
    return {variant: groups[variant] for variant in VARIANT_NAMES if variant in groups}
