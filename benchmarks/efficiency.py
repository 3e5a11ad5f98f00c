"""How much of a model's own speed is left once the audio must be read and the targets written; and what a second
worker adds.

Model alone: the expert in this process, given the very batches that the pipeline's worker made, their
waveforms in memory, as many threads; half of them before a run, the others after it. Pipeline: `extract` over the
files. Compared unit by unit, from SETTLED_S after a worker's first one on; the figure is the median, the range is
that of the middle 80 % of the units. A new process touches its memory for the first time, batch after batch, and a
virtual machine may have to ask its host for every page (docs/log.md): units in which that happens are slower, and
the note has the ratio of all units together.

What is promised is of a worker whose model leaves a CPU to decode with, as one on a GPU does. Where the model takes
all CPUs of a machine, decoding must take its share of them.
"""

import argparse
import multiprocessing
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.common import (
    MODELS,
    ROOT,
    Figure,
    Results,
    Run,
    corpus,
    format_range,
    judged,
    median,
    options_of,
    ray_of,
    results,
    run,
)
from coat.extractors.devices import keep_freed_memory
from coat.extractors.expert import Expert, Frames, Waveform
from coat.extractors.experts.wav2vec2 import Wav2Vec2
from coat.extractors.experts.whisper import Whisper
from coat.extractors.registry import create
from coat.manifests.corpus.manifest import Manifest

CLIPS = {"whisper": 48, "wav2vec2": 240}
TWO_CLIPS = 400  # for two workers, which are through with 240 soon after SETTLED_S
TARGET, TWO_TARGET = 0.95, 1.8
SETTLED_S = 10.0
ALONE_S = 5.0  # of a process that only shows what the machine can give
Batches = list[list[Waveform]]


class Recorded(Expert):
    """Keeps the batches that it is given: exactly what the worker made of the corpus."""

    kept: ClassVar[Batches] = []

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        self.kept.append([w.copy() for w in waveforms])
        return super().extract(waveforms)  # pyright: ignore[reportAbstractUsage]


class RecordedWhisper(Recorded, Whisper):
    pass


class RecordedWav2Vec2(Recorded, Wav2Vec2):
    pass


RECORDED = {"whisper": "RecordedWhisper", "wav2vec2": "RecordedWav2Vec2"}


def record(expert: str, manifest: Path) -> Batches:
    """By a run in this process, which warms the caches too."""
    from benchmarks.efficiency import Recorded as Kept  # the module that the registry imports, not __main__

    Kept.kept.clear()
    run(manifest, ROOT / "store", f"benchmarks.efficiency:{RECORDED[expert]}", options_of(expert))
    return list(Kept.kept)


def padded_seconds(expert: str, batch: list[Waveform]) -> float:
    """As the worker counts them: Whisper encodes 30 s whatever it is given."""
    return len(batch) * (30.0 if expert == "whisper" else max(map(len, batch)) / 16000)


def model_alone(expert: Expert, batches: Batches) -> list[float]:
    """Seconds of each batch."""
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        expert.extract(batch)
        seconds.append(time.perf_counter() - started)
    return seconds


def unit_seconds(measured: Run) -> dict[int, float]:
    """Seconds that a worker took for each settled unit, by the unit's place in the reports."""
    last: dict[str, float] = {}
    seconds = {}
    for i, (at, report) in enumerate(zip(measured.times, measured.reports, strict=True)):
        if report.worker in last and at - measured.times[0] > SETTLED_S:
            seconds[i] = at - last[report.worker]
        last[report.worker] = at
    return seconds


def middle(values: list[float]) -> str:
    """Median, and the range of the middle 80 %."""
    low, mid, high = np.quantile(values, (0.1, 0.5, 0.9))
    return f"{mid:.3f} ({low:.3f} to {high:.3f})"


def worker_speed(measured: Run) -> float:
    """Padded seconds per second of the median settled unit: of one worker, whatever the others do."""
    return median([measured.reports[i].padded_seconds / t for i, t in unit_seconds(measured).items()])


