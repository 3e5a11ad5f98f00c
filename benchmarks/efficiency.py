"""How much of a model's own speed is left once the audio must be read and the targets written.

Model alone: the expert in this process, given the very batches that the pipeline's worker made, their
waveforms in memory, as many threads. Pipeline: `extract` over the files, in this process and on one Ray
worker, in padded seconds of audio per second from the second report to the last: the first units warm a new
process up, as the model alone is warmed up too. Start-up is given apart.
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
    CPUS,
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

CLIPS = {"whisper": 64, "wav2vec2": 64}
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
    torch.set_num_threads(CPUS)  # as a worker with the whole machine has it
    expert = create(name, options)
    expert.load("cpu")
    model_alone(expert, batches[:2])
    alone = [model_alone(expert, batches)]
    runs: dict[str, list[Run]] = {"in process": [], "one Ray worker": []}
    for _ in range(rounds):  # in turns: what else the machine does falls on all alike
        runs["in process"].append(run(manifest, ROOT / "store", name, options))
        runs["one Ray worker"].append(run(manifest, ROOT / "store", name, options, ray_of(CPUS)))
        alone.append(model_alone(expert, batches))
    start = found.data[f"{name}, start of a process"] = fresh_start(name, manifest)
    found.add(
        Figure(f"`coat extract --workers 0` of one short clip: {label}", f"{start:.1f} s", note="imports, weights")
    )
    for where, measured in runs.items():
        beside = [(alone[i] + alone[i + 1]) / 2 for i in range(rounds)]
        padded = sum(report.padded_seconds for report in measured[0].reports)
        ratios = [steady_rate(r) / (padded / a) for a, r in zip(beside, measured, strict=True)]
        last = measured[-1]
        inside = median([r.summary.forward_seconds / r.steady_seconds for r in measured])
        found.add(
            Figure(
                f"Pipeline / model alone, {where}: {label}",
                spread(ratios),
                f">= {TARGET}",
                judged(median(ratios) >= TARGET, alone),
                f"{last.speed:.1f} x real time; start-up {median([r.startup_seconds for r in measured]):.1f} s and "
                f"end {median([r.end_seconds for r in measured]):.1f} s apart; in the expert "
                f"{inside:.0%} of the time",
            )
        )
        found.data[f"{name}, {where}"] = {
            "model_alone_seconds": alone,
            "pipeline_steady_seconds": [r.steady_seconds for r in measured],
            "pipeline_forward_seconds": [r.summary.forward_seconds for r in measured],
            "startup_seconds": [r.startup_seconds for r in measured],
            "end_seconds": [r.end_seconds for r in measured],
            "audio_seconds": last.summary.audio_seconds,
            "ratios": ratios,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--expert", choices=list(MODELS), action="append")
    arguments = parser.parse_args()
    with results("efficiency") as found:
        for name in arguments.expert or MODELS:
            measure(name, arguments.rounds, found)


if __name__ == "__main__":
    main()
