"""Memory for many rows: `coat extract`'s plan, `build-shards`' with ten experts, `add-expert`, `manifest import`.

    python -m benchmarks.scale_shards --rows 1000000 5000000 10000000 --folder /tmp/scale --keep
    python -m benchmarks.scale_shards --rows 1000000 5000000 10000000 --folder /tmp/scale --keep --parts add-expert

Of each a fresh process, whose anonymous memory is looked at all the time: mapped temporary files are not in it, which
the kernel drops from memory as it likes. What it would be for 50 million rows follows from the last two sizes. With
`--keep` manifests and stores stay, and are used again. 10 million rows take 8 GB of disk, and the plans as much under
TMPDIR. `extract` is planned twice: a new store, and one in which 98 % of the units are committed.
"""

import argparse
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale import EXPERT, run

EXPERTS = 10
LOOK_S = 0.02
TAKEN = 20_000  # samples that are made objects of, in the order of the shuffle
WANTED = 50_000_000  # rows
LIMIT_GB = 8.0
MADE = "made"  # a file that says that all is there
PARTS = {
    "extract": "plan of `extract`, of a new store",
    "resume": "plan of `extract`, of a store with 98 %",
    "plan": f"plan of `build-shards`, {EXPERTS} experts",
    "add-expert": "whole of `add-expert`, tars apart",
    "import": "`manifest import`",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/scale_shards"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", action="store_true", help="leave what was made, and use what is there")
    arguments = parser.parse_args()
    measured = [measure(arguments.folder / str(rows), rows, arguments.parts, arguments.keep) for rows in arguments.rows]
    save(measured, arguments.parts)


def save(measured: list[dict[str, Any]], parts: list[str]) -> None:
    from benchmarks.common import Figure, Results

    found = Results("scale_shards", data={"results": measured})
    sizes = ", ".join(f"{m['rows'] / 1e6:g}" for m in measured)
    for part in parts:
        what = PARTS[part]
        peaks = [m[part]["anonymous_mb"] for m in measured]
        expected = at_wanted(measured, peaks)
        shown = ", ".join(f"{peak:.0f}" for peak in peaks)
        found.add(
            Figure(
                f"Memory of the {what}, for 50 million rows",
                f"{expected:.1f} GB",
                f"< {LIMIT_GB:g} GB",
                expected < LIMIT_GB,
                f"{shown} MB at {sizes} million; a line through the last two",
            )
        )
    found.save()


def at_wanted(measured: list[dict[str, Any]], peaks: list[float]) -> float:
    """GB."""
    (x0, x1), (y0, y1) = [m["rows"] for m in measured[-2:]], peaks[-2:]
    return (y1 + (y1 - y0) / (x1 - x0) * (WANTED - x1)) / 1000


def measure(place: Path, rows: int, parts: list[str], keep: bool) -> dict[str, Any]:
    if not keep or not (place / MADE).exists():
        making, _ = run(["-m", "benchmarks.scale_store", "make", str(place), str(rows)])
        print(f"{rows} rows made in {making['seconds']:.0f} s", file=sys.stderr)
        run(["-m", "benchmarks.scale_shards", "make", str(place)])
    result: dict[str, Any] = {"rows": rows}
    for part in parts:
        cost, found = run(["-m", "benchmarks.scale_shards", part, str(place)])
        result[part] = cost | found
        print(json.dumps({"rows": rows, part: result[part]}), flush=True)
    if not keep:
        shutil.rmtree(place)
    return result


def make(place: Path) -> dict[str, Any]:
    """Beside the manifest and its store: a shard set, and more experts."""
    from benchmarks.scale_sidecar import save_some_statistics, write_shard_set
    from coat.pipeline.store.target_store import TargetStore

    (targets,) = TargetStore(str(place / "store")).target_sets()
    save_some_statistics(targets)
    write_shard_set(place, place / "shards")
    add_experts(place / "store")
    (place / MADE).touch()
    return {}


def add_experts(store: Path) -> None:
    """As many as EXPERTS, of which nine share the units of the first."""
    from coat.manifests import storage
    from coat.pipeline.store.target_set import TargetSet
    from coat.pipeline.store.target_store import TargetStore

    (first,) = TargetStore(str(store)).target_sets()
    for number in range(1, EXPERTS):
        spec = type(first.spec).from_dict({**first.spec.to_dict(), "expert": f"e{number}"}, "")
        folder = Path(TargetSet(TargetStore(str(store)).set_url(spec), spec).url)
        folder.mkdir(parents=True)
        (folder / "spec.json").write_bytes(storage.to_json(spec.to_dict()))
        (folder / "units").symlink_to(Path(first.url, "units").absolute())


def plan(place: Path) -> dict[str, Any]:
    from coat.manifests.corpus.manifest import Manifest
    from coat.pipeline.shards.build import open_target_sets
    from coat.pipeline.shards.plan import plan_shards
    from coat.pipeline.shards.recipe import Recipe

    names = sorted(p.name for p in (place / "store").iterdir())
    sets = open_target_sets(str(place / "store"), names)
    manifest = str(place / "manifest.jsonl")
    recipe = Recipe(manifests=(manifest,), store=str(place / "store"), experts=tuple(names), missing="skip")
    made = plan_shards([Manifest.read(manifest, on_disk=True)], sets, recipe)
    started = time.perf_counter()
    for first in range(0, min(TAKEN, len(made)), 4096):
        made.samples(first, min(first + 4096, len(made)))
    took = time.perf_counter() - started
    return {"samples": len(made), "us_per_sample": round(took / min(TAKEN, len(made)) * 1e6)}


def plan_new(place: Path) -> dict[str, Any]:
    """What `extract` does until its first unit begins."""
    from benchmarks.scale_store import Options, create, make_plan, read_spans

    made = make_plan(read_spans(place), create(EXPERT, Options()).spec)
    return {"units": len(made.units), "first": made.units[-1].name}


def plan_resumed(place: Path) -> dict[str, Any]:
    from benchmarks.scale_store import resume

    return resume(place)


def add_expert(place: Path) -> dict[str, Any]:
    from benchmarks import scale_sidecar

    shutil.rmtree(place / "shards" / "sidecars", ignore_errors=True)
    return scale_sidecar.add_expert(place)


def import_again(place: Path) -> dict[str, Any]:
    from coat.manifests.sources.importing import import_manifest

    done = import_manifest(str(place / "manifest.jsonl"), str(place / "out.jsonl"), read_headers=False)
    os.unlink(place / "out.jsonl")
    return {"imported": done.rows}


@contextmanager
def anonymous_peak() -> Iterator[list[float]]:
    """A list whose one value is MB of this process."""
    peak, ended = [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]) * 1024 / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    tasks = {"make": make, "extract": plan_new, "resume": plan_resumed, "plan": plan, "import": import_again}
    tasks["add-expert"] = add_expert
    if len(sys.argv) == 3 and sys.argv[1] in tasks:
        with anonymous_peak() as peak:
            result = tasks[sys.argv[1]](Path(sys.argv[2]))
        print(json.dumps({**result, "anonymous_mb": float(np.round(peak[0], 1))}))
    else:
        main()
