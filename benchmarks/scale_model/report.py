"""The committed results as docs/scale-model.md and a picture: `python -m benchmarks.scale_model.report`.

Intervals are 95 %, by a bootstrap over seeds and clips at once (RESAMPLES draws); differences of arms are taken clip by
clip, since all arms are asked the same. Nothing here is typed in: what the results do not hold is not in the report.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.scale_model.arms import ARMS, ASKED, MINUS, RATES
from benchmarks.scale_model.data import CACHE
from benchmarks.scale_model.results import Place, Result, mean_accuracy

PAGE = Path("docs/scale-model.md")
RESAMPLES = 2000
NAMES = {"A": "A plain SFT", "B": "B block alone", "C": "C CoAT", "D": "D distilled at the audio"}
REGIMES = {"scratch": "From scratch", "tuned": "A student that was taught other questions first, frozen, with LoRA"}
Hits = NDArray[np.float64]  # [seeds, clips], mean over questions


def hits(results: Sequence[Result], questions: Iterable[str]) -> Hits:
    """Of the test clips, a row a seed."""
    return np.array([[[int(c) for c in r["test"][q]] for q in questions] for r in results], float).mean(1)


def resampled(parts: Sequence[Hits]) -> list[NDArray[np.float64]]:
    """Means of `parts`, which have the same clips and seeds, in RESAMPLES draws of both."""
    rng, (seeds, clips) = np.random.default_rng(0), parts[0].shape
    draws: list[list[float]] = []
    for _ in range(RESAMPLES):
        s, c = rng.integers(seeds, size=seeds), rng.integers(clips, size=clips)
        draws.append([part[np.ix_(s, c)].mean() for part in parts])
    return list(np.array(draws).T)


def interval(values: NDArray[np.float64]) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{100 * low:.1f} to {100 * high:.1f}"


def percent(value: float | np.floating[Any]) -> str:
    return f"{100 * value:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)] + [""]


class Found:
    """The results by regime, arm and what they are for."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = results

    def of(self, regime: str, arm: str, what: str) -> list[Result]:
        found = [
            r for r in self.results if (r["run"]["regime"], r["run"]["arm"], r["run"]["what"]) == (regime, arm, what)
        ]
        return sorted(found, key=lambda r: (r["run"]["seed"], r["run"]["lr"]))

    def arms(self, regime: str, what: str, arms: Sequence[str] = ARMS) -> dict[str, list[Result]]:
        return {arm: self.of(regime, arm, what) for arm in arms if self.of(regime, arm, what)}


def page(found: Found, picture: str) -> str:
    lines = ["# Proof at the scale of this machine", ""]
    lines += [
        "Made by `python -m benchmarks.scale_model.report` of benchmarks/scale_model/results/, as PROTOCOL.md there",
        "",
    ]
    lines[-2] += " fixed it before the first number. Accuracies in percent."
    for regime, title in REGIMES.items():
        lines += [f"## {title}", ""]
        for section in (rates, accuracies, differences, clock, minus, causes, probes, costs):
            lines += section(found, regime)
    if picture:
        lines += [f"![Held-out accuracy by question]({picture})", ""]
    return "\n".join(lines)


def rates(found: Found, regime: str) -> list[str]:
    arms = found.arms(regime, "rate")
    if not arms:
        return []
    rows = []
    for arm, results in arms.items():
        by_rate = {r["run"]["lr"]: mean_accuracy(r["validation"], r["run"]["questions"]) for r in results}
        best = max(by_rate.values())
        cells = [percent(by_rate[lr]) if lr in by_rate else "" for lr in RATES]
        rows.append([NAMES[arm], *(f"**{c}**" if c == percent(best) else c for c in cells)])
    return ["Validation, one seed, by rate:", "", *table(["arm", *(f"{lr:g}" for lr in RATES)], rows)]


def accuracies(found: Found, regime: str, what: str = "final") -> list[str]:
    arms = found.arms(regime, what)
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
        f"Held-out, {clips} clips, {seeds} seeds; equal {'steps' if what == 'final' else 'CPU time'}:", "",
        *table(["arm", "rate", *questions, "mean (95 %); seeds"], rows),
    ]  # fmt: skip


def clock(found: Found, regime: str) -> list[str]:
    return accuracies(found, regime, "clock")


