"""`build-shards` from S3 to S3, 25 ms a request: requests by sample and expert, downloads of one long file, workers.

    python -m benchmarks.shards_s3

Workers are measured in two sizes: what both have alike, imports and the start of workers, is in neither's difference.
From a folder to a folder, too, where no emulator of a store takes CPU time beside them.

The store is made here, of units as large as those of a large corpus (they hold some hundred rows), with random frames.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.common import ROOT, Figure, Results, judged, median, results
from benchmarks.slow_s3 import SlowS3, serve
from coat.manifests import storage
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.targets.spec import Kind, TargetSpec
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import commit_unit, write_spec

CLIPS, UNIT_ROWS, SPANS = 600, 100, 40
MANY, FEW, TURNS = 2400, 400, 3
SHARD_SIZE = 16_000_000
SPECS: dict[str, tuple[int, float, Kind]] = {"states": (256, 50.0, "representation"), "levels": (3, 100.0, "scalars")}
BUCKET = "s3://bench"
DELAY_S = 0.025
QUIET_LOAD = 2.5  # of two cores that two workers are to have


def main() -> None:
    home = ROOT / "shards_s3"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with results("shards_s3") as found, serve(delay_s=0.0) as s3:
        make(home / "clips", clips(home / "clips"))
        make(home / "spans", spans(home / "spans"))
        put(home, "clips")
        put(home, "spans")
        requests(found, s3)
        downloads(found, s3)
        make(home / "many", clips(home / "many", MANY))
        rows = (home / "many/manifest.jsonl").read_text().splitlines(keepends=True)
        (home / "many/few.jsonl").write_text("".join(rows[:FEW]))
        workers(found, str(home / "many"), "folder to folder")
        put(home, "many")
        s3.delay(DELAY_S)
        workers(found, f"{BUCKET}/many", "S3 to S3")
    shutil.rmtree(home)


def requests(found: Results, s3: SlowS3) -> None:
    s3.requests()  # those before
    build("clips", "requests", 0)
    asked = s3.requests()
    frames = [path for method, path, _ in asked if method == "GET" and "frames.zarr" in path]
    audio = [path for method, path, _ in asked if method == "GET" and path.endswith(".flac")]
    each = len(frames) / CLIPS / len(SPECS)
    what = f"{CLIPS:,} samples of {CLIPS // UNIT_ROWS} units, shuffled"
    found.add(
        Figure(
            f"GETs per sample and expert of `build-shards`: {what}",
            f"{each:.3f}",
            "<= 0.1",
            each <= 0.1,
            f"of frames; {len(audio) / CLIPS:.2f} of audio a sample; {len(asked):,} requests in all",
        )
    )
    found.data["requests"] = {"frames": len(frames), "audio": len(audio), "all": len(asked)}


def downloads(found: Results, s3: SlowS3) -> None:
    s3.requests()  # those before
    build("spans", "downloads", 0)
    sizes = [size for method, path, size in s3.requests() if method == "GET" and path.endswith("long.flac")]
    whole = (ROOT / "shards_s3/spans/long.flac").stat().st_size
    downloaded = sum(sizes) / whole
    claim = f"Downloads of one long file, of which {SPANS} samples are spans"
    found.add(Figure(claim, f"{downloaded:.2f}", "<= 2", downloaded <= 2, f"{len(sizes)} GETs; in bytes"))


def workers(found: Results, place: str, what: str) -> None:
    """By the clock, and by the driver's share of the CPU time, which bounds what more workers give. One and two writers
    take turns, and so do the sizes.
    """
    costs: dict[str, list[dict[str, float]]] = {}
    for _ in range(TURNS):
        for count in (1, 2):
            for size in ("manifest", "few"):
                cost = run_build(f"{place}/{size}.jsonl", f"{place}/store", f"{place}/out", count)
                costs.setdefault(f"{size} {count}", []).append(cost)

    def seconds(size: str, count: int) -> float:
        return median([cost["seconds"] for cost in costs[f"{size} {count}"]])

    raw = seconds("manifest", 1) / seconds("manifest", 2)
    more = {count: seconds("manifest", count) - seconds("few", count) for count in (1, 2)}
    ratio = more[1] / more[2]
    load = os.getloadavg()[0]
    times = [cost["seconds"] for cost in costs["manifest 1"]]
    found.add(
        Figure(
            f"Two shard writers / one, {what}, from {FEW} to {MANY:,} samples",
            f"{ratio:.2f}",
            ">= 1.8",
            judged(ratio >= 1.8, times) if load < QUIET_LOAD else None,
            f"{more[1]:.1f} and {more[2]:.1f} s; with the start of workers {raw:.2f}, {seconds('manifest', 1):.1f} and "
            f"{seconds('manifest', 2):.1f} s; load {load:.1f}",
        )
    )
    cpu = {who: cpu_difference(costs, who) for who in ("driver", "workers")}
    bound = sum(cpu.values()) / (cpu["driver"] + cpu["workers"] / 2)
    found.add(
        Figure(
            "The same by CPU time: what two cores of their own would give",
            f"{bound:.2f}",
            ">= 1.8",
            bound >= 1.8,
            f"{cpu['driver']:.2f} s of the driver, {cpu['workers']:.2f} s of the workers; reading and writing left out",
        )
    )
    found.data[what] = costs


def cpu_difference(costs: dict[str, list[dict[str, float]]], who: str) -> float:
    return median([cost[who] for cost in costs["manifest 2"]]) - median([cost[who] for cost in costs["few 2"]])


BUILD = """
import json, resource, sys, time
from coat.pipeline.shards.build import build_shards
manifest, store, experts, out, size, workers = sys.argv[1:]

