"""The table of docs/performance.md, from every runs/bench/*.json; the prose around the markers stays."""

import json
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
    "shards_s3",
    "share_decode",
    "shards_shuffle",
    "stats_sampling",
    "storage",
    "loader",
    "cost_training",
    "cost_memory",
    "cost_inference",
)


def main() -> None:
    found = [json.loads(path.read_text()) for path in sorted(ROOT.glob("*.json"))]
    found = [f for f in found if f.keys() >= {"benchmark", "command", "machine", "figures"}]
    if not found:
        raise SystemExit(f"{ROOT}: no results; run `make bench` first")
    found.sort(key=lambda f: ORDER.index(f["benchmark"]) if f["benchmark"] in ORDER else len(ORDER))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n\n" + page(found) + "\n" + END + after)
    missed = [figure["claim"] for f in found for figure in f["figures"] if figure["met"] is False]
    print(f"{PAGE}: {sum(len(f['figures']) for f in found)} figures, {len(missed)} below target")
    for claim in missed:
        print(f"  missed: {claim}")


def page(found: list[dict[str, Any]]) -> str:
    lines = [*described(found[0]["machine"]), ""]
    lines += ["| what | measured | promised | | command |", "|---|---|---|---|---|"]
    for f in found:
        for x in f["figures"]:
            met = {True: "met", False: "**missed**", None: x["target"] and "machine too busy to say"}[x["met"]]
            value = f"{x['value']}<br>{x['note']}" if x["note"] else x["value"]
            cells = [x["claim"], value, x["target"], met, f"`{f['command']}`"]
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join([*lines, ""])


def described(machine: dict[str, Any]) -> list[str]:
    packages = ", ".join(f"{name} {v}" for name, v in machine["packages"].items())
    return [
        f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['ram_gb']} GB of memory, {machine['system']}, "
        f"Python {machine['python']}; {packages}."
    ]


if __name__ == "__main__":
    main()