def fresh_start(name: str, manifest: Path) -> float:
    """Seconds of `coat extract` over the shortest clip, in a process of its own: imports and weights, mostly."""
    one = manifest.parent / "one.jsonl"
    Manifest([min(Manifest.read(str(manifest)), key=lambda u: u.duration or 0.0)]).write(str(one))
    store = ROOT / "store-one"
    shutil.rmtree(store, ignore_errors=True)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "coat",
        "extract",
        "--expert",
        name,
        "--workers",
        "0",
        "--checkpoint",
    ]
    command += [str(MODELS[name]()[0]), "--manifest", str(one), "--store", str(store), "--json"]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def measure(name: str, rounds: int, found: Results) -> None:
    import torch

    manifest = corpus(CLIPS[name], seed=1)
    batches = record(name, manifest)
    options, label = options_of(name), MODELS[name]()[1]
    expert = create(name, options)
    expert.load("cpu")
    if name == "whisper":  # imports take most of it, whatever the expert
        start = found.data["start of a process"] = fresh_start(name, manifest)
        found.add(
            Figure(f"`coat extract --workers 0` of one short clip: {label}", f"{start:.1f} s", note="imports, weights")
        )
    torch.set_num_threads(1)  # as the worker has it
    model_alone(expert, batches[: len(batches) // 4])
    padded = np.array([padded_seconds(name, batch) for batch in batches])
    one, two, halves = [], [], []
    ratios: list[float] = []
    sums = np.zeros(2)
    for _ in range(rounds):
        seconds = np.zeros(len(batches))
        seconds[::2] = model_alone(expert, batches[::2])
        one.append(run(manifest, ROOT / "store", name, options, ray_of(1)))
        seconds[1::2] = model_alone(expert, batches[1::2])
        halves += [float(padded[i::2].sum() / seconds[i::2].sum()) for i in range(2)]
        ends = np.cumsum([report.padded_seconds for report in one[-1].reports])
        of_unit = np.searchsorted(ends, np.cumsum(padded) - 1e-3)  # units are reported in their order by one worker
        alone = np.bincount(of_unit, seconds)
        taken = unit_seconds(one[-1])
        ratios += [float(alone[i] / t) for i, t in taken.items()]
        sums += np.array([sum(alone[i] for i in taken), sum(taken.values())])
        if name == "wav2vec2":
            two.append(run(corpus(TWO_CLIPS, seed=1), ROOT / "store", name, options, ray_of(1, 2)))
    inside = median([r.summary.forward_seconds / r.steady_seconds for r in one])
    apart = f"start-up {median([r.startup_seconds for r in one]):.1f} s, "
    apart += f"end {median([r.end_seconds for r in one]):.1f} s apart"
    apart += f"; all units together {sums[0] / sums[1]:.3f}"
    found.add(
        Figure(
            f"Pipeline / model alone, one worker of one thread: {label}",
            middle(ratios),
            f">= {TARGET}",
            judged(median(ratios) >= TARGET, halves),
            f"{one[-1].speed:.1f} x real time; {apart}; in the expert {inside:.0%} of the time",
        )
    )
    found.data[name] = {
        "model_alone_padded_seconds_per_second": halves,
        "audio_seconds": one[-1].summary.audio_seconds,
        "padded_seconds": float(padded.sum()),
        "ratios": ratios,
        "all": float(sums[0] / sums[1]),
    }
    if two:
        add_two(one, two, label, found)


def add_two(one: list[Run], two: list[Run], label: str, found: Results) -> None:
    """Two workers beside one, and what this machine can give: two CPUs may be threads of one core."""
    singles, pairs = [worker_speed(r) for r in one], [2 * worker_speed(r) for r in two]
    ratios = [b / a for a, b in zip(singles, pairs, strict=True)]
    note = f"{median(singles):.0f} and {median(pairs):.0f} x real time, padding included; {label}"
    found.add(
        Figure(
            "Two single-threaded workers / one",
            format_range(ratios),
            f">= {TWO_TARGET}",
            median(ratios) >= TWO_TARGET,
            note,
        )
    )
    ceiling = summed_speed(2) / summed_speed(1)
    claim = "... the model alone, two processes / one: what the machine can give"
    found.add(Figure(claim, f"{ceiling:.3f}"))
    found.data["two workers"] = {"one": singles, "two": pairs, "ratios": ratios, "ceiling": ceiling}


def alone_for_a_while(barrier: Any, answers: Any) -> None:
    """Audio seconds per second of the model by itself, one thread."""
    import torch

    torch.set_num_threads(1)
    keep_freed_memory()
    expert = create("wav2vec2", options_of("wav2vec2"))
    expert.load("cpu")
    batch = [np.random.default_rng(i).uniform(-0.5, 0.5, 16000 * 6).astype(np.float32) for i in range(5)]
    for _ in range(3):
        expert.extract(batch)
    barrier.wait()
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < ALONE_S:
        expert.extract(batch)
        batches += 1
    answers.put(batches * 30.0 / (time.perf_counter() - started))


def summed_speed(processes: int) -> float:
    """Their speeds at the same time, added."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(processes), context.Queue()
    running = [context.Process(target=alone_for_a_while, args=(barrier, answers)) for _ in range(processes)]
    for process in running:
        process.start()
    speeds = [answers.get(timeout=120) for _ in running]
    for process in running:
        process.join()
    return sum(speeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--expert", choices=list(MODELS), action="append")
    arguments = parser.parse_args()
    with results("efficiency") as found:
        for name in arguments.expert or MODELS:
            measure(name, arguments.rounds, found)


if __name__ == "__main__":
    main()