def cpu(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime

if __name__ == "__main__":
    started, before = time.perf_counter(), cpu(resource.RUSAGE_SELF)
    build_shards(manifest, store, experts.split(","), out, int(size), workers=int(workers), overwrite=True)
    print(json.dumps({
        "seconds": time.perf_counter() - started,
        "driver": cpu(resource.RUSAGE_SELF) - before,
        "workers": cpu(resource.RUSAGE_CHILDREN),
    }))
"""


def build(corpus: str, out: str, count: int) -> dict[str, float]:
    place = f"{BUCKET}/{corpus}"
    return run_build(f"{place}/manifest.jsonl", f"{place}/store", f"{BUCKET}/{out}", count)


def run_build(manifest: str, store: str, out: str, count: int) -> dict[str, float]:
    """Seconds by the clock and on CPUs, imports of this process left out."""
    script = ROOT / "shards_s3/build.py"  # a file, for workers import it again
    script.write_text(BUILD)
    where = [manifest, store, ",".join(SPECS), out, str(SHARD_SIZE), str(count)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, str(script), *where], check=True, stdout=subprocess.PIPE, env=environment)
    return json.loads(done.stdout)


def clips(folder: Path, count: int = CLIPS) -> list[dict[str, object]]:
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for i in range(count):
        samples_T = 0.1 * rng.standard_normal(round(16000 * rng.uniform(4, 10))).astype(np.float32)
        soundfile.write(folder / f"audio/c{i}.flac", samples_T, 16000)
        rows.append({"id": f"c{i}", "audio_filepath": f"audio/c{i}.flac", "duration": len(samples_T) / 16000})
    return rows


def spans(folder: Path) -> list[dict[str, object]]:
    folder.mkdir(parents=True)
    samples_T = 0.1 * np.random.default_rng(1).standard_normal(16000 * SPANS * 10).astype(np.float32)
    soundfile.write(folder / "long.flac", samples_T, 16000)
    return [{"id": f"s{i}", "audio_filepath": "long.flac", "offset": i * 10.0, "duration": 10.0} for i in range(SPANS)]


def make(folder: Path, rows: list[dict[str, object]]) -> None:
    """The manifest, and targets of all its rows."""
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = Manifest.read(str(folder / "manifest.jsonl"))
    heard = [decode(u.audio, u.offset, u.duration) for u in manifest]
    for name, (dim, rate_hz, kind) in SPECS.items():
        spec = TargetSpec(expert=name, version=1, family="speech", kind=kind, dim=dim, dtype="float16", rate_hz=rate_hz,
                          start_s=0.0, sample_rate=16000, min_samples=1)  # fmt: skip
        url = TargetStore(str(folder / "store")).set_url(spec)
        write_spec(url, spec)
        rng = np.random.default_rng(2)
        for first in range(0, len(manifest), UNIT_ROWS):
            unit, frames, at = f"u{first:06d}", [], 0
            unit_rows: list[Row] = []
            for u, clip in zip(manifest[first : first + UNIT_ROWS], heard[first : first + UNIT_ROWS], strict=True):
                count = int(clip.seconds * rate_hz)
                frames.append(rng.standard_normal((count, dim), np.float32).astype(np.float16))
                unit_rows.append(Row(unit, u.id, u.digest, clip.digest, clip.seconds, at, count, "ok", None))
                at += count
            commit_unit(url, unit, np.concatenate(frames), unit_rows, {})


def put(home: Path, corpus: str) -> None:
    for path in (home / corpus).rglob("*"):
        if path.is_file() and not re.search("/(building|out)/", str(path)):
            storage.write_bytes(f"{BUCKET}/{corpus}/{path.relative_to(home / corpus)}", path.read_bytes())


if __name__ == "__main__":
    main()
