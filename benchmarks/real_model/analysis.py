"""Whether the block holds what experts hear, and whether answers use it: `python -m benchmarks.real_model.analysis`.

After `study`, of whose runs the first seed that lies in the cache is taken. coat's own commands are the instruments;
each leaves one JSON in results/, with the names of the runs, and is not run again where that is there.

fidelity   C and E on the test's clips, over the training's mean, and over C-listening where it lies in the cache
intervene  C and E: block of another clip, mean, hidden; audio of another clip; by task
pairs      C and E: minimal pairs of the test's sources, each the other's donor of a block, or of audio
probe      pitch, prosody and source, in the student as assembled and aligned; probe-arms: beside each arm in the cache
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.real_model.arms import LEARNING_RATE, LISTENING, ON_CPUS, SEEDS, Run
from benchmarks.real_model.data import CACHE, coat, make_shards
from benchmarks.real_model.study import RESULTS, aligned_student

USED = ("block:other", "block:mean", "block:hidden", "audio:other")
SWAPPED = ("block:other", "audio:other")
POOL = 1000  # rows among which a donor may be: all pairs
ROWS = 700  # that are asked again and again: those of half of the test's clips
LAYERS = "0,10,20,last"  # whose input is probed
PROBED = "pitch,prosody"  # experts whose targets are read off


def said(*arguments: object) -> Any:
    return json.loads(coat(*arguments, "--json", is_read=True))


def finished(arm: str, cache: Path) -> Path | None:
    """Its finished run of the first seed that has one."""
    runs = (cache / "runs" / Run(arm, LEARNING_RATE, seed, "final").name for seed in SEEDS)
    return next((run for run in runs if (run / "student").exists()), None)


def final(arm: str, cache: Path) -> Path:
    if (run := finished(arm, cache)) is not None:
        return run
    raise SystemExit(f"{cache}/runs: no finished run of {arm}; `python -m benchmarks.real_model.study` trains it")


def fidelity(run: Path, floor: Path | None, cache: Path) -> Any:
    """Without a floor over the training's mean alone."""
    make_shards(cache, ["test"])
    over = [] if floor is None else ["--floor-run", floor]
    found = said("fidelity", "--run", run, *over, "--shards", cache / "shards/test")
    kept = ("expert", "kind", "clips", "frames", "figures", "over_floor")
    experts = [{key: expert[key] for key in kept} for expert in found["experts"]]
    return {"run": run.name, "floor": None if floor is None else floor.name, "experts": experts}


def intervene(run: Path, cache: Path) -> Any:
    make_shards(cache, ["asked"])
    return intervened(run, cache, "asked", USED, "--samples", ROWS)


def pairs(run: Path, cache: Path) -> Any:
    """`corpus/pairs-rows.jsonl` is `study`'s."""
    make_shards(cache, ["pairs"])
    return intervened(run, cache, "pairs", SWAPPED, "--donor", "donor", "--pool", POOL)


def intervened(run: Path, cache: Path, shards: str, what: Sequence[str], *options: object) -> Any:
    do = [word for one in what for word in ("--do", one)]
    page = cache / "asked" / f"{shards}-{run.name}.html"  # beside it the rows, from which a killed one goes on
    whom = ["--run", run, "--shards", cache / "shards" / shards, *options, "--by", "task"]
    return {"run": run.name, "lines": said("intervene", *whom, *do, "--out", page)["lines"]}


def probe(runs: Sequence[Path], cache: Path) -> Any:
    """The student as assembled and aligned, and these runs."""
    make_shards(cache, ["test"])
    whom = [word for student in (cache / "student", aligned_student(cache)) for word in ("--student", student)]
    whom += [word for run in runs for word in ("--run", run)]
    found = said(
        "probe", *whom, "--shards", cache / "shards/test", "--experts", PROBED, "--label", "source",
        "--layers", LAYERS, "--cache", cache / "states",
    )  # fmt: skip
    names = [Path(subject["source"]).name for subject in found["subjects"]]
    return {"subjects": names, "targets": found["targets"], "scores": found["scores"]}


ANALYSES: Mapping[str, Callable[[Path], Any]] = {
    "intervene-C": lambda cache: intervene(final("C", cache), cache),
    "intervene-E": lambda cache: intervene(final("E", cache), cache),
    "pairs-C": lambda cache: pairs(final("C", cache), cache),
    "pairs-E": lambda cache: pairs(final("E", cache), cache),
    "probe": lambda cache: probe([], cache),
    "probe-arms": lambda cache: probe([run for arm in ON_CPUS if (run := finished(arm, cache))], cache),
    "fidelity-C": lambda cache: fidelity(final("C", cache), finished(LISTENING, cache), cache),
    "fidelity-E": lambda cache: fidelity(final("E", cache), finished(LISTENING, cache), cache),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ANALYSES, action="append", help="repeat; default: all")
    for name in parser.parse_args().only or ANALYSES:
        file = RESULTS / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(ANALYSES[name](CACHE)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
