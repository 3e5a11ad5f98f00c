"""The driver of a run on an object store whose every answer takes 25 ms: units a second, and resuming a large store.

    python -m benchmarks.driver_store [--units 343000] [--handed-out 4000]

The store is `slow_s3.py`, in a process of its own. *Handing out*: one driver takes units from its queue, accounts for
them, writes its lease and its index. Threads in place of workers put done.json and rows.parquet of each (no frames), in
the same process, so that the figure is too low by what they take. *Resuming*: all that a run reads of a store with so
many committed units before its plan, and what it reads and counts at its end, in a process of its own that has imported
what the driver of a cluster imports; ROWS_PER_UNIT rows a unit.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psutil
import pyarrow as pa
import xxhash

from benchmarks.common import Figure, results
from benchmarks.slow_s3 import Bucket, serve
from coat.extractors.expert import Options
from coat.extractors.registry import create
from coat.manifests import storage
from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.cluster.resources import Resources, choose_cluster
from coat.pipeline.extraction.index_writer import IndexWriter
from coat.pipeline.extraction.lease import Lease
from coat.pipeline.extraction.unit_queue import UnitQueue
from coat.pipeline.plan.units import PlannedRow, Unit
from coat.pipeline.store.layout import DONE, ROWS, UNITS
from coat.pipeline.store.rows import ROWS_SCHEMA, Row
from coat.pipeline.store.segments import NUMBER, SEGMENT_UNITS, unit_rows, write_segment
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_writer import done_digest, rows_parquet, write_spec
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.report import UnitReport

DELAY_S = 0.025
ROWS_PER_UNIT = 20
COMMITTED = 300  # units of a run that resumed, which it reads at its end
KEYS_PER_UNIT = 4  # done.json, rows.parquet, zarr.json and one shard: what a listing passes over
STORE = "s3://bucket/store"


def set_url() -> str:
    spec = create("mel", Options()).spec
    return storage.join(STORE, spec.expert, spec.fingerprint)


def row_digest(unit: int, row: int) -> str:
    return xxhash.xxh3_64_hexdigest(f"{unit}-{row}".encode())


def unit_name(unit: int) -> str:
    return f"u-{xxhash.xxh3_64_hexdigest(str(unit).encode())}"


def rows_of(unit: int) -> list[Row]:
    name = unit_name(unit)
    return [
        Row(
            name,
            f"clip-{unit * ROWS_PER_UNIT + i:09d}",
            row_digest(unit, i),
            row_digest(unit, -i - 1),
            10.0,
            1000 * i,
            1000,
            "ok",
            None,
        )
        for i in range(ROWS_PER_UNIT)
    ]


def done_of(unit: int, rows: bytes) -> dict[str, Any]:
    done = {
        "seconds": {"decode": 1.0, "wait": 1.0, "forward": 20.0, "write": 0.1},
        "padded_audio_seconds": 210.0,
        "heard_audio_seconds": 200.0,
        "device": "cuda",
        "attempt": 0,
        "writer": "w-0123456789ab",
        "rows": ROWS_PER_UNIT,
        "ok": ROWS_PER_UNIT,
        "failed": 0,
        "skipped": 0,
        "frames": 1000 * ROWS_PER_UNIT,
        "bytes": 160_000 * ROWS_PER_UNIT,
        "audio_seconds": 10.0 * ROWS_PER_UNIT,
        "xxh3": f"{unit:032x}",
        "rows_xxh3": xxhash.xxh3_128_hexdigest(rows),
        "array_xxh3": "0" * 32,
        "finished_at": (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=unit)).isoformat(),
    }
    return {**done, "done_xxh3": done_digest(done)}


class FakeUnits(Sequence[Unit]):
    """Units of one row, made when they are taken."""

    def __init__(self, count: int) -> None:
        self.units = count

    def __len__(self) -> int:
        return self.units

    def __getitem__(self, index: Any) -> Any:
        utterance = Utterance(id=f"clip-{index}", audio="a.flac", audio_filepath="a.flac", duration=10.0)
        return Unit((PlannedRow(utterance, row_digest(index, 0), 10.0),))


def hand_out(count: int) -> tuple[float, float]:
    """Units a second, and the share of the driver's time that was spent on taking them."""
    spec = create("mel", Options()).spec
    url = set_url()
    write_spec(url, spec)
    rows = rows_parquet(rows_of(0))  # imports pandas, too
    lease = Lease(url)
    lease.begin()
    index = IndexWriter(TargetSet(url, spec))
    queue = UnitQueue(FakeUnits(count), range(count), WorkerConfig("mel", Options(), url, spec, "cpu", 1), lease, print)
    done = storage.to_json(done_of(0, rows))

    def put(unit: str) -> str:
        storage.write_bytes(storage.join(url, UNITS, unit, "w-0123456789ab", ROWS), rows)
        storage.write_bytes(storage.join(url, UNITS, unit, DONE), done)
        return unit

    finished, took, started = 0, 0.0, time.perf_counter()
    with ThreadPoolExecutor(48) as workers:
        running: dict[Any, Any] = {}
        while queue or running:
            began = time.perf_counter()
            while len(running) < 96 and (task := queue.take()):
                running[workers.submit(put, task.unit.name)] = task
            took += time.perf_counter() - began
            for future in [f for f in running if f.done()] or [next(iter(running))]:
                unit = future.result()
                task = running.pop(future)
                began = time.perf_counter()
                report = UnitReport(unit, ok=1, audio_seconds=10.0, unit_seconds=0.1)
                queue.finished(task, report)
                index.reported(report)
                queue.send_heartbeat()
                took += time.perf_counter() - began
                finished += 1
    began = time.perf_counter()
    index.close(True)
    took += time.perf_counter() - began
    lease.release()
    assert finished == count
    return count / (time.perf_counter() - started), took / (time.perf_counter() - started)


