"""Writing a 128 MB unit against `numpy.save` of the same bytes, and reading one utterance out of it at random.

    python benchmarks/storage.py --dir .        prints one JSON document

Both sides fsync and rename, on the disk of --dir, in turns; the ratio is the median over the turns.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, results
from coat.manifests import storage
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.frames_reader import open_frames
from coat.pipeline.store.frames_writer import CHUNK_FRAMES, FramesWriter, create_array
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_writer import UnitWriter, write_spec

DIM = 1280  # whisper-large's
UNIT_BYTES = 128 * 2**20
UTTERANCE_FRAMES = 500  # 10 s at 50 frames per second
PIECE_FRAMES = 4000  # appended at a time, as a batch gives them


def measure(folder: Path, turns: int, reads: int) -> dict[str, float | int]:
    rng = np.random.default_rng(0)
    count = UNIT_BYTES // (DIM * 2) // UTTERANCE_FRAMES
    frames_ND = rng.standard_normal((count * UTTERANCE_FRAMES, DIM), np.float32).astype(np.float16)
    spec = TargetSpec(
        expert="bench", version=1, family="speech", kind="representation", dim=DIM, rate_hz=50.0, start_s=0.01,
        sample_rate=16000, min_samples=400, dtype="float16",
    )  # fmt: skip
    set_url = storage.join(str(folder), spec.expert, spec.fingerprint)
    write_spec(set_url, spec)
    rows = [
        Row("", f"r{i}", f"{i:016x}", "0" * 16, 10.0, i * UTTERANCE_FRAMES, UTTERANCE_FRAMES, "ok", None)
        for i in range(count)
    ]

    def save(turn: int) -> None:
        with open(folder / "frames.tmp", "wb") as f:
            np.save(f, frames_ND)
            f.flush()
            os.fsync(f.fileno())
        os.rename(folder / "frames.tmp", folder / f"{turn}.npy")

    def unit(turn: int) -> None:
        with UnitWriter(set_url, f"u-{turn}", DIM, "float16") as writer:
            for start in range(0, len(frames_ND), PIECE_FRAMES):
                writer.append(frames_ND[start : start + PIECE_FRAMES])
            writer.commit(rows, {})

    def zarrs_own(turn: int) -> None:
        path = folder / f"{turn}.zarr"
        chunks = -(-len(frames_ND) // CHUNK_FRAMES)
        create_array(path, len(frames_ND), DIM, frames_ND.dtype, chunks)[:] = frames_ND
        with open(path / "c" / "0" / "0", "rb") as f:
            os.fsync(f.fileno())

    def no_checksum(turn: int) -> None:
        """The same writer without CRC-32C: what the checksums cost."""
        import coat.pipeline.store.frames_writer as module

        kept, module.checksum = module.checksum, lambda data: b"\0\0\0\0"
        try:
            with FramesWriter(folder / f"{turn}.plain", DIM, "float16") as writer:
                writer.append(frames_ND)
                writer.close()
        finally:
            module.checksum = kept

    sides: dict[str, Callable[[int], None]] = {
        "numpy_save": save,
        "unit": unit,
        "zarr_writer": zarrs_own,
        "no_checksum": no_checksum,
    }
    took: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side(turn)
            if turn:  # the first warms everything up
                took[name].append(time.perf_counter() - started)

    def ratio(name: str) -> float:
        return statistics.median(n / t for n, t in zip(took["numpy_save"], took[name], strict=True))

    targets = TargetSet.open(set_url)
    found = targets.read_rows("u-1")
    cold, warm = [], []
    for i in rng.integers(count, size=reads):
        open_frames.cache_clear()
        for seconds in (cold, warm):
            started = time.perf_counter()
            targets.read_row(found[i])
            seconds.append(1000 * (time.perf_counter() - started))
    return {
        "unit_mb": round(frames_ND.nbytes / 1e6, 1),
        "turns": turns,
        "unit_to_numpy_save": round(ratio("unit"), 3),
        "zarr_writer_to_numpy_save": round(ratio("zarr_writer"), 3),
        "no_checksum_to_numpy_save": round(ratio("no_checksum"), 3),
        **{f"{name}_mb_per_s": round(frames_ND.nbytes / 1e6 / statistics.median(t)) for name, t in took.items()},
        **{
            f"read_{name}_p{p}_ms": round(float(np.percentile(values, p)), 2)
            for name, values in (("cold_open", cold), ("warm", warm))
            for p in (50, 99)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", default=".", help="a folder on the disk to be measured")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--reads", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        m = measure(Path(folder), options.turns, options.reads)
    with results("storage") as found:
        found.data |= m
        speed = m["unit_to_numpy_save"]
        found.add(Figure(f"writing a unit of {m['unit_mb']} MB / numpy.save", f"{speed:.2f}", "0.6", speed >= 0.6))
        found.add(Figure("the same through Zarr's own writer", f"{m['zarr_writer_to_numpy_save']:.2f}"))
        for way, text in (("cold_open", "opened anew"), ("warm", "open already")):
            times = f"{m[f'read_{way}_p50_ms']} / {m[f'read_{way}_p99_ms']} ms"
            found.add(Figure(f"reading an utterance's frames at random, {text}: p50 / p99", times))


if __name__ == "__main__":
    main()
