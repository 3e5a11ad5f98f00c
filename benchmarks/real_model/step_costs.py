"""What a step costs and where its time goes: `python -m benchmarks.real_model.step_costs`, after `study` made shards.

The arms' own steps on the same clips, in turns, with each kernel of attention. Leaves results/step_costs.json.
`tower`: the share that the frozen audio tower takes, which is all that keeping its outputs could save. `padding`: its
share of the positions, which is all that batches of like lengths could save. Products of matrices and attention: their
shares of the processor's time in one more step, by torch's profiler.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import median
from benchmarks.cost_training import begun, first_batches
from benchmarks.real_model.arms import BATCH, LEARNING_RATE, ON_CPUS, SEEDS, Run, config_of, native_dtype
from benchmarks.real_model.data import CACHE
from benchmarks.real_model.study import RESULTS, aligned_student

FILE = "step_costs.json"
BATCHES = 3
KERNELS = ("sdpa", "eager")
PRODUCTS, ATTENTION = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"), "attention"  # operators of torch


class TowerClock:
    """Seconds within the tower's forward passes; on a GPU, of the host alone."""

    def __init__(self, run: Any) -> None:
        self.seconds = self.began = 0.0
        tower = run.model.student.model.model.audio_tower
        tower.register_forward_pre_hook(self.start)
        tower.register_forward_hook(self.stop)

    def start(self, *_: Any) -> None:
        self.began = time.perf_counter()

    def stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self.began


def measure(arms: Sequence[str], kernels: Sequence[str], rounds: int, home: Path) -> dict[str, Any]:
    """One line for each arm and kernel; each round has one step of each of them."""
    subjects = [(arm, kernel) for kernel in kernels for arm in arms]
    runs = [begun_with(arm, kernel, home) for arm, kernel in subjects]
    clocks, batches = [TowerClock(run) for run in runs], [first_batches(run, BATCHES) for run in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    tower: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 1):
        for i, run in enumerate(runs):
            clocks[i].seconds, began = 0.0, time.perf_counter()
            run.trainer.step([batches[i][turn % BATCHES]])
            if turn:  # the first warms up
                seconds[i].append(time.perf_counter() - began)
                tower[i].append(clocks[i].seconds)
    lines = []
    for i, (arm, kernel) in enumerate(subjects):
        real, padded = (sum(b.positions[part] for b in batches[i]) for part in (0, 1))
        lines.append(
            {
                "arm": arm,
                "kernel": kernel,
                "seconds": [round(s, 3) for s in seconds[i]],
                "median": round(median(seconds[i]), 3),
                "tower": round(sum(tower[i]) / sum(seconds[i]), 4),
                "padding": round(1 - real / padded, 4),
                "positions": round(real / BATCH / BATCHES, 1),
                **shares(runs[i], batches[i][0]),
            }
        )
    return {"clips": BATCH, "threads": torch.get_num_threads(), "dtype": native_dtype(), "lines": lines}


def begun_with(arm: str, kernel: Any, home: Path) -> Any:
    run = Run(arm, LEARNING_RATE, SEEDS[0], "final", kernel, native_dtype())
    return begun(config_of(run, CACHE, home / f"{arm}-{kernel}"))


def shares(run: Any, batch: Any) -> dict[str, float]:
    """Of the processor's time in one step."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        run.trainer.step([batch])
    events = [(event.key, event.self_cpu_time_total) for event in profiled.key_averages()]
    whole = sum(spent for _, spent in events)
    return {
        "products": round(sum(spent for key, spent in events if key in PRODUCTS) / whole, 4),
        "attention": round(sum(spent for key, spent in events if ATTENTION in key) / whole, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ON_CPUS))
    parser.add_argument("--kernels", default=",".join(KERNELS), help="of the language model's attention")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS / FILE)
    arguments = parser.parse_args()
    aligned_student(CACHE)
    with tempfile.TemporaryDirectory() as home:
        found = measure(arguments.arms.split(","), arguments.kernels.split(","), arguments.rounds, Path(home))
    arguments.out.write_text(json.dumps(found) + "\n")
    for line in found["lines"]:
        print(line)


if __name__ == "__main__":
    main()
