"""`build-shards` from S3 to S3, 25 ms a request: requests by sample and expert, downloads of one long file, workers.

    python -m benchmarks.shards_s3

The store is made here, of units as large as those of a large corpus (they hold some hundred rows), with random frames.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.common import ROOT, Figure, Results, judged, median, results
from benchmarks.slow_s3 import SlowS3, serve
from coat.manifests import storage
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import commit_unit, write_spec

CLIPS, UNIT_ROWS, SPANS = 1200, 100, 40
SHARD_SIZE = "16MB"
SPECS = {"states": (256, 50.0, "representation"), "levels": (3, 100.0, "scalars")}
BUCKET = "s3://bench"
TURNS = 3
DELAY_S = 0.025


def main() -> None:
    home = ROOT / "shards_s3"
    shutil.rmtree(home, ignore_errors=True)
    with results("shards_s3") as found, serve(delay_s=0.0) as s3:
        make(home / "clips", clips(home / "clips"))
        make(home / "spans", spans(home / "spans"))
        put(home)
        requests(found, s3)
        downloads(found, s3)
        workers(found, s3)
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


def workers(found: Results, s3: SlowS3) -> None:
    s3.delay(DELAY_S)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(TURNS):
        for count, seconds in times.items():
            seconds.append(build("clips", f"workers{count}", count))
    s3.delay(0.0)
    ratio = median([a / b for a, b in zip(times[1], times[2], strict=True)])
    shown = ", ".join(f"{count}: {min(s):.0f} to {max(s):.0f} s" for count, s in times.items())
    found.add(
        Figure("Two shard writers / one, S3 to S3", f"{ratio:.2f}", ">= 1.8", judged(ratio >= 1.8, times[2]), shown)
    )
    found.data["seconds"] = {str(count): seconds for count, seconds in times.items()}


def build(corpus: str, out: str, count: int) -> float:
    """Seconds, the start of Python included."""
    place = f"{BUCKET}/{corpus}"
    arguments = ["--manifest", f"{place}/manifest.jsonl", "--store", f"{place}/store", "--experts", ",".join(SPECS)]
    arguments += ["--out", f"{BUCKET}/{out}", "--shard-size", SHARD_SIZE, "--workers", str(count), "--overwrite"]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "coat", "build-shards", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def clips(folder: Path) -> list[dict[str, object]]:
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for i in range(CLIPS):
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
                          start_s=0.0, sample_rate=16000, min_samples=1)  # pyright: ignore  # fmt: skip
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


def put(home: Path) -> None:
    for corpus in ("clips", "spans"):
        for path in (home / corpus).rglob("*"):
            if path.is_file() and not re.search("/building/", str(path)):
                storage.write_bytes(f"{BUCKET}/{corpus}/{path.relative_to(home / corpus)}", path.read_bytes())


if __name__ == "__main__":
    main()
