"""The committed results as tables of docs/scale-model.md and a picture: `python -m benchmarks.scale_model.report`.

Intervals are 95 %, by a bootstrap over seeds and clips at once (RESAMPLES draws); differences of arms are taken clip by
clip, since all arms are asked the same. Nothing here is typed in: what the results do not hold is not in the report.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.scale_model.arms import ARMS, ASKED, MINUS, RATES
from benchmarks.scale_model.data import CACHE
from benchmarks.scale_model.probes import PROBED
from benchmarks.scale_model.report_parts import (
    DIFFERENCE,
    NAMES,
    REGIMES,
    Found,
    difference,
    hits,
    interval,
    mean_of,
    percent,
    resampled,
    table,
)
from benchmarks.scale_model.report_scales import by_variants, scales
from benchmarks.scale_model.report_used import used
from benchmarks.scale_model.results import Place, Result, mean_accuracy

PAGE = Path("docs/scale-model.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def page(found: Found, picture: str) -> str:
    """Markdown, by regime; accuracies in percent."""
    lines = [f"![Held-out accuracy by question]({picture})", ""] if picture else []
    for regime, title in REGIMES.items():
        lines += [f"## {title}", ""]
        for section in (teaching, rates, accuracies, differences, clock, minus, causes, probes, tried, costs):
            lines += section(found, regime)
        for section in (scales, both, used):
            lines += section(found, regime)
    return "\n".join(lines)


def teaching(found: Found, regime: str) -> list[str]:
    """What the students of regime `tuned` know when it begins."""
    results = found.of("pretrain", "A", "pretrain")
    if regime != "tuned" or not results:
        return []
    questions, floor = ASKED["pretrain"], results[0]["majority"]["validation"]
    learned = ", ".join(
        f"{q} {percent(np.mean([r['validation'][q].count('1') / len(r['validation'][q]) for r in results]))}"
        f" (majority {percent(floor[q])})"
        for q in questions
    )
    students = {"random": ("before", results), "taught": ("behind", results)}
    for arm in ("C", "D"):
        if distilled := found.of("pretrain", arm, "pretrain"):
            students[f"taught as {NAMES[arm]}"] = ("behind", distilled)
    rows = [
        [name, place, *(f"{np.mean([r['probes'][when][place][what] for r in of]):.2f}" for what in PROBED)]
        for name, (when, of) in students.items()
        for place in ("audio", "response")
    ]
    least = max(loss for r in results for loss in r["least_losses"].values())
    return [
        f"The teaching, {len(results)} seeds, on validation: {learned}. The least cross-entropy that its frozen output",
        f"head leaves possible for an answer that is new: {least:.3f}. Linear probes before and behind:",
        "",
        *table(["student", "states", *PROBED], rows),
    ]


def rates(found: Found, regime: str, arms_shown: Sequence[str] = ARMS) -> list[str]:
    arms = found.arms(regime, "rate", arms_shown)
    if not arms:
        return []
    rows = []
    for arm, results in arms.items():
        by_rate = {r["run"]["lr"]: mean_accuracy(r["validation"], r["run"]["questions"]) for r in results}
        best = max(by_rate, key=lambda lr: (by_rate[lr], -lr))
        cells = {lr: percent(by_rate[lr]) if lr in by_rate else "" for lr in RATES}
        rows.append([NAMES[arm], *(f"**{cell}**" if lr == best else cell for lr, cell in cells.items())])
    return ["Validation, one seed, by rate:", "", *table(["arm", *(f"{lr:g}" for lr in RATES)], rows)]


def accuracies(found: Found, regime: str, what: str = "final", arms_shown: Sequence[str] = ARMS) -> list[str]:
    arms = found.arms(regime, what, arms_shown)
    if not arms:
        return []
    questions = ASKED[regime]
    floor = next(iter(arms.values()))[0]["majority"]["test"]
    rows = [
        [
            "majority answer",
            "",
            *(percent(floor[q]) for q in questions),
            percent(np.mean([floor[q] for q in questions])),
        ]
    ]
    for arm, results in arms.items():
        whole = hits(results, questions)
        by_seed = ", ".join(percent(row.mean()) for row in whole)
        cells = [
            f"{percent(hits(results, [q]).mean())} ({interval(resampled([hits(results, [q])])[0])})" for q in questions
        ]
        rows.append(
            [
                NAMES[arm],
                f"{results[0]['run']['lr']:g}",
                *cells,
                f"**{percent(whole.mean())}** ({interval(resampled([whole])[0])}); {by_seed}",
            ]
        )
    clips = len(next(iter(arms.values()))[0]["test"][questions[0]])
    seeds = len(next(iter(arms.values())))
    return [
        f"Held-out, {clips} clips, {seeds} seeds; equal {'CPU time' if what in ('clock', 'longer') else 'steps'}:", "",
        *table(["arm", "rate", *questions, "mean (95 %); seeds"], rows),
    ]  # fmt: skip


def clock(found: Found, regime: str) -> list[str]:
    """As many steps as C's CPU time allows; C itself is that of equal steps."""
    c, rows = found.of(regime, "C", "final"), []
    for arm, results in found.arms(regime, "clock").items():
        if len(results) == len(c):
            rows.append(difference(f"C - {arm}", c, results, regime))
    return [*accuracies(found, regime, "clock"), *(table(DIFFERENCE, rows) if rows else [])]


