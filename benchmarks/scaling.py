"""Two single-threaded workers beside one, in units finished per second while all of them are busy.

Beside it what this machine can give: the model alone in one process and in two at once, a thread each. Two CPUs
may be two threads of one core, or share their memory's bandwidth with others.
"""

import argparse
import multiprocessing
import time
from typing import Any

import numpy as np

from benchmarks.common import ROOT, Figure, Run, corpus, judged, median, random_wav2vec2, ray_of, results, run, spread
from coat.extractors.expert import Options
from coat.extractors.registry import create

CLIPS = 280  # some 28 units: one more or less in the measured part is a few percent
ALONE_S = 5.0
TARGET = 1.8


def alone(checkpoint: str, barrier: Any, answers: Any) -> None:
    """Audio seconds per second of the model by itself, one thread."""
    import torch

    torch.set_num_threads(1)
    expert = create("wav2vec2", Options(checkpoint=checkpoint))
    expert.load("cpu")
    batch = [np.random.default_rng(i).uniform(-0.5, 0.5, 16000 * 6).astype(np.float32) for i in range(10)]
    expert.extract(batch)
    barrier.wait()
    started = time.perf_counter()
    batches = 0
    while time.perf_counter() - started < ALONE_S:
        expert.extract(batch)
        batches += 1
    answers.put(batches * 60.0 / (time.perf_counter() - started))


def together(processes: int, checkpoint: str) -> float:
    """Their speeds at the same time, added."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes), context.Queue()
    running = [context.Process(target=alone, args=(checkpoint, barrier, answers)) for _ in range(processes)]
    for process in running:
        process.start()
    speeds = [answers.get(timeout=120) for _ in running]
    for process in running:
        process.join()
    return sum(speeds)


def slope(measured: Run, workers: int) -> float:
    """Audio seconds per second, by least squares over the reports between the first units and the last ones.

    The workers do not start at the same moment, nor end; in between all are busy.
    """
    edge = 2 * workers
    done = np.cumsum([report.audio_seconds for report in measured.reports])
    return float(np.polyfit(measured.times[edge:-edge], done[edge:-edge], 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    with results("scaling") as found:
        folder, label = random_wav2vec2(hidden=192, layers=4, conv=64)
        manifest = corpus(CLIPS, seed=2)
        speeds: dict[str, list[float]] = {"one worker": [], "two workers": [], "alone": [], "two alone": []}
        for _ in range(rounds):
            for name, workers in (("one worker", 1), ("two workers", 2)):
                where = ray_of(1, workers)
                measured = run(manifest, ROOT / "store", "wav2vec2", Options(checkpoint=str(folder)), where)
                speeds[name].append(slope(measured, workers))
            for name, processes in (("alone", 1), ("two alone", 2)):
                speeds[name].append(together(processes, str(folder)))
        ratios = [two / one for one, two in zip(speeds["one worker"], speeds["two workers"], strict=True)]
        ceilings = [two / one for one, two in zip(speeds["alone"], speeds["two alone"], strict=True)]
        note = f"{median(speeds['one worker']):.0f} and {median(speeds['two workers']):.0f} x real time; {label}"
        found.add(
            Figure(
                "Two single-threaded workers / one",
                spread(ratios),
                f">= {TARGET}",
                judged(median(ratios) >= TARGET, speeds["alone"]),
                note,
            )
        )
        found.add(Figure("... the model alone, two processes / one: what the machine can give", spread(ceilings)))
        found.data = {"audio_seconds_per_second": speeds, "ratios": ratios, "ceilings": ceilings}


if __name__ == "__main__":
    main()
