"""`coat stats` on sets of growing size: peak memory beside the bytes of the set, and what a unit more costs.

Each measurement is a process of its own, since a peak is of a process. Frames are of 1280 dimensions, as those of
whisper-large, and correlated.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Figure, results
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import UnitWriter, write_spec

DIM = 1280
UNIT_BYTES = 64 * 2**20
SIZES = (2, 8, 32)  # units
PIECE = 2048  # frames
GROWTH = 1.5  # of the peak, from the smallest set to the largest, sixteen times its size
MEASURE = """
import json, sys, time
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.statistics.compute import compute_statistics
import dask.array
def peak():  # not getrusage's, which begins at the parent's
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
targets = TargetStore(sys.argv[1]).target_set("bench")
before, began = peak(), time.perf_counter()
found = compute_statistics(targets, covariance=sys.argv[2] == "pca")
seconds = time.perf_counter() - began
nbytes = sum(done["bytes"] for done in targets.done.values())
print(json.dumps({"set": nbytes, "peak": peak(), "before": before, "seconds": seconds, "read": len(found.units_read)}))
"""


def main() -> None:
    with results("stats") as r, tempfile.TemporaryDirectory() as folder:
        found, units = [], 0
        for size in SIZES:
            add_units(Path(folder), units, size)
            fresh = {how: measure(Path(folder), how, anew=True) for how in ("moments", "pca")}
            add_units(Path(folder), size, size + 1)
            units = size + 1
            found.append({"units": size, **fresh, "one_more": measure(Path(folder), "pca")})
        r.data["sizes"] = found
        for how, what in {"moments": "mean, deviation, quantiles", "pca": "and covariance, PCA"}.items():
            first, last = found[0][how], found[-1][how]
            peaks = [f"{f[how]['peak'] / 1e6:.0f} MB for {f[how]['set'] / 1e6:.0f} MB" for f in found]
            met = last["peak"] <= GROWTH * first["peak"]
            speed = last["set"] / last["seconds"] / 1e6
            note = f"{speed:.0f} MB of float16 frames a second on the largest"
            r.add(Figure(f"peak memory of coat stats ({what})", "; ".join(peaks), f"grows <= {GROWTH}x", met, note))
        last = found[-1]
        share = last["one_more"]["seconds"] / last["pca"]["seconds"]
        value = f"{share:.2f} of the time of all {last['units']}, {last['one_more']['read']} unit read"
        r.add(Figure("coat stats after a unit more", value, "1 unit read", last["one_more"]["read"] == 1))


def add_units(root: Path, first: int, until: int) -> None:
    spec = TargetSpec(expert="bench", version=1, family="speech", kind="representation", dim=DIM, rate_hz=50.0,
                      start_s=0.01, sample_rate=16000, min_samples=400)  # fmt: skip
    url = TargetStore(str(root)).set_url(spec)
    write_spec(url, spec)
    rng = np.random.default_rng(first)
    mixing_DD = rng.standard_normal((DIM, DIM), np.float32) * np.geomspace(1, 0.01, DIM, dtype=np.float32)[:, None]
    for unit in range(first, until):
        pieces = UNIT_BYTES // (PIECE * DIM * 2)
        with UnitWriter(url, f"u{unit:04d}", DIM, "float16") as writer:
            for _ in range(pieces):
                frames_ND = rng.standard_normal((PIECE, DIM), np.float32) @ mixing_DD
                writer.append(frames_ND.astype(np.float16))
            n = pieces * PIECE
            writer.commit([Row("", f"r{unit}", f"{unit:016x}", "0", n / 50, 0, n, "ok", None)], {})


def measure(root: Path, how: str, anew: bool = False) -> dict[str, float]:
    if anew:
        for path in root.glob("bench/*/statistics/*"):
            path.unlink()
    time.sleep(0.5)
    command = [sys.executable, "-c", MEASURE, str(root), how]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
