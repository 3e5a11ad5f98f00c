"""The section of the report on designs that might make answers use the block."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.scale_model.arms import ASKED
from benchmarks.scale_model.report_parts import (
    DIFFERENCE,
    NAMES,
    Found,
    difference,
    hits,
    interval,
    percent,
    resampled,
    table,
)
from benchmarks.scale_model.results import Result, mean_accuracy

OTHER = "block: other clip"


def used(found: Found, regime: str) -> list[str]:
    """As the additions of 2026-12-01 to the protocol have it."""
    groups: dict[tuple[int, str, str], list[Result]] = {}
    for result in found.results:
        run = result["run"]
        if (run["regime"], run["what"]) == (regime, "used"):
            groups.setdefault((run["steps"], run["arm"], run["variant"]), []).append(result)
    if not groups:
        return []
    return ["### A block that answers must read", "", *on_validation(groups, regime), *on_test(found, regime)]


def on_validation(groups: Mapping[tuple[int, str, str], Sequence[Result]], regime: str) -> list[str]:
    questions, accuracies, uses = ASKED[regime], [], []
    for (steps, arm, variant), results in sorted(groups.items()):
        ordered = sorted(results, key=lambda r: r["run"]["seed"])
        name = f"{arm}{variant and ', ' + variant.replace('-', ' ')}"
        by_seed = [mean_accuracy(r["validation"], questions) for r in ordered]
        cells = [percent(np.mean([mean_accuracy(r["validation"], [q]) for r in ordered])) for q in questions]
        mean = f"**{percent(np.mean(by_seed))}**; {', '.join(map(percent, by_seed))}"
        accuracies.append([name, str(steps), *cells, mean])
        if OTHER in ordered[0]["causal"]:
            uses.append([name, str(steps), *(use(ordered, q) for q in questions)])
    seeds = ", ".join(sorted({str(r["run"]["seed"]) for results in groups.values() for r in results}))
    return [
        f"On **validation**, seeds {seeds}, all of one machine:", "",
        *table(["design", "steps", *questions, "mean; seeds"], accuracies),
        "Right with its own block; with another clip's; and as the other clip would have it, where the two differ:", "",
        *table(["design", "steps", *questions], uses),
    ]  # fmt: skip


def use(results: Sequence[Result], question: str) -> str:
    parts = (("untouched", "accuracy"), (OTHER, "accuracy"), (OTHER, "donor"))
    return " / ".join(percent(np.mean([r["causal"][of][figure][question] for r in results])) for of, figure in parts)


def on_test(found: Found, regime: str) -> list[str]:
    """The chosen design beside D and E of the same seeds."""
    questions = ASKED[regime]
    designs = [r for r in found.results if (r["run"]["regime"], r["run"]["what"]) == (regime, "design")]
    if not designs:
        return []
    ordered = sorted(designs, key=lambda r: r["run"]["seed"])
    arm, variant = ordered[0]["run"]["arm"], ordered[0]["run"]["variant"].replace("-", " ")
    seeds = {r["run"]["seed"] for r in ordered}
    beside = {a: [r for r in found.of(regime, a, "five") if r["run"]["seed"] in seeds] for a in ("D", "E")}
    rows = []
    for name, results in ((f"{arm}, {variant}", ordered), *((NAMES[a], of) for a, of in beside.items())):
        whole = hits(results, questions)
        cells = [percent(hits(results, [q]).mean()) for q in questions]
        mean = f"**{percent(whole.mean())}** ({interval(resampled([whole])[0])})"
        rows.append([name, *cells, f"{mean}; {', '.join(percent(row.mean()) for row in whole)}"])
    differences = [difference(f"the design - {a}", ordered, of, regime) for a, of in beside.items()]
    uses = [
        [name, *(use(results, q) for q in questions)]
        for name, results in ((f"{arm}, {variant}", ordered), (NAMES["E"], beside["E"]))
    ]
    return [
        f"The design with the best mean there, on the test clips, {len(seeds)} seeds, equal steps:", "",
        *table(["arm", *questions, "mean (95 %); seeds"], rows), *table(DIFFERENCE, differences),
        "Right with its own block; with another clip's; and as the other clip would have it:", "",
        *table(["arm", *questions], uses),
    ]  # fmt: skip