def fill(bucket: Bucket, units: int) -> None:
    """In the server: the objects of so many units. Rows and frames are never read where segments are."""
    base = set_url().removeprefix("s3://bucket/")
    rows = rows_parquet(rows_of(0))
    for unit in range(units):
        folder = f"{base}/{UNITS}/{unit_name(unit)}"
        bucket.put(f"{folder}/{DONE}", storage.to_json(done_of(unit, rows)))
        for name in (ROWS, "frames.zarr/zarr.json", "frames.zarr/c/0/0"):
            bucket.put(f"{folder}/w-0123456789ab/{name}", rows, "0" * 32)
    for key in bucket.sorted_keys():
        bucket.entry(key)  # a real store lists faster than this server would without it


def write_segments(url: str, units: int, left_out: int) -> None:
    """As a run's IndexWriter would have, of all but the last units."""
    stamps = TargetSet.open(url).stamps
    rows = b""
    for first in range(0, units - left_out, SEGMENT_UNITS):
        numbers = range(first, min(first + SEGMENT_UNITS, units - left_out))
        done = {unit_name(n): done_of(n, rows) for n in numbers}
        tables = (
            pa.Table.from_pylist([{k: getattr(r, k) for k in ROWS_SCHEMA.names} for r in rows_of(n)], ROWS_SCHEMA)
            for n in numbers
        )
        parts = unit_rows(done, tables)
        write_segment(url, stamps, parts.units, parts.table.append_column(NUMBER, [parts.number_N]))


def resume(url: str) -> dict[str, Any]:
    """What a run reads before its plan, and at its end."""
    import ray

    choose_cluster(Resources(workers=1, ray_address="auto"))
    assert "coat.pipeline.extraction.extraction" in sys.modules, ray
    imports_mb = psutil.Process().memory_info().rss / 1e6
    started = time.perf_counter()
    targets = TargetSet.open(url)
    rows, units = len(targets.outcomes.digests), len(targets.done)
    first = time.perf_counter() - started
    first_peak_mb = peak_mb()
    new = range(units, units + COMMITTED)
    for number in new:
        data = rows_parquet(rows_of(number))
        unit = storage.join(url, UNITS, unit_name(number))
        storage.write_bytes(storage.join(unit, "w-0123456789ab", ROWS), data)
        storage.write_bytes(storage.join(unit, DONE), storage.to_json(done_of(number, data)))
    began = time.perf_counter()
    outcomes = targets.with_units(map(unit_name, new))[0]
    counts = outcomes.count(outcomes.find(outcomes.digests))
    assert counts.ok == rows + COMMITTED * ROWS_PER_UNIT
    last = time.perf_counter() - began
    return {
        "rows": rows,
        "units": units,
        "seconds": first,
        "end_seconds": last,
        "peak_mb": peak_mb(),
        "first_peak_mb": first_peak_mb,
        "imports_mb": imports_mb,
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=343_000)
    parser.add_argument("--handed-out", type=int, default=4000)
    arguments = parser.parse_args()
    with results("driver_store") as found:
        with serve(DELAY_S) as s3:
            rate, share = hand_out(arguments.handed_out)
            counts = s3.counts()
        note = f"driver's own time: {share:.0%}; requests, workers' two puts a unit included: {counts}"
        claim = "Units a second that one driver hands out and accounts, 25 ms a request"
        found.add(Figure(claim, f"{rate:.0f}", ">= 200", rate >= 200, note))
        with serve(DELAY_S, partial(fill, units=arguments.units)) as s3:
            spec, url = create("mel", Options()).spec, set_url()
            write_spec(url, spec)
            left_out = min(500, arguments.units // 10)
            write_segments(url, arguments.units, left_out)
            s3.counts()
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.driver_store", "resume", url], capture_output=True, check=True
            )
            resumed = json.loads(done.stdout)
            counts = s3.counts()
        assert resumed["units"] == arguments.units
        seconds = resumed["seconds"] + resumed["end_seconds"]
        note = f"{resumed['seconds']:.0f} s before the plan, {resumed['end_seconds']:.0f} s at its end; "
        note += f"{left_out} units in no segment; {counts}"
        of = f"resume with {arguments.units:,} committed units ({resumed['rows']:,} rows), 25 ms a request"
        found.add(Figure(f"Seconds: {of}", f"{seconds:.0f} s", "< 60 s", seconds < 60, note))
        peak = resumed["peak_mb"]
        note = f"imports, Ray's included: {resumed['imports_mb']:.0f} MB; "
        note += f"before the plan {resumed['first_peak_mb']:.0f} MB"
        found.add(Figure("Memory of that process", f"{peak:.0f} MB", "< 1000 MB", peak < 1000, note))
        found.data = {"rate": rate, "share": share, "resume": resumed}


if __name__ == "__main__":
    if sys.argv[1:2] == ["resume"]:
        print(json.dumps(resume(sys.argv[2])))
    else:
        main()
