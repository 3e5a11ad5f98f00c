"""Writing one unit: built whole on a local disk, then published in one step.

Locally that step is the rename of a folder, done.json inside it; on an object store, which has no
rename, the objects are put one by one and done.json last. Either way a unit is there or it is not,
and two writers of one unit do no harm: they write the same bytes.
"""

import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from coat.manifests import files
from coat.manifests.errors import RunError
from coat.manifests.spec import TargetSpec
from coat.pipeline.store import DONE, FRAMES, ROWS, ROWS_SCHEMA, SPEC, UNITS, Row

CHUNK_FRAMES = 512  # what a random read costs at least
BUILDING = "building"  # folder beside units/ for what is not committed yet
ABANDONED_S = 24 * 3600  # a build of another host that is older is nobody's


def write_spec(set_url: str, spec: TargetSpec) -> None:
    """Before the first unit. An equal fingerprint has an equal spec, so that writing it again is harmless."""
    url = files.join(set_url, SPEC)
    if not files.exists(url):
        files.write_bytes(url, files.to_json(spec.to_dict()))


def write_frames(path: Path, frames: NDArray[Any]) -> None:
    """A Zarr v3 array `[N, D]` in one shard of 512-frame chunks, each with a CRC-32C that any reader checks.

    Not compressed: float16 hidden states shrink by a few percent and cost more time than that.
    """
    n, dim = frames.shape
    shard = max(1, -(-n // CHUNK_FRAMES)) * CHUNK_FRAMES
    array = zarr.create_array(
        path,
        shape=(n, dim),
        chunks=(CHUNK_FRAMES, dim),
        shards=(shard, dim),
        dtype=frames.dtype,
        compressors=[Crc32cCodec()],
        fill_value=0,
        dimension_names=("frame", "dim"),
    )
    if n:
        array[:] = frames


def rows_parquet(rows: Sequence[Row]) -> bytes:
    table = pa.Table.from_pylist([{k: v for k, v in asdict(r).items() if k != "unit"} for r in rows], ROWS_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def frames_digest(frames: NDArray[Any]) -> str:
    """xxh3, 128 bits in hex, of the values in C order."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(frames).reshape(-1).view(np.uint8).data)


def commit_unit(
    set_url: str, unit: str, frames: NDArray[Any], rows: Sequence[Row], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a unit whole and give its done.json. `facts` (seconds by stage, padding) are kept there.

    RunError where the store cannot be written; then nothing of the unit is visible.
    """
    data = rows_parquet(rows)
    done = {
        **facts,
        "rows": len(rows),
        "ok": sum(r.status == "ok" for r in rows),
        "failed": sum(r.status == "failed" for r in rows),
        "skipped": sum(r.status == "skipped" for r in rows),
        "frames": len(frames),
        "bytes": int(frames.nbytes),
        "audio_seconds": round(sum(r.seconds for r in rows if r.status == "ok"), 6),
        "xxh3": frames_digest(frames),
        "rows_xxh3": xxhash.xxh3_128_hexdigest(data),
        "finished_at": datetime.now(UTC).isoformat(),
    }
    try:
        build = new_build(set_url, unit)
        try:
            write_frames(build / FRAMES, frames)
            (build / ROWS).write_bytes(data)
            (build / DONE).write_bytes(files.to_json(done))
            publish(build, set_url, unit)
        finally:
            shutil.rmtree(build, ignore_errors=True)
    except OSError as e:
        raise RunError(f"{set_url}: cannot write unit {unit} ({e}); the units before it are kept, run again") from e
    return done


def builds_folder(set_url: str) -> Path:
    """Where units are built: on the store's own disk, so that a rename moves them; for object stores, here."""
    if files.is_local(set_url):
        return files.local_path(set_url) / BUILDING
    return Path(tempfile.gettempdir()) / "coat-building"


def new_build(set_url: str, unit: str) -> Path:
    folder = builds_folder(set_url)
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=folder, prefix=f"{socket.gethostname()}+{os.getpid()}+{unit}+"))


def publish(build: Path, set_url: str, unit: str) -> None:
    target = files.join(set_url, UNITS, unit)
    if files.is_local(set_url):
        for path in sorted(build.rglob("*")):  # a commit must outlive a power cut, not only a kill
            if path.is_file():
                with open(path, "rb") as f:
                    os.fsync(f.fileno())
        build.chmod(0o755)
        files.local_path(target).parent.mkdir(exist_ok=True)
        try:
            os.rename(build, files.local_path(target))
        except OSError:
            if not (files.local_path(target) / DONE).exists():
                raise
            # another run committed the same unit first: its bytes are ours
        return
    fs, path = files.filesystem(target)
    for name in (FRAMES, ROWS):
        fs.put(str(build / name), f"{path}/{name}", recursive=(build / name).is_dir())
    fs.pipe_file(f"{path}/{DONE}", (build / DONE).read_bytes())


def clean_builds(set_url: str) -> int:
    """Remove what killed runs left half built; what a living one is building stays. Gives how many."""
    removed = 0
    folder = builds_folder(set_url)
    for build in folder.iterdir() if folder.is_dir() else ():
        host, _, rest = build.name.partition("+")
        pid = rest.partition("+")[0]
        try:
            age = time.time() - build.stat().st_mtime
        except FileNotFoundError:
            continue  # its run has just published it
        mine = host == socket.gethostname() and pid.isdigit()
        if (mine and not psutil.pid_exists(int(pid))) or age > ABANDONED_S:
            shutil.rmtree(build, ignore_errors=True)
            removed += 1
    with contextlib.suppress(OSError):  # not empty: another run builds there
        folder.rmdir()
    return removed
