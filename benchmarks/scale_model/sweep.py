"""The whole comparison, run by run: `python -m benchmarks.scale_model.sweep [--jobs 2] [--only PATTERN] [--list]`.

One run leaves one JSON in benchmarks/scale_model/results/. What is there is not run again, so that a sweep that was
stopped goes on where it was. Several sweeps may run beside each other: each run is claimed by a lock. Order: the taught
students, the rates by validation, then the figures at the chosen rates; these wait for what they depend on.
"""

import argparse
import fcntl
import fnmatch
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.scale_model.arms import (
    ARMS,
    BOTH,
    CHOOSING,
    CHOOSING_SCALE,
    CLOCK_STEPS,
    LONGER_STEPS,
    MINUS,
    MORE_SEEDS,
    PRETRAIN_RATE,
    RATES,
    SCALES,
    SEEDS,
    STEPS,
    TWICE_THE_STEPS,
    USED_ARMS,
    VARIANTS,
    Regime,
    Run,
)
from benchmarks.scale_model.data import CACHE, prepare
from benchmarks.scale_model.results import Place, mean_accuracy, perform
from benchmarks.scale_model.training import taught

REGIMES: tuple[Regime, ...] = ("scratch", "tuned")
Phase = tuple[str, Callable[[Place, Sequence[Regime]], list[Run]]]  # the regimes that are asked for


def pretraining(seed: int, arm: str = "A") -> Run:
    return Run("pretrain", arm, PRETRAIN_RATE, seed, "pretrain", STEPS["pretrain"])


def pretrainings(_: Place, regimes: Sequence[Regime]) -> list[Run]:
    return [pretraining(seed) for seed in (CHOOSING, *SEEDS) if "tuned" in regimes]


def rate_runs(regime: Regime, arm: str) -> list[Run]:
    return [Run(regime, arm, lr, CHOOSING, "rate", STEPS[regime]) for lr in RATES]


def rates(_: Place, regimes: Sequence[Regime]) -> list[Run]:
    return [run for regime in regimes for arm in ARMS for run in rate_runs(regime, arm)]


def chosen(place: Place, regime: Regime, arm: str) -> float:
    """The rate with the best mean accuracy on validation; C without an expert has C's."""
    found = {}
    for run in rate_runs(regime, arm[0]):
        result = place.read(run)
        if result is None:
            raise FileNotFoundError(f"{place.file(run)}: not there; the rate of {regime} {arm} is chosen of it")
        found[run.lr] = mean_accuracy(result["validation"], run.questions)
    return max(found, key=lambda lr: (found[lr], -lr))


def finals(
    place: Place, regimes: Sequence[Regime], arms: Sequence[str] = ARMS, seeds: Sequence[int] = SEEDS
) -> list[Run]:
    return [
        Run(regime, arm, chosen(place, regime, arm), seed, "final", STEPS[regime])
        for seed in seeds
        for regime in regimes
        for arm in arms
    ]


def quick_pretraining(_: Place, regimes: Sequence[Regime]) -> list[Run]:
    return [pretraining(SEEDS[0])]


def quick(_: Place, regimes: Sequence[Regime] = REGIMES) -> list[Run]:
    """One seed, at the rates that the committed sweep chose."""
    return finals(Place(CACHE), regimes, seeds=SEEDS[:1])


def clocks(place: Place, regimes: Sequence[Regime]) -> list[Run]:
    """With as much CPU time as C takes."""
    return [
        Run(regime, arm, chosen(place, regime, arm), seed, "clock", CLOCK_STEPS[regime, arm])
        for seed in SEEDS
        for regime in regimes
        for arm in ARMS
        if arm != "C"
    ]


def minuses(place: Place, regimes: Sequence[Regime]) -> list[Run]:
    """From scratch; regime `tuned` has A to D."""
    return finals(place, [regime for regime in regimes if regime == "scratch"], MINUS)