def differences(found: Found, regime: str) -> list[str]:
    arms = found.arms(regime, "final")
    rows = []
    for one, other in (("C", "A"), ("C", "B"), ("D", "C"), ("B", "A"), ("D", "A")):
        if one in arms and other in arms and len(arms[one]) == len(arms[other]):
            a, b = resampled([hits(arms[one], ASKED[regime]), hits(arms[other], ASKED[regime])])
            rows.append([f"{one} - {other}", percent(float((a - b).mean())), interval(a - b)])
    return table(["difference", "points", "95 %"], rows) if rows else []


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
    return ["Without one expert, points against C:", "", *table(["arm", *ASKED[regime], "mean (95 %)"], rows)]


def causes(found: Found, regime: str) -> list[str]:
    rows = []
    for arm, results in found.arms(regime, "final").items():
        parts = [r["causal"] for r in results if "causal" in r]
        for name in parts[0] if parts else ():
            means = {what: mean_of(parts, name, what) for what in ("accuracy", "changed", "donor", "shift")}
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
    return [text, "", *table(head, rows)] if rows else []


def mean_of(parts: Sequence[Mapping[str, Any]], name: str, what: str) -> float | None:
    values = [value for part in parts for value in part[name].get(what, {}).values()]
    return float(np.mean(values)) if values else None


def probes(found: Found, regime: str) -> list[str]:
    rows = []
    for arm, results in found.arms(regime, "final").items():
        parts = [r["probes"] for r in results if "probes" in r]
        for place in parts[0] if parts else ():
            cells = [f"{np.mean([p[place][w] for p in parts]):.2f}" for w in parts[0][place]]
            rows.append([NAMES[arm], place, *cells])
    text = "Linear probes of what was not asked for: R² of log2 f0, else accuracy:"
    return [text, "", *table(["arm", "states", "f0", "event", "vowel", "mood"], rows)] if rows else []


def costs(found: Found, regime: str) -> list[str]:
    rows = []
    for arm, results in found.arms(regime, "final").items():
        p, steps = results[0]["parameters"], results[0]["run"]["steps"]
        cpu = float(np.median([r["seconds"]["cpu"] for r in results]))
        rows.append([NAMES[arm], *(f"{p[k]:,}" for k in ("student", "trained", "heads")), str(steps), f"{cpu:.0f}"])
    head = ["arm", "student", "trained of it", "heads", "steps", "CPU seconds"]
    return ["Parameters, and what a run costs (one thread):", "", *table(head, rows)] if rows else []


def draw(found: Found, file: Path) -> bool:
    """Accuracy by question, with intervals; the line is the majority answer. False where there is nothing yet."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [regime for regime in REGIMES if found.arms(regime, "final")]
    if not shown:
        return False
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5.5 * len(shown), 3.6), squeeze=False, width_ratios=[
        len(ASKED[regime]) + 1 for regime in shown
    ])  # fmt: skip
    for axis, regime in zip(axes[0], shown, strict=True):
        arms, groups = found.arms(regime, "final"), [*([q] for q in ASKED[regime]), list(ASKED[regime])]
        width = 0.8 / len(arms)
        for i, (arm, results) in enumerate(arms.items()):
            values = [hits(results, g) for g in groups]
            means = np.array([v.mean() for v in values])
            ends = np.array([np.percentile(resampled([v])[0], [2.5, 97.5]) for v in values])
            bars = np.abs(ends.T - means)
            axis.bar(np.arange(len(groups)) + i * width - 0.4 + width / 2, means, width, yerr=bars, label=NAMES[arm],
                     error_kw={"elinewidth": 0.8})  # fmt: skip
        floor = next(iter(arms.values()))[0]["majority"]["test"]
        for g, group in enumerate(groups):
            axis.hlines(np.mean([floor[q] for q in group]), g - 0.45, g + 0.45, color="black", linewidth=1)
        axis.set_xticks(range(len(groups)), [*ASKED[regime], "mean"], fontsize=8)
        axis.set_ylim(0, 1)
        axis.set_title(REGIMES[regime], fontsize=9)
    axes[0][0].set_ylabel("held-out accuracy")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Place(CACHE).results)
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    found = Found(Place(CACHE, given.results).all())
    file = given.out.with_suffix(".svg")
    given.out.write_text(page(found, file.name if draw(found, file) else ""))
    print(given.out)


if __name__ == "__main__":
    main()
