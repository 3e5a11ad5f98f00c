"""Tables of `analysis`: what the block holds, what answers use, what probes read off."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale_model.report_parts import percent, table

RUN, MEAN, FLOOR = "run", "training_mean", "without_distillation"  # subjects of fidelity
NAMES = {
    "untouched": "untouched", "block:other": "another clip's block", "block:mean": "the mean block",
    "block:hidden": "block hidden", "audio:other": "another clip's audio",
}  # fmt: skip


def analyses(results: Path) -> list[str]:
    lines: list[str] = []
    for arm in "CE":
        if (found := read(results / f"fidelity-{arm}.json")) is not None:
            lines += fidelity(arm, found)
    for arm in "CE":
        if (found := read(results / f"intervene-{arm}.json")) is not None:
            lines += interventions(arm, found, "clips as they are")
    for arm in "CE":
        if (found := read(results / f"pairs-{arm}.json")) is not None:
            lines += interventions(arm, found, "minimal pairs")
    for name in ("probe", "probe-arms"):
        if (found := read(results / f"{name}.json")) is not None:
            lines += probes(found)
    return lines


def read(file: Path) -> Any:
    return json.loads(file.read_text()) if file.exists() else None


def fidelity(arm: str, found: Mapping[str, Any]) -> list[str]:
    """Beside the best constant, and beside heads that only listen where such a run was at hand."""
    lines = []
    for expert in found["experts"]:
        for measure, figure in expert["figures"][RUN].items():
            cells = [expert["expert"], measure, number(figure), number(expert["figures"][MEAN][measure])]
            if found["floor"] is not None:
                cells += [number(expert["figures"][FLOOR][measure]), number(expert["over_floor"][measure])]
            lines.append(cells)
    head = ["expert", "measure", f"{arm}'s heads", "the training's mean"]
    if found["floor"] is not None:
        head += ["heads that only listen", "difference"]
    said = f"What the block of {arm} holds, on the test's clips ({seed(found['run'])}; `coat fidelity`):"
    return [said, "", *table(head, lines)]


def interventions(arm: str, found: Mapping[str, Any], clips: str) -> list[str]:
    groups = list(dict.fromkeys(line["group"] for line in found["lines"]))
    by_place = {(line["group"], line["intervention"]): line["figures"] for line in found["lines"]}
    lines = []
    for what in dict.fromkeys(line["intervention"] for line in found["lines"]):
        cells = [share(by_place[group, what]) for group in groups]
        lines.append([NAMES.get(what, what), *cells])
    head = ["right, and as the donor's sound would have it", *(group or "all" for group in groups)]
    said = f"What answers of {arm} use: {clips} ({seed(found['run'])}; `coat intervene`), in percent:"
    return [said, "", *table(head, lines)]


def share(figures: Mapping[str, Mapping[str, Any]]) -> str:
    right, donor = figures["accuracy"]["value"], figures["donor"]["value"]
    return percent(right) + (f" / {percent(donor)}" if donor is not None else "")


def probes(found: Mapping[str, Any]) -> list[str]:
    """By layer, for each subject; and behind all layers, what lies between each and the first."""
    layers = sorted({score["layer"] for score in found["scores"]})
    by_place: dict[tuple[str, str], dict[tuple[int, int], Any]] = {}
    for score in found["scores"]:
        of_place = by_place.setdefault((score["target"], score["position"]), {})
        of_place[score["subject"], score["layer"]] = score
    names = [f"{name[0]}, {seed(name)}" if "-seed" in name else name for name in found["subjects"]]
    lines = []
    for (target, place), of in sorted(by_place.items()):
        there = [[of[i, layer] for layer in layers if (i, layer) in of] for i in range(len(names))]  # A has no block
        cells = [" ".join(f"{score['score'][0]:.2f}" for score in scores) for scores in there]
        differences = [signed(scores[-1]["difference"]) if scores else "" for scores in there[1:]]
        lines.append([target, place, *cells, *differences])
    head = ["target", "at", *names, *(f"{name} - {names[0]}, layer {layers[-1]}" for name in names[1:])]
    numbers = ", ".join(map(str, layers))
    said = f"R², or of sources the accuracy, of linear probes on the states before layers {numbers} (`coat probe`):"
    return [said, "", *table(head, lines)]


def signed(difference: Sequence[float] | None) -> str:
    if difference is None:  # the first subject has no such place
        return ""
    value, low, high = difference
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def seed(run: str) -> str:
    """Of a run's name."""
    return run.split("-")[-2].replace("seed", "seed ")


def number(figure: Mapping[str, Any]) -> str:
    if figure["value"] is None:
        return ""
    interval = figure["interval"]
    return f"{figure['value']:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
