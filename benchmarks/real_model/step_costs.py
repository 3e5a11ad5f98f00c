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
from benchmarks.real_model.arms import BATCH, ON_CPUS, RATE, SEEDS, Run, config_of
from benchmarks.real_model.data import CACHE
from benchmarks.real_model.study import aligned_student
from benchmarks.scale_model.report_parts import percent, table

BATCHES = 3


def make_run(arm: str, out: Path) -> Any:
    """A run at its first step, as `coat train` makes it."""
    from accelerate import Accelerator

    from coat.trainer.data.data_sets import DataSets
    from coat.trainer.run_folder import RunFolder
    from coat.trainer.training.run import TrainingRun

    config = config_of(Run(arm, RATE, SEEDS[0], "final"), CACHE, out)
    folder, data = RunFolder(out), DataSets.open(config.data)
    folder.open(config, data.index, True, False)
    run = TrainingRun(config, data, folder, Accelerator(mixed_precision="bf16"), lambda _: None, lambda _: None)
    run.model.train()
    return run


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
    runs = {arm: make_run(arm, home / arm) for arm in arms}
    clocks, batches = {arm: TowerClock(run) for arm, run in runs.items()}, {}
    for arm, run in runs.items():
        loading = iter(run.loader)
        batches[arm] = [next(loading) for _ in range(BATCHES)]
        loading.close()
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