def whys(place: Place, regimes: Sequence[Regime]) -> list[Run]:
    """Beside the protocol, on validation: what makes C better or worse; and a student whose teaching was distilled."""
    runs: list[Run] = []
    if "scratch" in regimes:
        lr = chosen(place, "scratch", "C")
        runs += [Run("scratch", "C", lr, s, "why", STEPS["scratch"], v) for v in VARIANTS for s in SEEDS]
        runs += [Run("scratch", "C", lr, s, "why", 2 * STEPS["scratch"]) for s in SEEDS]
        deaf = next(name for name, variant in VARIANTS.items() if "through_block" in variant)
        runs += [Run("scratch", "B", chosen(place, "scratch", "B"), s, "why", STEPS["scratch"], deaf) for s in SEEDS]
    if "tuned" in regimes:
        for taught_as in ("D", "C"):
            runs += [pretraining(seed, taught_as) for seed in SEEDS]
            for arm in ("A", "C"):
                lr = chosen(place, "tuned", arm)
                runs += [Run("tuned", arm, lr, s, "why", STEPS["tuned"], taught=taught_as) for s in SEEDS]
    return runs


def scale_runs(place: Place, regimes: Sequence[Regime]) -> list[Run]:
    """C from scratch, on validation: under which scale of its losses it does best. "" is none, as in all other runs."""
    lr = chosen(place, "scratch", "C") if "scratch" in regimes else 0.0
    variants = ("", *SCALES) if "scratch" in regimes else ()
    return [Run("scratch", "C", lr, s, "scale", STEPS["scratch"], v) for s in CHOOSING_SCALE for v in variants]


def chosen_scale(place: Place) -> str:
    """Of SCALES the one with the best mean accuracy on validation over the seeds."""
    found: dict[str, list[float]] = {}
    for run in scale_runs(place, ["scratch"]):
        result = place.read(run)
        if result is None:
            raise FileNotFoundError(f"{place.file(run)}: not there; the scale of the losses is chosen of it")
        if run.variant:
            found.setdefault(run.variant, []).append(mean_accuracy(result["validation"], run.questions))
    return max(found, key=lambda variant: sum(found[variant]))


def scaled(place: Place, regimes: Sequence[Regime]) -> list[Run]:
    """The arms that distil, under the scale that was chosen.

    A and B distil nothing: for them all scales are one (a test compares their losses).
    """
    variant = chosen_scale(place)
    return [
        Run(regime, arm, chosen(place, regime, arm), seed, "scaled", STEPS[regime], variant)
        for regime in regimes
        for seed in SEEDS
        for arm in ("C", "D")
    ]


def both_runs(place: Place, _: Sequence[Regime]) -> list[Run]:
    """E from scratch on validation: its rate, then what it might be with."""
    rates = rate_runs("scratch", "E")
    if not all(place.file(run).exists() for run in rates):
        return rates
    lr, steps = chosen(place, "scratch", "E"), STEPS["scratch"]
    tried = [Run("scratch", "E", lr, s, "both", steps, v) for s in CHOOSING_SCALE for v in ("", *BOTH)]
    return [*rates, *tried]


def five(place: Place, _: Sequence[Regime]) -> list[Run]:
    """C, D and E beside each other, on one machine."""
    return [
        Run("scratch", arm, chosen(place, "scratch", arm), seed, "five", STEPS["scratch"])
        for seed in MORE_SEEDS
        for arm in ("C", "D", "E")
    ]


def longer(place: Place, _: Sequence[Regime]) -> list[Run]:
    """With as much CPU time as E takes."""
    return [
        Run("scratch", arm, chosen(place, "scratch", arm), seed, "longer", steps)
        for seed in MORE_SEEDS
        for arm, steps in LONGER_STEPS.items()
    ]


def used(place: Place, _: Sequence[Regime]) -> list[Run]:
    """On validation: which design makes answers use the block, and what it costs them."""
    lr, steps = chosen(place, "scratch", "E"), STEPS["scratch"]
    runs = [(arm, variant, steps) for variant, arms in USED_ARMS.items() for arm in arms]
    runs += [("E", variant, 2 * steps) for variant in TWICE_THE_STEPS]
    return [Run("scratch", arm, lr, seed, "used", n, variant) for seed in CHOOSING_SCALE for arm, variant, n in runs]


