"""Whether the block holds what experts hear, and whether answers use it: `python -m benchmarks.real_model.analysis`.

After `study`, whose runs of the first seed must lie in the cache. coat's own commands are the instruments; each leaves
one JSON in results/ and is not run again where that is there.

fidelity   C and E on the test's clips, over C-listening
intervene  C and E: block of another clip, mean, hidden; audio of another clip; by task
probe      pitch, prosody and source, in the student as assembled, aligned, and after A, C and E
"""

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.real_model.arms import LEARNING_RATE, LISTENING, SEEDS, Run
from benchmarks.real_model.data import CACHE, coat, has_shards, join
from benchmarks.real_model.study import RESULTS, aligned_student

ASKED = "asked"  # shards of the test's questions, a sample each
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


def fidelity(arm: str) -> Any:
    floor = final(LISTENING)
    found = said("fidelity", "--run", final(arm), "--floor-run", floor, "--shards", CACHE / "shards/test")
    kept = ("expert", "kind", "clips", "frames", "figures", "over_floor")
    return [{key: expert[key] for key in kept} for expert in found["experts"]]


def intervene(arm: str) -> Any:
    if not has_shards(CACHE, ASKED):
        join(CACHE, "test", ASKED)
    do = [word for what in USED for word in ("--do", what)]
    whom = ["--run", final(arm), "--shards", CACHE / "shards" / ASKED, "--samples", ROWS]
    return said("intervene", *whom, "--by", "task", *do)["lines"]


def probe() -> Any:
    whom = ["--student", CACHE / "student", "--student", aligned_student(CACHE)]
    whom += [word for arm in "ACE" for word in ("--run", final(arm))]
    found = said(
        "probe", *whom, "--shards", CACHE / "shards/test", "--experts", "pitch,prosody", "--label", "source",
        "--layers", LAYERS, "--cache", CACHE / "states",
    )  # fmt: skip
    names = [Path(subject["source"]).name for subject in found["subjects"]]
    return {"subjects": names, "targets": found["targets"], "scores": found["scores"]}


ANALYSES: Mapping[str, Callable[[], Any]] = {
    **{f"fidelity-{arm}": partial(fidelity, arm) for arm in "CE"},
    **{f"intervene-{arm}": partial(intervene, arm) for arm in "CE"},
    "probe": probe,
}


def main() -> int:
    for name, measure in ANALYSES.items():
        file = RESULTS / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(measure()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
