"""Planning at scale: `coat plan`, what `coat extract` does before its first unit, and `coat status`.

    python -m benchmarks.scale --rows 500000 1000000 5000000 --folder /tmp/scale

Makes, for each number of rows, a manifest with texts and a store of the `mel` expert in which 98 % of the
units are committed (see scale_store.py), runs the three in a fresh process each, checks that they find
what is left, and prints JSON: seconds, CPU seconds, peak resident MB, and their ratios to the first number of rows.
Exit code 1 where a limit of LIMITS is broken.

Imports nothing large: Linux counts the memory of a parent as its child's until the child has begun.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

EXPERT = "mel"
LIMITS = {"seconds": 120.0, "peak_mb": 2000.0}
PARTS = ("plan", "resume", "status")
COSTS = ("seconds", "cpu_seconds", "peak_mb")  # the second stays the same on a busy machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 1_000_000, 5_000_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/scale"))
    parser.add_argument("--keep", action="store_true", help="leave the manifests and stores there")
    arguments = parser.parse_args()
    results = [measure(arguments.folder, rows, arguments.keep) for rows in arguments.rows]
    for result in results:
        result["ratio"] = {
            what: {key: round(result[what][key] / results[0][what][key], 2) for key in COSTS} for what in PARTS
        }
    for result in results:
        print(json.dumps(result))
    save(results)
    broken = [r for r in results if r["seconds"] > LIMITS["seconds"] or r["peak_mb"] > LIMITS["peak_mb"]]
    sys.exit(1 if broken else 0)


def save(results: list[dict[str, Any]]) -> None:
    """The figures for the table, of the largest number of rows."""
    from benchmarks.common import Figure, Results

    found, most = Results("scale", data={"results": results}), results[-1]
    millions = f"{most['rows'] / 1e6:g} million rows"
    of = f"plan, resume and status of {millions}, {most['rows_to_do']:,} to do, {most['committed_units']:,} units"
    found.add(Figure(f"Seconds: {of}", f"{most['seconds']:.0f} s", "< 120 s", most["seconds"] < LIMITS["seconds"]))
    peak = max(r["peak_mb"] for r in results)
    found.add(Figure("Largest memory of the three", f"{peak:.0f} MB", "< 2000 MB", peak < LIMITS["peak_mb"]))
    costs = ", ".join(f"{r['cpu_seconds'] / r['rows'] * 1e6:.1f}" for r in results)
    sizes = ", ".join(f"{r['rows'] / 1e6:g}" for r in results)
    found.add(Figure(f"CPU seconds per million rows, of {sizes} million", costs, note="start of Python included"))
    units = ", ".join(f"{r['handed_out']['ms_per_unit']:.1f}" for r in results)
    found.add(Figure(f"Milliseconds to hand out a unit, of {sizes} million rows", units, note="alike: constant work"))
    found.save()


def measure(folder: Path, rows: int, keep: bool) -> dict[str, Any]:
    """`seconds` of the three together, `peak_mb` of the largest."""
    place = folder / str(rows)
    making, left = run(["-m", "benchmarks.scale_store", "make", str(place), str(rows)])
    manifest, store = str(place / "manifest.jsonl"), str(place / "store")
    print(f"{rows} rows made in {making['seconds']:.0f} s", file=sys.stderr)
    expert = ["--expert", EXPERT, "--manifest", manifest, "--store", store]
    plan, found = run(["-m", "coat", "plan", *expert, "--json"])
    (planned,) = found["experts"]
    resumed, first = run(["-m", "benchmarks.scale_store", "resume", str(place)])
    status, (found,) = run(["-m", "coat", "status", store, "--manifest", manifest, "--json"])
    assert planned["units"] == first["units"] == left["units"], (planned, first, left)
    assert planned["rows"] - planned["covered"] == found["missing"] == left["rows"], (planned, found["missing"], left)
    _, handed_out = run(["-m", "benchmarks.scale_store", "hand-out", str(place)])
    if not keep:
        shutil.rmtree(place)
    parts = (plan, resumed, status)
    return {
        "rows": rows,
        "committed_units": found["units"],
        "units_to_do": left["units"],
        "rows_to_do": left["rows"],
        "seconds": round(sum(p["seconds"] for p in parts), 2),
        "cpu_seconds": round(sum(p["cpu_seconds"] for p in parts), 2),
        "peak_mb": max(p["peak_mb"] for p in parts),
        "plan": plan,
        "resume": resumed,
        "status": status,
        "handed_out": handed_out,
    }


def run(arguments: list[str]) -> tuple[dict[str, float], Any]:
    """Seconds, CPU seconds and peak memory of a fresh Python, start included, and the JSON that it prints.

    The peak is at least this process's own, which the kernel counts for its children too.
    """
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout
        output = process.stdout.read()
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    seconds = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    cost = {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": usage.ru_maxrss * 1024 / 1e6}
    return {name: round(value, 2) for name, value in cost.items()}, json.loads(output)


if __name__ == "__main__":
    main()
