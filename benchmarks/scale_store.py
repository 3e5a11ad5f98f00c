"""A manifest of millions of rows, and a store in which most of them are done, for scale.py.

The units are those that the project itself plans; of each the worker's rows.parquet and done.json are
there, but no frames, which neither planning nor status reads.
"""

import json
import shutil
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks.scale import EXPERT
from coat.extractors.expert import Options
from coat.extractors.registry import create
from coat.manifests import storage
from coat.manifests.corpus.digests import to_hex
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.plan.planning import ExtractionPlan, make_plan
from coat.pipeline.plan.redo import rows_to_redo
from coat.pipeline.plan.units import unit_name
from coat.pipeline.store.layout import DONE, ROWS, UNITS
from coat.pipeline.store.rows import UNIT_SCHEMA
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import done_digest, write_spec

LEFT_EVERY = 50  # 2 % of the units are not committed
FAILED_EVERY = 200  # rows
HANDED_OUT = 2000  # units
TEXT = "it was a bright cold day and all the clocks of the town were striking one after the other"


def resume(place: Path) -> dict[str, Any]:
    """What `extract` does until its first unit begins."""
    plan = resumed_plan(place)
    return {"units": len(plan.units), "first": plan.units[-1].name}


def read_spans(place: Path) -> Manifest:
    return Manifest.read(str(place / "manifest.jsonl"), spans=True, on_disk=True)


def hand_out(place: Path) -> dict[str, Any]:
    """The time to make units, of a plan that has many."""
    plan = make_plan(read_spans(place), create(EXPERT, Options()).spec)
    started = time.perf_counter()
    units = plan.units[::-1][:HANDED_OUT]
    rows = sum(len(unit.rows) for unit in units)
    took = time.perf_counter() - started
    return {"units": len(units), "rows": rows, "ms_per_unit": round(took / len(units) * 1e3, 3)}


def resumed_plan(place: Path) -> ExtractionPlan:
    manifest = read_spans(place)
    spec = create(EXPERT, Options()).spec
    targets = TargetSet(TargetStore(str(place / "store")).set_url(spec), spec)
    again = rows_to_redo(manifest, targets, failed=False, changed=False)
    return make_plan(manifest, spec, targets.outcomes.digests, again)


def synthesise(place: Path, rows: int) -> dict[str, int]:
    """A manifest and a store; gives the units and rows that are left to do."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    write_manifest(place / "manifest.jsonl", rows)
    spec = create(EXPERT, Options()).spec
    set_url = TargetStore(str(place / "store")).set_url(spec)
    write_spec(set_url, spec)
    manifest = read_spans(place)
    plan = make_plan(manifest, spec)
    left = {"units": 0, "rows": 0}
    for i, (start, end) in enumerate(zip(plan.units.starts.tolist(), plan.units.ends.tolist(), strict=True)):
        if i % LEFT_EVERY == LEFT_EVERY // 2:
            left = {"units": left["units"] + 1, "rows": left["rows"] + end - start}
        else:
            write_unit(set_url, spec, plan, i, plan.units.order[start:end])
    return left


def write_manifest(path: Path, rows: int) -> None:
    """Clips of log-normal lengths, 0.5 to 30 s."""
    lengths = np.clip(np.random.default_rng(0).lognormal(1.6, 0.7, rows), 0.5, 30.0).round(3).tolist()
    with path.open("w") as f:
        for i, seconds in enumerate(lengths):
            f.write(
                f'{{"id": "clip-{i:09d}", "audio_filepath": "audio/{i // 1000:05d}/clip-{i:09d}.flac", '
                f'"duration": {seconds}, "text": "{TEXT} {i}", "prompt": "What is said here?", '
                f'"response": "{TEXT} {i}", "speaker": "s{i % 977}"}}\n'
            )


def write_unit(set_url: str, spec: TargetSpec, plan: ExtractionPlan, number: int, rows: np.ndarray) -> None:
    """What a worker commits, frames apart."""
    digests = to_hex(plan.units.identities.digests[rows])
    table = unit_table(plan, spec, rows, digests)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    failed = table["error"].length() - table["error"].null_count
    frames = int(table["frames"].to_numpy().sum())
    done = {
        "seconds": {"wait": 1.0, "forward": 20.0, "write": 0.1},
        "padded_audio_seconds": 1800.0,
        "heard_audio_seconds": 1790.0,
        "device": "cpu",
        "attempt": 0,
        "writer": "",
        "rows": len(rows),
        "ok": len(rows) - failed,
        "failed": failed,
        "skipped": 0,
        "frames": frames,
        "bytes": frames * spec.dim * 2,
        "audio_seconds": round(float(table["seconds"].to_numpy().sum()), 6),
        "xxh3": "0" * 32,
        "rows_xxh3": xxhash.xxh3_128_hexdigest(data),
        "array_xxh3": "0" * 32,
        "finished_at": (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)).isoformat(),
    }
    done["done_xxh3"] = done_digest(done)
    unit = Path(storage.local_path(set_url), UNITS, unit_name(digests))
    unit.mkdir(parents=True)
    (unit / ROWS).write_bytes(data)
    (unit / DONE).write_bytes(storage.to_json(done))


def unit_table(plan: ExtractionPlan, spec: TargetSpec, rows: np.ndarray, digests: list[str]) -> pa.Table:
    bad = rows % FAILED_EVERY == 0
    seconds = np.where(bad, 0.0, plan.units.seconds[rows])
    frames = np.rint(seconds * spec.rate_hz).astype(np.int64)
    columns = [
        plan.units.manifest.ids.take(pa.array(rows)).cast(pa.string()),
        pa.array(digests),
        pa.array(digests, mask=bad),
        pa.array(seconds),
        pa.array(np.cumsum(frames) - frames),
        pa.array(frames),
        pa.array(np.where(bad, "failed", "ok").tolist()),
        pa.array(["unreadable: not audio that libsndfile reads"] * len(rows), mask=~bad),
        pa.array(["libsndfile"] * len(rows), mask=bad),
    ]
    return pa.table(columns, schema=UNIT_SCHEMA)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        print(json.dumps(synthesise(Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        task = {"resume": resume, "hand-out": hand_out}[sys.argv[1]]
        print(json.dumps(task(Path(sys.argv[2]))))