def differences(found: Found, regime: str) -> list[str]:
    arms = found.arms(regime, "final")
    rows = [
        difference(f"{one} - {other}", arms[one], arms[other], regime)
        for one, other in (("C", "A"), ("C", "B"), ("D", "C"), ("B", "A"), ("D", "A"))
        if one in arms and other in arms and len(arms[one]) == len(arms[other])
    ]
    return table(DIFFERENCE, rows) if rows else []


def minus(found: Found, regime: str) -> list[str]:
    whole, arms = found.of(regime, "C", "final"), found.arms(regime, "final", MINUS)
    if not whole or not arms:
        return []
    rows = []
    for arm, results in arms.items():
        if len(results) != len(whole):
            continue
        a, b = resampled([hits(results, ASKED[regime]), hits(whole, ASKED[regime])])
        cells = [percent(hits(results, [q]).mean() - hits(whole, [q]).mean()) for q in ASKED[regime]]
        rows.append([arm.replace("C-", "C without "), *cells, f"{percent(float((a - b).mean()))} ({interval(a - b)})"])
    head = ["arm", *ASKED[regime], "mean (95 %)"]
    return ["Without one expert, points against C:", "", *table(head, rows)] if rows else []


def causes(found: Found, regime: str, what: str = "final", arms_shown: Sequence[str] = ARMS) -> list[str]:
    rows = []
    for arm, results in found.arms(regime, what, arms_shown).items():
        parts = [r["causal"] for r in results if "causal" in r]
        for name in parts[0] if parts else ():
            means = {key: mean_of(parts, name, key) for key in ("accuracy", "changed", "donor", "shift")}
            rows.append([NAMES[arm], name, *(percent(v) if v is not None else "" for v in means.values())])
    head = [
        "arm",
        "states replaced",
        "accuracy",
        "answers that change",
        "the donor's answer",
        "shift of the states behind them",
    ]
    text = "Hidden states replaced at the input of every layer, by those of an undisturbed pass:"
    return [text, "", *table(head, rows), *swapped(found, regime, what, arms_shown)] if rows else []


def swapped(found: Found, regime: str, what: str = "final", arms_shown: Sequence[str] = ARMS) -> list[str]:
    """Question by question, what the block of another clip does."""
    rows = []
    for arm, results in found.arms(regime, what, arms_shown).items():
        parts = [r["causal"] for r in results if "block: other clip" in r["causal"]]
        if parts:
            for name, key, figure in (
                ("own block", "untouched", "accuracy"),
                ("another clip's block", "block: other clip", "accuracy"),
                ("... and gives its answer", "block: other clip", "donor"),
            ):
                cells = [percent(np.mean([p[key][figure][q] for p in parts])) for q in ASKED[regime]]
                rows.append([NAMES[arm], name, *cells])
    return ["The same by question:", "", *table(["arm", "", *ASKED[regime]], rows)] if rows else []


