"""What packing several samples into one row would save over batches by length: positions that are padding, no more.

Lengths are those of Qwen2-Audio's sequences: 25 positions a second of audio, a block of 34, and texts. Batches by
length are the trainer's own (`data.batch_tokens`, a window of `data.shuffle` samples). Packing is taken to be perfect:
no position is padding, and each sample attends to itself alone. The cost of a pass is in multiply-adds of a
7B's language model: linear layers for each position, attention for each pair. The audio tower's padding would stay.
"""

import argparse
import itertools

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, durations, results
from coat.trainer.data.batching import group_by_length

WINDOWS, SIZE = (256, 1024), 64  # samples of a window; of a batch at most
LAYERS, DIM, WEIGHTS = 32, 4096, 7e9
BUDGETS = (4096, 8192, 16384)
TEXT = (45.0, 0.8)  # positions of prompt and answer: median and sigma, log-normal


def lengths_of(name: str, samples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    seconds = {
        "0.5 to 30 s, log-normal": lambda: durations(samples, rng),
        "read speech, 2 to 17 s": lambda: rng.triangular(2, 15, 17, samples),
        "0.5 to 120 s, log-normal": lambda: np.clip(rng.lognormal(np.log(8), 1.1, samples), 0.5, 120),
    }[name]()
    return (
        np.ceil(seconds * 25).astype(int) + 34 + np.ceil(rng.lognormal(np.log(TEXT[0]), TEXT[1], samples)).astype(int)
    )


def padded_cost(groups: list[list[int]], lengths: NDArray[np.int64]) -> float:
    """Of batches of equal rows: padding is computed as all else."""
    return sum(len(g) * cost_of(int(lengths[g].max())) for g in groups)


def cost_of(length: int) -> float:
    return WEIGHTS * length + LAYERS * DIM * length * length  # scores and values, causal: half of 2 each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_240)
    arguments = parser.parse_args()
    with results("packing") as found:
        for name in ("0.5 to 30 s, log-normal", "read speech, 2 to 17 s", "0.5 to 120 s, log-normal"):
            lengths = lengths_of(name, arguments.samples, np.random.default_rng(7))
            for window, budget in itertools.product(WINDOWS, BUDGETS):
                parts = [lengths[i : i + window] for i in range(0, len(lengths), window)]
                batches = [(group_by_length(part.tolist(), SIZE, budget), part) for part in parts]
                positions = sum(len(g) * int(part[g].max()) for groups, part in batches for g in groups)
                padded = sum(padded_cost(groups, part) for groups, part in batches)
                packed = sum(cost_of(length) for length in lengths.tolist())
                claim = f"what packing would save of a 7B's pass: {name}, {budget} positions, windows of {window}"
                padding = 1 - int(lengths.sum()) / positions
                found.add(
                    Figure(claim, f"{1 - packed / padded:.1%}", note=f"padding of batches by length {padding:.1%}")
                )


if __name__ == "__main__":
    main()
