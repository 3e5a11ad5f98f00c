"""What a linear probe of one layer and position costs, out of core: CPU time and memory.

    python -m benchmarks.probing [--dim 1792] [--clips 3000] [--columns 20 | --classes 4]

States are made here, 500 clips at a time, and made again where they are read again. One thread: CPU time is what is
told, since it means something on a machine that others use, too.
"""

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import Figure, results
from coat.analysis.probing import fitting
from coat.analysis.probing.fitting import TargetGroup, probe_states
from coat.analysis.probing.targets import Target

FOLDS, BLOCK = 5, 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dim", type=int, default=1792)
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--classes", type=int, default=0, help="words by logistic regression instead of columns")
    asked = parser.parse_args()
    torch.set_num_threads(1)

    def blocks() -> Iterator[NDArray[np.float32]]:
        for n in range(0, asked.clips, BLOCK):
            yield np.random.default_rng(n).normal(size=(BLOCK, asked.dim)).astype(np.float32)[: asked.clips - n]

    rng, reads = np.random.default_rng(1), 0
    if asked.classes:
        heard = np.concatenate([block[:, : asked.classes] for block in blocks()])  # a word follows from some dimensions
        word = (heard + rng.gumbel(size=heard.shape)).argmax(1)
        target = Target("y", np.eye(asked.classes, dtype=np.float32)[word], tuple(map(str, range(asked.classes))))
    else:
        target = Target("y", rng.normal(size=(asked.clips, asked.columns)).astype(np.float32))

    def counted() -> Iterator[NDArray[np.float32]]:
        nonlocal reads
        reads += 1
        return blocks()

    fitting.KEPT_BYTES = 0  # each pass reads, as with many states
    group = TargetGroup([target], np.arange(asked.clips), np.arange(asked.clips), FOLDS)
    before, start = rss_mb(), time.process_time()
    probe_states(counted, group, asked.clips, torch.device("cpu"))
    seconds, memory = time.process_time() - start, rss_mb() - before
    with results("probing") as found:
        states = asked.clips * asked.dim * 8 / 2**20
        what = f"{asked.classes} words" if asked.classes else f"{asked.columns} columns"
        found.add(
            Figure(
                f"A linear probe of {asked.clips:,} clips, {asked.dim:,} dimensions, {what}",
                f"{seconds:.1f} s of CPU time, {memory:,.0f} MiB, states read {reads} times",
                note=f"one layer and position, {FOLDS} folds, with its control; its states {states:,.0f} MiB",
            )
        )
        found.data = {"seconds": seconds, "memory_mib": memory, "reads": reads, **vars(asked)}


def rss_mb() -> float:
    """The largest so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