def probes(found: Found, regime: str, what: str = "final", arms_shown: Sequence[str] = ARMS) -> list[str]:
    rows = []
    for arm, results in found.arms(regime, what, arms_shown).items():
        parts = [r["probes"] for r in results if "probes" in r]
        for place in parts[0] if parts else ():
            cells = [f"{np.mean([p[place][w] for p in parts]):.2f}" for w in parts[0][place]]
            rows.append([NAMES[arm], place, *cells])
    text = "Linear probes of what was not asked for: R² of log2 f0, else accuracy:"
    return [text, "", *table(["arm", "states", *PROBED], rows)] if rows else []


def tried(found: Found, regime: str) -> list[str]:
    """Beside the protocol, on validation: runs of `why`, and what they are read against."""
    groups: dict[str, list[Result]] = {}
    for r in found.results:
        run = r["run"]
        if run["regime"] == regime and run["what"] == "why":
            also = f"{run['steps']} steps" if regime == "scratch" and not run["variant"] else run["variant"]
            also = f"student taught as {run['taught']}" if run["taught"] != "A" else also.replace("-", " ")
            groups.setdefault(f"{run['arm']}, {also}", []).append(r)
    if not groups:
        return []
    arms = sorted({name[0] for name in groups})
    every = {f"{arm} as above": found.of(regime, arm, "final") for arm in arms} | groups
    rows = []
    for name, results in every.items():
        by_seed = [mean_accuracy(r["validation"], ASKED[regime]) for r in results]
        cells = [percent(np.mean([mean_accuracy(r["validation"], [q]) for r in results])) for q in ASKED[regime]]
        rows.append([name, *cells, f"**{percent(np.mean(by_seed))}**; {', '.join(map(percent, by_seed))}"])
    text = "Tried to find out why, beside the protocol, on **validation**:"
    return [text, "", *table(["run", *ASKED[regime], "mean; seeds"], rows)]


def both(found: Found, regime: str) -> list[str]:
    """Arm E beside C and D, as the addition of 2026-11-30 has it."""
    arms = ("C", "D", "E")
    five, longer = (found.arms(regime, what, arms) for what in ("five", "longer"))
    if len({len(results) for results in five.values()}) != 1:  # none yet, or not all of them
        return []
    rows = [difference(f"{a} - {b}", five[a], five[b], regime) for a, b in (("E", "C"), ("E", "D"), ("D", "C"))]
    seeds = {arm: [r["run"]["seed"] for r in results] for arm, results in longer.items()}
    beside = {arm: [r for r in five["E"] if r["run"]["seed"] in of] for arm, of in seeds.items()}
    slower = [difference(f"E - {arm}", beside[arm], longer[arm], regime) for arm in longer]
    tried_with = by_variants("E with other weights of its losses", "weights", found.of(regime, "E", "both"), regime)
    return [
        "### Arm E: both", "",
        *rates(found, regime, ("E",)),
        *accuracies(found, regime, "five", arms), *table(DIFFERENCE, rows),
        *accuracies(found, regime, "longer", arms), *(table(DIFFERENCE, slower) if slower else []),
        *causes(found, regime, "five", arms), *probes(found, regime, "five", arms), *tried_with,
    ]  # fmt: skip


def costs(found: Found, regime: str) -> list[str]:
    rows = []
    for arm, results in found.arms(regime, "final").items():
        p, steps = results[0]["parameters"], results[0]["run"]["steps"]
        cpu = float(np.median([r["seconds"]["cpu"] for r in results]))
        rows.append([NAMES[arm], *(f"{p[k]:,}" for k in ("student", "trained", "heads")), str(steps), f"{cpu:.0f}"])
    head = ["arm", "student", "trained of it", "heads", "steps", "CPU seconds"]
    return ["Parameters, and what a run costs (one thread):", "", *table(head, rows)] if rows else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Place(CACHE).results)
    parser.add_argument("--out", type=Path, default=PAGE, help="a page with the two marks; what is between is replaced")
    arguments = parser.parse_args()
    from benchmarks.scale_model.picture import draw

    found, file = Found(Place(CACHE, arguments.results).all()), arguments.out.with_suffix(".svg")
    before, _, rest = arguments.out.read_text().partition(BEGIN)
    lines = page(found, file.name if draw(found, file) else "")
    arguments.out.write_text(f"{before}{BEGIN}\n\n{lines}\n{END}{rest.partition(END)[2]}")
    print(arguments.out)


if __name__ == "__main__":
    main()
