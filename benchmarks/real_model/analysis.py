"""Whether the block holds what experts hear, and whether answers use it: `python -m benchmarks.real_model.analysis`.

After `study`, whose runs of the first seed must lie in the cache. coat's own commands are the instruments; each leaves
one JSON in results/ and is not run again where that is there.

fidelity   C and E on the test's clips, over C-listening
intervene  C and E: block of another clip, mean, hidden; audio of another clip; by task
probe      pitch, prosody and source, in the student as assembled, aligned, and after A, C and E
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.real_model.arms import EXPERTS, LISTENING, RATE, SEEDS, TARGET_HZ, Run
from benchmarks.real_model.data import CACHE, coat, rows_file
from benchmarks.real_model.study import RESULTS, aligned_student

USED = ("block:other", "block:mean", "block:hidden", "audio:other")
ROWS = 700  # that are asked again and again: those of half of the test's clips
LAYERS = "0,10,20,last"  # whose input is probed


def said(*arguments: object) -> Any:
    """What one of coat's commands says with --json. SystemExit where it fails."""
    command = [sys.executable, "-m", "coat", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"coat {' '.join(map(str, arguments))}: exit code {done.returncode}")
    return json.loads(done.stdout)


def final(arm: str) -> Path:
    return folder(Run(arm, RATE, SEEDS[0], "final"))


def folder(run: Run) -> Path:
    found = CACHE / "runs" / run.name
    if not (found / "student").exists():
        raise SystemExit(f"{found}: no finished run; `python -m benchmarks.real_model.study` trains it")
    return found


def fidelity(arm: str) -> Any:
    floor = folder(Run(LISTENING, RATE, SEEDS[0], "listening"))
    found = said("fidelity", "--run", final(arm), "--floor-run", floor, "--shards", CACHE / "shards/test")
    kept = ("expert", "kind", "clips", "frames", "figures", "over_floor")
    return [{key: expert[key] for key in kept} for expert in found["experts"]]


def intervene(arm: str) -> Any:
    do = [word for what in USED for word in ("--do", what)]
    whom = ["--run", final(arm), "--shards", asked_shards(), "--samples", ROWS]
    return said("intervene", *whom, "--by", "task", *do)["lines"]


def asked_shards() -> Path:
    """The test's questions, a sample each."""
    out = CACHE / "shards/asked"
    if not (out / "index.json").exists():
        join = [
            "build-shards",
            "--store",
            CACHE / "targets",
            "--experts",
            ",".join(EXPERTS),
            "--rate",
            f"{TARGET_HZ:g}",
        ]
        coat(*join, "--manifest", rows_file(CACHE, "test"), "--out", out)
    return out


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
            found = measure()
            file.write_text(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
