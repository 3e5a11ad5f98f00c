"""The committed results as tables of docs/real-model.md: `python -m benchmarks.real_model.report`.

Nothing here is typed in: what the results do not hold is not in the report.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_model.arms import ALIGNMENT, ARMS, STEPS
from benchmarks.real_model.asked import Asked, Result, accuracy
from benchmarks.real_model.clips import TASKS
from benchmarks.real_model.picture import draw
from benchmarks.real_model.report_analyses import analyses
from benchmarks.real_model.step_costs import FILE as STEP_COSTS
from benchmarks.real_model.study import RESULTS, dtype_of, mean_accuracy, read
from benchmarks.scale_model.report_parts import interval, percent, table

PAGE = Path("docs/real-model.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
PICTURE = "real-model.svg"  # beside the page


def page(results: Sequence[Result], arms: Mapping[str, Sequence[Result]], asked: Asked, rows: Mapping[str, Any]) -> str:
    lines = accuracies(asked, arms, rows) + differences(asked, arms) + alignment(rows) + tried(results)
    return "\n".join(lines + analyses(RESULTS) + step_costs(RESULTS / STEP_COSTS))


def by_arm(results: Sequence[Result]) -> dict[str, list[Result]]:
    found = {a: [r for r in results if r["run"]["arm"] == a and r["run"]["what"] == "final"] for a in ARMS}
    return {arm: sorted(of, key=lambda r: r["run"]["seed"]) for arm, of in found.items() if of}


def alignment(rows: Mapping[str, Any]) -> list[str]:
    aligned = read(ALIGNMENT)
    if aligned is None:
        return []
    hits = aligned["hits"]
    kept = ", ".join(f"{task} {percent(mean_accuracy({task: of}))}" for task, of in hits["kept"].items())
    cells = [percent(mean_accuracy({task: hits["test"][task]})) for task in TASKS]
    return [
        f"After its alignment, on sources that it has not heard: {kept} %. What it says to the eight tasks:",
        "", *table(["", *TASKS, "mean"], [["aligned", *cells, percent(mean_accuracy(hits["test"]))], floors(rows)]),
    ]  # fmt: skip


def floors(rows: Mapping[str, Any]) -> list[str]:
    """The training's most frequent answer, on the test."""
    values = [rows["majority"][task] for task in TASKS]
    return ["majority answer", *map(percent, values), percent(float(np.mean(values)))]


def tried(results: Sequence[Result]) -> list[str]:
    """The runs that were to choose a rate: PROTOCOL.md, additions."""
    lines = [
        [
            f"{r['run']['arm']}, {r['run']['lr']:g}",
            percent(mean_accuracy(r["hits"]["validation"])),
            f"{r['log'][-1]['ce']:.2f}",
        ]
        for r in results
        if r["run"]["what"] == "rate"
    ]
    head = ["arm, rate", "validation", "cross-entropy"]
    return ["100 steps were to choose a rate:", "", *table(head, lines)] if lines else []


def accuracies(asked: Asked, arms: Mapping[str, Sequence[Result]], rows: Mapping[str, Any]) -> list[str]:
    if not arms:
        return []
    lines = [[*floors(rows), ""]]
    for arm, results in arms.items():
        cells = [
            f"{percent(accuracy(results, tasks))} ({interval(asked.drawn(results, tasks))})"
            for tasks in (*([t] for t in TASKS), TASKS)
        ]
        seeds = ", ".join(percent(accuracy([r], TASKS)) for r in results)
        kept = ", ".join(f"{t} {percent(accuracy(results, [t], 'kept'))}" for t in results[0]["hits"]["kept"])
        lines.append([f"{arm} {ARMS[arm]}", *cells[:-1], f"**{cells[-1]}**; {seeds}", kept])
    return [
        f"![Accuracy on unheard sources]({PICTURE})",
        "",
        f"Test, sources that no training has, {STEPS['final']:,} steps:",
        "",
        *table(["arm", *TASKS, "mean; seeds", "kept"], lines),
        *other_dtypes(arms),
    ]


def other_dtypes(arms: Mapping[str, Sequence[Result]]) -> list[str]:
    """Which runs are not in bfloat16: what is between arms of a seed may then be the dtype's, too."""
    found = [
        f"{arm}, seed {result['run']['seed']}: {dtype_of(result['run'])}"
        for arm, results in arms.items()
        for result in results
        if dtype_of(result["run"]) != "bfloat16"
    ]
    return [f"All in bfloat16, but {'; '.join(found)}.", ""] if found else []


def differences(asked: Asked, arms: Mapping[str, Sequence[Result]]) -> list[str]:
    """In points, by task, over the seeds that both arms have."""
    lines = []
    for one, other in [(a, b) for b in "ADC" for a in arms if b in arms and a > b]:
        seeds = seeds_of(arms[one]) & seeds_of(arms[other])
        if not seeds:
            continue
        ones, others = ([r for r in arms[arm] if r["run"]["seed"] in seeds] for arm in (one, other))
        cells = []
        for tasks in (*([t] for t in TASKS), TASKS):
            drawn = asked.drawn(ones, tasks) - asked.drawn(others, tasks)
            points = accuracy(ones, tasks) - accuracy(others, tasks)
            cells.append(f"{percent(points)} ({interval(drawn)})")
        lines.append([f"{one} - {other}", ", ".join(map(str, sorted(seeds))), *cells[:-1], f"**{cells[-1]}**"])
    head = ["points between arms", "seeds", *TASKS, "mean"]
    return table(head, lines) if lines else []


def step_costs(file: Path) -> list[str]:
    if not file.exists():
        return []
    found = json.loads(file.read_text())
    shares = ("products", "attention", "tower", "padding")
    lines = [
        [
            line["arm"],
            line["kernel"],
            f"{line['median']:.2f}",
            f"{line['positions']:.0f}",
            *(percent(line[s]) for s in shares),
        ]
        for line in found["lines"]
    ]
    head = ["arm", "attention by", "s a step", "positions a clip", *(f"{share}, %" for share in shares)]
    return [
        f"What a step of {found['clips']} clips costs, in turns, {found['threads']} threads, {dtype_of(found)} "
        "(`step_costs`):",
        "",
        *table(head, lines),
    ]


def seeds_of(results: Sequence[Result]) -> set[int]:
    return {result["run"]["seed"] for result in results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=PAGE, help="whose figures are written anew")
    arguments = parser.parse_args()
    results = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*-seed*.json"))]
    rows = json.loads((RESULTS / "rows.json").read_text())
    asked, arms = Asked(rows["test"]), by_arm(results)
    if arms:
        draw(asked, arms, rows["majority"], arguments.page.with_name(PICTURE))
    text = arguments.page.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    arguments.page.write_text(f"{before}\n\n{page(results, arms, asked, rows)}\n{after}")


if __name__ == "__main__":
    main()
