"""`build-shards` from S3 in a global shuffle over thousands of units: requests by sample and expert.

    python -m benchmarks.shards_shuffle [--rows 40000]

A model to scale: units hold 20 rows in place of some hundred, frames are few bytes, and blocks are so small that one
has half as many samples as there are units, as blocks of 1 GiB have of a large corpus. No delay: requests are counted.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, Figure, results
from benchmarks.slow_s3 import SlowS3, serve
from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.shards.index import ShardIndex
from coat.manifests.targets.spec import Kind, TargetSpec
from coat.pipeline.extraction.index_writer import IndexWriter
from coat.pipeline.shards.build import build_shards
from coat.pipeline.statistics.compute import target_moments
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import commit_unit, write_spec

UNIT_ROWS, SECONDS = 20, 1.0
SPECS: dict[str, tuple[int, float, Kind]] = {"states": (4, 25.0, "representation"), "levels": (1, 50.0, "scalars")}
SHARD_SIZE = 16_000_000
BUCKET = "s3://bench"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=40_000)
    rows = parser.parse_args().rows
    home = ROOT / "shards_shuffle"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    with results("shards_shuffle") as found, serve(delay_s=0.0) as s3:
        make(home, rows)
        for path in (home / "store").rglob("*"):
            if path.is_file():
                storage.write_bytes(f"{BUCKET}/store/{path.relative_to(home / 'store')}", path.read_bytes())
        for targets in TargetStore(f"{BUCKET}/store").target_sets():
            writer = IndexWriter(targets)  # as a run leaves it
            writer.add(targets.stamps)
            assert writer.close(finished=True) is None
            target_moments(targets)  # statistics are current; those of large sets are of a sample
        units = rows // UNIT_ROWS
        frames = sum(SECONDS * rate_hz * dim * 2 for dim, rate_hz, _ in SPECS.values())
        sample_bytes = estimated_sample_bytes(home)
        block = int(sample_bytes * units / 2)
        asked: dict[str, dict[str, float]] = {}
        sets: dict[str, ShardIndex] = {}
        ways = {
            "block by block": {"scratch_bytes": 0},
            "shuffled": {},
            "shuffled, with room for a quarter of the frames": {"scratch_bytes": int(rows * frames / 4)},
        }
        for way, how in ways.items():
            s3.requests()  # those before
            out = str(home / "out")
            sets[way] = build_shards(
                str(home / "manifest.jsonl"), f"{BUCKET}/store", list(SPECS), out, SHARD_SIZE, overwrite=True,
                workers=2, audio="none", block_bytes=block, on_note=print, **how,
            )  # fmt: skip
            asked[way] = counted(s3, rows)
        digests = {tuple(shard.xxh3 for shard in index.shards) for index in sets.values()}
        assert len(digests) == 1, "other bytes"
        found.data = {"rows": rows, "units": units, "block": block, "asked": asked}
        for way, each in asked.items():
            claim = f"GETs per sample and expert of `build-shards`: {rows:,} samples of {units:,} units, {way}"
            note = f"of frames; all requests to the store, the plan's included: {each['all']:.3f}; equal tars"
            target = "" if way == "block by block" else "<= 0.1" if way == "shuffled" else ""
            met = each["frames"] <= 0.1 if target else None
            found.add(Figure(claim, f"{each['frames']:.3f}", target, met, note))
    shutil.rmtree(home)


def counted(s3: SlowS3, rows: int) -> dict[str, float]:
    asked = s3.requests()
    of_frames = [path for method, path, _ in asked if method == "GET" and "frames.zarr" in path]
    return {"frames": len(of_frames) / rows / len(SPECS), "all": len(asked) / rows / len(SPECS)}


def estimated_sample_bytes(home: Path) -> float:
    """As the plan estimates it, by which blocks are cut."""
    from coat.pipeline.shards.build import open_target_sets
    from coat.pipeline.shards.plan import plan_shards
    from coat.pipeline.shards.recipe import Recipe

    sets = open_target_sets(str(home / "store"), list(SPECS))
    path = str(home / "manifest.jsonl")
    recipe = Recipe(manifests=(path,), store=str(home / "store"), experts=tuple(SPECS), audio="none")
    return float(plan_shards([Manifest.read(path)], sets, recipe).bytes_S.mean())


def make(home: Path, count: int) -> None:
    rows = [{"id": f"c{i}", "audio_filepath": f"audio/c{i}.flac", "duration": SECONDS} for i in range(count)]
    (home / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = Manifest.read(str(home / "manifest.jsonl"))
    for name, (dim, rate_hz, kind) in SPECS.items():
        spec = TargetSpec(expert=name, version=1, family="speech", kind=kind, dim=dim, dtype="float16", rate_hz=rate_hz,
                          start_s=0.0, sample_rate=16000, min_samples=1)  # fmt: skip
        url = TargetStore(str(home / "store")).set_url(spec)
        write_spec(url, spec)
        rng = np.random.default_rng(2)
        frames = int(SECONDS * rate_hz)
        for first in range(0, count, UNIT_ROWS):
            unit, part = f"u{first:06d}", manifest[first : first + UNIT_ROWS]
            unit_rows = [
                Row(unit, u.id, u.digest, "0" * 16, SECONDS, i * frames, frames, "ok", None) for i, u in enumerate(part)
            ]
            commit_unit(url, unit, rng.standard_normal((len(part) * frames, dim)).astype(np.float16), unit_rows, {})


if __name__ == "__main__":
    main()
