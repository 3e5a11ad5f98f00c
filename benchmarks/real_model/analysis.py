"""Whether the block holds what experts hear, and whether answers use it: `python -m benchmarks.real_model.analysis`.

After `study`, whose runs of the first seed must lie in the cache. coat's own commands are the instruments; each leaves
one JSON in results/ and is not run again where that is there.

fidelity   C and E on the test's clips, over C-listening
intervene  C and E: block of another clip, mean, hidden; audio of another clip; by task
probe      pitch, prosody and source, in the student as assembled, aligned, and after A, C and E
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.real_model.arms import LEARNING_RATE, LISTENING, SEEDS, Run
from benchmarks.real_model.data import CACHE, coat, make_shards
from benchmarks.real_model.study import RESULTS, aligned_student

USED = ("block:other", "block:mean", "block:hidden", "audio:other")
ROWS = 700  # that are asked again and again: those of half of the test's clips
LAYERS = "0,10,20,last"  # whose input is probed


def said(*arguments: object) -> Any:
    return json.loads(coat(*arguments, "--json", is_read=True))


def final(arm: str) -> Path:
    """Its finished run of the first seed."""
    found = CACHE / "runs" / Run(arm, LEARNING_RATE, SEEDS[0], "final").name
    if not (found / "student").exists():
        raise SystemExit(f"{found}: no finished run; `python -m benchmarks.real_model.study` trains it")
    return found


def fidelity(run: Path, floor: Path, cache: Path) -> Any:
    found = said("fidelity", "--run", run, "--floor-run", floor, "--shards", cache / "shards/test")
    kept = ("expert", "kind", "clips", "frames", "figures", "over_floor")
    return [{key: expert[key] for key in kept} for expert in found["experts"]]


def intervene(run: Path, cache: Path) -> Any:
    make_shards(cache, ["asked"])
    do = [word for what in USED for word in ("--do", what)]
    whom = ["--run", run, "--shards", cache / "shards/asked", "--samples", ROWS]
    page = cache / "asked" / f"intervene-{run.name}.html"  # beside it the rows, from which a killed one goes on
    return said("intervene", *whom, "--by", "task", *do, "--out", page)["lines"]


def probe(students: Sequence[Path], runs: Sequence[Path], cache: Path) -> Any:
    whom = [word for student in students for word in ("--student", student)]
    whom += [word for run in runs for word in ("--run", run)]
    found = said(
        "probe", *whom, "--shards", cache / "shards/test", "--experts", "pitch,prosody", "--label", "source",
        "--layers", LAYERS, "--cache", cache / "states",
    )  # fmt: skip
    names = [Path(subject["source"]).name for subject in found["subjects"]]
    return {"subjects": names, "targets": found["targets"], "scores": found["scores"]}


ANALYSES: Mapping[str, Callable[[], Any]] = {
    "intervene-C": lambda: intervene(final("C"), CACHE),
    "intervene-E": lambda: intervene(final("E"), CACHE),
    "probe": lambda: probe([CACHE / "student", aligned_student(CACHE)], [final(arm) for arm in "ACE"], CACHE),
    "fidelity-C": lambda: fidelity(final("C"), final(LISTENING), CACHE),
    "fidelity-E": lambda: fidelity(final("E"), final(LISTENING), CACHE),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ANALYSES, action="append", help="repeat; default: all")
    for name in parser.parse_args().only or ANALYSES:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(ANALYSES[name]()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
