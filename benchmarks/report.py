"""The table of docs/performance.md, from every runs/bench/*.json.

The prose around the markers stays, and so do the lines of benchmarks that were not run again.
"""

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT

PAGE = Path("docs/performance.md")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
ORDER = (
    "efficiency",
    "scaling",
    "experts",
    "rivals",
    "padding",
    "invariance",
    "object_store",
    "overhead",
    "scale",
    "scale_manifests",
    "scale_shards",
    "driver_store",
    "feeding",
    "tars",
    "fuzz_audio",
    "shards_s3",
    "share_decode",
    "shards_shuffle",
    "stats_sampling",
    "storage",
    "loader",
    "loader_s3",
    "packing",
    "cost_training",
    "cost_memory",
    "cost_inference",
    "serving",
    "evaluation",
)


def main() -> None:
    found = [json.loads(path.read_text()) for path in sorted(ROOT.glob("*.json"))]
    found = [f for f in found if f.keys() >= {"benchmark", "command", "machine", "figures"}]
    if not found:
        raise SystemExit(f"{ROOT}: no results; run `make bench` first")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    lines = [*lines_of(found), *kept_lines(old, {f["command"] for f in found})]
    lines.sort(key=lambda line: ORDER.index(name) if (name := benchmark_of(line)) in ORDER else len(ORDER))
    table = ["| what | measured | promised | | command |", "|---|---|---|---|---|", *lines, ""]
    page = "\n".join([*described(found[0]["machine"]), "", *table])
    PAGE.write_text(before + BEGIN + "\n\n" + page + "\n" + END + after)
    missed = [figure["claim"] for f in found for figure in f["figures"] if figure["met"] is False]
    print(f"{PAGE}: {sum(len(f['figures']) for f in found)} figures, {len(missed)} below target")
    for claim in missed:
        print(f"  missed: {claim}")


def lines_of(found: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for f in found:
        for x in f["figures"]:
            met = {True: "met", False: "**missed**", None: x["target"] and "machine too busy to say"}[x["met"]]
            value = f"{x['value']}<br>{x['note']}" if x["note"] else x["value"]
            cells = [x["claim"], value, x["target"], met, f"`{f['command']}`"]
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return lines


def kept_lines(old: str, measured: set[str]) -> list[str]:
    """Those of the table as it was whose command was not run again."""
    lines = [line for line in old.splitlines() if line.startswith("|") and benchmark_of(line)]
    return [line for line in lines if not any(line.endswith(f"`{command}` |") for command in measured)]


def benchmark_of(line: str) -> str:
    """By its command, the last cell; empty where there is none."""
    found = re.search(r"`[^`]*-m benchmarks\.(\w+)[^`]*` \|$", line)
    return found[1] if found else ""


def described(machine: dict[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {v}" for name, v in machine["packages"].items())
    return [
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['ram_gb']} GB of memory, {machine['system']}, "
        f"Python {machine['python']}; {packages}."
    ]


if __name__ == "__main__":
    main()
