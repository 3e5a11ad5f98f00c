"""CPU time of a step by regime and arm, and how many steps of the others C's time allows: CLOCK_STEPS of arms.py (and
E's: LONGER_STEPS).

python -m benchmarks.scale_model.clock    on a quiet machine; needs the taught student of seed 0 (phase pretrain)
"""

import argparse

from benchmarks.scale_model.arms import ARMS, SEEDS, STEPS, Regime, Run
from benchmarks.scale_model.data import CACHE, load_split
from benchmarks.scale_model.sweep import REGIMES
from benchmarks.scale_model.training import train

MEASURED = 150  # steps of a run
ROUNDS = 3  # the arms take turns; the fastest counts
ROUNDED_TO = 10  # steps


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    clips = load_split(CACHE, "train")
    beside: list[tuple[Regime, tuple[str, ...], str]] = [(regime, ARMS, "C") for regime in REGIMES]
    for regime, arms, reference in [*beside, ("scratch", ("C", "D", "E"), "E")]:
        runs = {arm: Run(regime, arm, 1e-3, SEEDS[0], "rate", MEASURED) for arm in arms}
        times: dict[str, list[float]] = {arm: [] for arm in arms}
        for _ in range(ROUNDS):
            for arm, run in runs.items():
                times[arm].append(train(run, CACHE, clips).facts["cpu_seconds"] / MEASURED)
        best = {arm: min(seconds) for arm, seconds in times.items()}
        for arm, seconds in best.items():
            steps = round(STEPS[regime] * best[reference] / seconds / ROUNDED_TO) * ROUNDED_TO
            of = f"{STEPS[regime]} of {reference}"
            print(f"{regime} {arm}: {1000 * seconds:.1f} ms a step; {steps} steps in the time of {of}")


if __name__ == "__main__":
    main()
