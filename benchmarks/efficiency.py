"""How much of a model's own speed is left once the audio must be read and the targets written.

Model alone: the expert in this process, given the very batches that the pipeline's worker made, their
waveforms in memory, as many threads. Pipeline: `extract` over the files, in padded seconds of audio per second
from the second report to the last: the first units warm a new process up, as the model alone is warmed up too.

What is promised is of a worker whose model leaves a CPU to decode with, as one on a GPU does. Where the model takes
all CPUs of a machine, decoding must take its share of them (docs/log.md).
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.common import (
    MODELS,
    ROOT,
    Figure,
    Results,
    Run,
    corpus,
    judged,
    median,
    options_of,
    ray_of,
    results,
    run,
    spread,
)
from coat.extractors.expert import Expert, Frames, Waveform
from coat.extractors.registry import create
from coat.extractors.wav2vec2 import Wav2Vec2
from coat.extractors.whisper import Whisper
from coat.manifests.manifest import Manifest

CLIPS = {"whisper": 32, "wav2vec2": 64}
TARGET = 0.95
WARM = 2  # units
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


def model_alone(expert: Expert, batches: Batches) -> float:
    started = time.perf_counter()
    for batch in batches:
        expert.extract(batch)
    return time.perf_counter() - started


def steady_rate(measured: Run) -> float:
    """Padded seconds per second, once the first units are done."""
    padded = sum(report.padded_seconds for report in measured.reports[WARM:])
    return padded / (measured.times[-1] - measured.times[WARM - 1])


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
    start = found.data[f"{name}, start of a process"] = fresh_start(name, manifest)
    found.add(
        Figure(f"`coat extract --workers 0` of one short clip: {label}", f"{start:.1f} s", note="imports, weights")
    )
    torch.set_num_threads(1)  # as the worker has it
    model_alone(expert, batches[:4])
    alone, runs = [model_alone(expert, batches)], []
    for _ in range(rounds):  # in turns: what else the machine does falls on both alike
        runs.append(run(manifest, ROOT / "store", name, options, ray_of(1)))
        alone.append(model_alone(expert, batches))
    padded = sum(report.padded_seconds for report in runs[0].reports)
    beside = [(alone[i] + alone[i + 1]) / 2 for i in range(rounds)]
    ratios = [steady_rate(r) / (padded / a) for a, r in zip(beside, runs, strict=True)]
    inside = median([r.summary.forward_seconds / r.steady_seconds for r in runs])
    apart = f"start-up {median([r.startup_seconds for r in runs]):.1f} s, "
    apart += f"end {median([r.end_seconds for r in runs]):.1f} s apart"
    found.add(
        Figure(
            f"Pipeline / model alone, one worker of one thread: {label}",
            spread(ratios),
            f">= {TARGET}",
            judged(median(ratios) >= TARGET, alone),
            f"{runs[-1].speed:.1f} x real time; {apart}; in the expert {inside:.0%} of the time",
        )
    )
    found.data[name] = {
        "model_alone_seconds": alone,
        "pipeline_steady_seconds": [r.steady_seconds for r in runs],
        "pipeline_forward_seconds": [r.summary.forward_seconds for r in runs],
        "audio_seconds": runs[-1].summary.audio_seconds,
        "padded_seconds": padded,
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--expert", choices=list(MODELS), action="append")
    arguments = parser.parse_args()
    with results("efficiency") as found:
        for name in arguments.expert or MODELS:
            measure(name, arguments.rounds, found)


if __name__ == "__main__":
    main()