def design(place: Place, regimes: Sequence[Regime]) -> list[Run]:
    """Of the new designs, in equal steps, the one with the best mean accuracy on validation over the seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    steps = STEPS["scratch"]
    for run in used(place, regimes):
        if run.variant and run.steps == steps:
            result = place.read(run)
            if result is None:
                raise FileNotFoundError(f"{place.file(run)}: not there; the design is chosen of it")
            found.setdefault((run.arm, run.variant), []).append(mean_accuracy(result["validation"], run.questions))
    arm, variant = max(found, key=lambda one: sum(found[one]))
    lr = chosen(place, "scratch", "E")
    return [Run("scratch", arm, lr, seed, "design", steps, variant) for seed in MORE_SEEDS]


PHASES: tuple[Phase, ...] = (
    ("pretrain", pretrainings),
    ("rate", rates),
    ("final", finals),
    ("minus", minuses),
    ("clock", clocks),
    ("why", whys),
    ("scale", scale_runs),
    ("scaled", scaled),
    ("both", both_runs),
    ("five", five),
    ("longer", longer),
    ("used", used),
    ("design", design),
)


def sweep(
    place: Place,
    phases: Sequence[Phase],
    regimes: Sequence[Regime] = REGIMES,
    pattern: str = "*",
    lock: Path | None = None,
) -> None:
    for name, runs_of in phases:
        runs = [run for run in runs_of(place, regimes) if fnmatch.fnmatch(run.name, pattern)]
        for wait in (False, True):  # first what nobody has in hand; then, whatever others leave
            for i, run in enumerate(runs):
                with claimed(place, run, wait) as ours:
                    if not ours or finished(place, run):
                        continue
                    with shared(lock):
                        started = time.strftime("%H:%M:%S")
                        result = perform(run, place.cache)
                        place.write(run, result)
                    score = mean_accuracy(result["validation"], run.questions)
                    seconds = result["seconds"]["all"]
                    say(f"{started} {name} {i + 1}/{len(runs)} {run.name}: {score:.3f} on validation, {seconds:.0f} s")


def finished(place: Place, run: Run) -> bool:
    """A taught student must be in the cache, too; results are committed, and weights are not."""
    return place.file(run).exists() and (run.what != "pretrain" or taught(run, place.cache).exists())


@contextmanager
def claimed(place: Place, run: Run, wait: bool) -> Iterator[bool]:
    """Whether this run is ours; the system lets go of it when a process dies."""
    claims = place.cache / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    with (claims / run.name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def shared(lock: Path | None) -> Iterator[None]:
    """Whoever measures on this machine takes the lock exclusively, and waits for one run at most."""
    with lock.open("a") if lock else nullcontext() as file:
        if file:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def quietly(*arguments: Any) -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()
    sweep(*arguments)


def run_jobs(jobs: int, *arguments: Any) -> int:
    """`sweep` in so many processes, of one thread each; 1 where one of them failed."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported there
    processes = [multiprocessing.get_context("spawn").Process(target=quietly, args=arguments) for _ in range(jobs)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return int(any(process.exitcode for process in processes))


def main() -> int:
    names = [name for name, _ in PHASES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--phase", choices=names, action="append", help="repeat; default: all, in this order")
    parser.add_argument("--regime", choices=REGIMES, action="append", help="repeat; default: both")
    parser.add_argument("--only", default="*", help="runs whose name fits this pattern: 'scratch-C-*'")
    parser.add_argument("--lock", type=Path, help="a file that each run locks (shared) for its duration")
    parser.add_argument("--list", action="store_true", help="what is there, and what is left")
    arguments = parser.parse_args()
    place, phases = Place(CACHE), [phase for phase in PHASES if phase[0] in (arguments.phase or names)]
    regimes = arguments.regime or REGIMES
    if arguments.list:
        listing(place, phases, regimes)
        return 0
    with shared(arguments.lock):
        prepare(CACHE)
    return run_jobs(arguments.jobs, place, phases, regimes, arguments.only, arguments.lock)


def listing(place: Place, phases: Sequence[Phase], regimes: Sequence[Regime]) -> None:
    for name, runs_of in phases:
        try:
            runs = runs_of(place, regimes)
        except FileNotFoundError:
            print(f"{name}: known when the rates are chosen")
            continue
        there = [run for run in runs if finished(place, run)]
        print(f"{name}: {len(there)} of {len(runs)}")


if __name__ == "__main__":
    sys.exit(main())
