"""What a step costs, and what could be saved: `python -m benchmarks.real_model.step_costs`, after `study` made shards.

The arms' own steps on the same clips, in turns. `tower`: the share of a step that the frozen audio tower takes, which
is all that keeping its outputs could save. `padding`: the share of positions that are padding, which is all that
batches of like lengths could save.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import median
from benchmarks.cost_training import begun, first_batches
from benchmarks.real_model.arms import BATCH, LEARNING_RATE, ON_CPUS, SEEDS, Run, config_of
from benchmarks.real_model.data import CACHE
from benchmarks.real_model.study import aligned_student
from benchmarks.scale_model.report_parts import percent, table

BATCHES = 3


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


def measure(arms: list[str], rounds: int, home: Path) -> list[list[str]]:
    chosen = {arm: Run(arm, LEARNING_RATE, SEEDS[0], "final") for arm in arms}
    runs = {arm: begun(config_of(run, CACHE, home / arm)) for arm, run in chosen.items()}
    clocks = {arm: TowerClock(run) for arm, run in runs.items()}
    batches = {arm: first_batches(run, BATCHES) for arm, run in runs.items()}
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    tower: dict[str, list[float]] = {arm: [] for arm in arms}
    for turn in range(rounds + 1):
        for arm, run in runs.items():
            clocks[arm].seconds, began = 0.0, time.perf_counter()
            run.trainer.step([batches[arm][turn % BATCHES]])
            if turn:  # the first warms up
                seconds[arm].append(time.perf_counter() - began)
                tower[arm].append(clocks[arm].seconds)
    lines = []
    for arm in arms:
        real, padded = (sum(b.positions[i] for b in batches[arm]) for i in (0, 1))
        lines.append(
            [
                arm,
                f"{median(seconds[arm]):.2f}",
                percent(sum(tower[arm]) / sum(seconds[arm])),
                percent(1 - real / padded),
                f"{real / BATCH / BATCHES:.0f}",
            ]
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default=",".join(ON_CPUS))
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    aligned_student(CACHE)
    with tempfile.TemporaryDirectory() as home:
        lines = measure(arguments.arms.split(","), arguments.rounds, Path(home))
    print("\n".join(table([f"steps of {BATCH} clips", "s", "tower, %", "padding, %", "positions a clip"], lines)))


if __name__ == "__main__":
    main()
