"""Does training wait for shards that lie in an object store of 50 ms a request?

Tars of eight samples, so that a request gives little, read from `slow_s3` and from the disk. A batch of eight is taken,
and the CPUs are left alone for as long as a GPU would take for it; what is waited for the next one beyond that is the
wait. Samples are decoded; a student's own work on them is not what is asked here (`benchmarks.loader` has that). The
order must be that of the disk, whose own wait says what the CPUs of the machine cost.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks import loader as shards
from benchmarks.common import ROOT, Figure, judged, median, results
from benchmarks.slow_s3 import serve
from coat.manifests import storage
from coat.trainer.config.sections import DataConfig
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.loader import loader_of
from coat.trainer.data.samples import Sample

DELAY_S, STEP_S = 0.05, 0.1
BATCH, TAR = 8, 8


class Decoded:
    """A collator without a student: a batch is the ids of its samples."""

    def __init__(self, data: DataSets) -> None:
        self.index, self.experts = data.index, list(data.index.experts)

    def encode(self, sample: Sample, _: DataConfig) -> Sample:
        return sample

    def collate(self, samples: list[Sample]) -> list[str]:
        return [sample.id for sample in samples]


def waits(url: str, batches: int, **data: Any) -> tuple[list[list[str]], float, float]:
    """Ids, the share of the time that was waited behind the first batch, and seconds until that came."""
    config = {"shards": url, "batch_size": BATCH, "shuffle": 64, "workers": 2, **data}
    found = DataSets.open(DataConfig.model_validate(config))
    made: Any = iter(loader_of(found, cast(Any, Decoded(found))))
    started = time.perf_counter()
    ids, waited = [next(made)], 0.0
    first = time.perf_counter() - started
    for _ in range(batches - 1):
        time.sleep(STEP_S)
        started = time.perf_counter()
        ids.append(next(made))
        waited += time.perf_counter() - started
    made.close()
    return ids, waited / (waited + STEP_S * (batches - 1)), first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tars", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    root = ROOT / "loader-s3"
    shutil.rmtree(root, ignore_errors=True)
    rng = np.random.default_rng(5)
    lengths_s = rng.uniform(0.5, 3.0, TAR * arguments.tars).tolist()
    samples = [(f"c{i:05d}", shards.make_members(rng, f"c{i:05d}", s)) for i, s in enumerate(lengths_s)]
    shards.write_shards(root / "shards", samples, TAR)
    with results("loader_s3") as found, serve(0.0) as s3:
        for file in sorted(Path(root / "shards").iterdir()):
            storage.write_bytes(f"s3://bucket/shards/{file.name}", file.read_bytes())
        s3.delay(DELAY_S)
        batches = TAR * arguments.tars // BATCH
        local, local_share, _ = waits(str(root / "shards"), batches)
        found.add(Figure("wait for the same shards on the disk", f"{local_share:.2%}"))
        for ahead in (1, 2, 4):
            shares, firsts = [], []
            for _ in range(arguments.rounds):
                ids, share, first = waits("s3://bucket/shards", batches, shards_ahead=ahead)
                assert ids == local, "the order is another one"
                shares.append(share)
                firsts.append(first)
            claim = f"wait for shards of a store of 50 ms a request, {ahead} read at a time"
            target, met = ("< 1%", judged(median(shares) < 0.01, firsts)) if ahead == 4 else ("", None)
            note = f"first batch after {median(firsts):.2f} s; tars of {TAR} samples, a step of {STEP_S * 1000:.0f} ms"
            found.add(Figure(claim, f"{median(shares):.2%}", target, met, note))
            found.data[f"wait_share {ahead}"] = shares
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
