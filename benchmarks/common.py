"""What the benchmarks share: a corpus, checkpoints, a stopwatch on `extract`, and figures as JSON.

Each script is run as `python -m benchmarks.NAME` and leaves runs/bench/NAME.json; `report` makes the
table of docs/performance.md of all of them. Things that are compared are run in turns within one script:
ratios of such times mean something on a machine that others use too, absolute times do not.
"""

import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from coat.extractors.expert import Options
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.extraction.listeners import NullListener
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.worker.report import UnitReport

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

ROOT = Path("runs/bench")
CPUS = os.cpu_count() or 1
MEDIAN_S, SIGMA, SHORTEST_S, LONGEST_S = 5.0, 0.7, 0.5, 30.0  # of the log-normal durations: mean about 6.3 s
QUIET = 1.15  # largest / smallest of repeats, on a machine that does nothing else
PACKAGES = ("coat-audio", "torch", "transformers", "ray", "zarr", "numpy", "datasets", "lhotse")


@dataclass(frozen=True)
class Figure:
    """One line of the table. `met` is None where nothing was promised, or it cannot be judged."""

    claim: str
    value: str
    target: str = ""
    met: bool | None = None
    note: str = ""


@dataclass
class Results:
    """What one script found. `data` holds every single measurement behind the figures."""

    name: str
    part: str = ""  # of the script, where it was asked for a part: the option that says so
    figures: list[Figure] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        met = {True: "met", False: "MISSED", None: figure.target and "NOT JUDGED: busy machine"}[figure.met]
        print(f"{figure.claim}: {figure.value} {figure.target and f'(target {figure.target})'} {met}", flush=True)

    def save(self) -> None:
        ROOT.mkdir(parents=True, exist_ok=True)
        found = {
            "benchmark": self.name,
            "command": f"python -m benchmarks.{self.name} {self.part}".strip(),
            "seconds": round(time.perf_counter() - self.started, 1),
            "machine": machine(),
            "figures": [asdict(f) for f in self.figures],
            "data": self.data,
        }
        file = "-".join([self.name, *self.part.replace("-", "").split()])
        (ROOT / f"{file}.json").write_text(json.dumps(found, indent=2) + "\n")


def machine() -> dict[str, Any]:
    model = "unknown CPU"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cpus": CPUS,
        "ram_gb": round(psutil.virtual_memory().total / 2**30),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def durations(clips: int, rng: np.random.Generator) -> np.ndarray:
    """Seconds, log-normal."""
    return np.clip(rng.lognormal(np.log(MEDIAN_S), SIGMA, clips), SHORTEST_S, LONGEST_S)


def corpus(clips: int, seed: int = 0) -> Path:
    """FLAC clips of log-normal durations, every fourth at 44.1 kHz, the others at 16; gives the manifest."""
    folder = ROOT / f"corpus-{clips}-{seed}"
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for i, seconds in enumerate(durations(clips, rng)):
        rate = 44100 if i % 4 == 3 else 16000
        samples_T = speech_like(rng, int(seconds * rate), rate)
        soundfile.write(folder / f"c{i}.flac", samples_T, rate)
        rows.append({"id": f"c{i}", "audio_filepath": f"c{i}.flac", "duration": len(samples_T) / rate})
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def speech_like(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """Voiced syllables, four a second, in noise, `[T]`: compresses and decodes about as speech does."""
    t = np.arange(samples) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 9))
    syllables = np.clip(np.sin(2 * np.pi * 4 * t + rng.uniform(0, 6)), 0, None)
    return (0.2 * syllables * voice + 0.005 * rng.standard_normal(samples)).astype(np.float32)


def whisper() -> tuple[Path, str]:
    """The tiny.en of COAT_WHISPER_DIR; without it, random weights of its shape, which take the same time."""
    if own := os.environ.get("COAT_WHISPER_DIR"):
        return Path(own), "whisper tiny.en" if "tiny" in own else f"whisper {Path(own).name}"
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    folder = ROOT / "whisper-random"
    if not folder.exists():
        torch.manual_seed(0)
        config = WhisperConfig(d_model=384, encoder_layers=4, decoder_layers=1, encoder_attention_heads=6,
                               decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536)  # fmt: skip
        WhisperForConditionalGeneration(config).save_pretrained(folder)
        WhisperFeatureExtractor().save_pretrained(folder)
    return folder, "whisper of tiny's shape, random weights"


def wav2vec2() -> tuple[Path, str]:
    return random_wav2vec2(hidden=384, layers=6, conv=128)


def random_wav2vec2(hidden: int, layers: int, conv: int) -> tuple[Path, str]:
    """Of the kind of the large models (layer norm, so that clips are padded and masked), with random weights."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    folder = ROOT / f"wav2vec2-{hidden}-{layers}-{conv}"
    if not folder.exists():
        torch.manual_seed(0)
        config = Wav2Vec2Config(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
                                intermediate_size=4 * hidden, conv_dim=(conv,) * 7, conv_bias=True,
                                feat_extract_norm="layer", do_stable_layer_norm=True)  # fmt: skip
        Wav2Vec2Model(config).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder, f"wav2vec2 ({layers} layers of {hidden}, random weights)"


MODELS = {"whisper": whisper, "wav2vec2": wav2vec2}


def options_of(expert: str, **more: Any) -> Options:
    return Options(checkpoint=str(MODELS[expert]()[0]), **more)


class Stopwatch(NullListener):
    """Listens to a run: when each unit was reported, and when it had been taken in hand."""

    def __init__(self) -> None:
        self.reports: list[UnitReport] = []
        self.times: list[float] = []

    def reported(self, report: UnitReport) -> None:
        self.times.append(time.perf_counter())
        self.reports.append(report)


@dataclass(frozen=True)
class Run:
    """One `extract` from the outside. Steady: from the first unit taken in hand to the last report."""

    summary: Summary
    steady_seconds: float
    startup_seconds: float  # all before the first unit
    end_seconds: float  # all after the last report: the outcomes of all rows, Ray's end
    reports: tuple[UnitReport, ...]
    times: tuple[float, ...]  # of the reports

    @property
    def speed(self) -> float:
        """Seconds of audio per second, in the steady part."""
        return self.summary.audio_seconds / self.steady_seconds


def run(
    manifest: Path, store: Path, expert: str, options: Options | None = None, resources: Resources | None = None
) -> Run:
    """`extract` into a store that is made anew."""
    shutil.rmtree(store, ignore_errors=True)
    watch = Stopwatch()
    began = time.perf_counter()
    (summary,) = extract(
        str(manifest), str(store), [expert], options, resources or Resources(workers=0), listener=watch
    )
    ended = time.perf_counter()
    assert not summary.failed, summary.failures[:3]
    first = min(at - report.unit_seconds for at, report in zip(watch.times, watch.reports, strict=True))
    last = watch.times[-1]
    return Run(summary, last - first, first - began, ended - last, tuple(watch.reports), tuple(watch.times))


def ray_of(cpus: int, workers: int = 1) -> Resources:
    """That many Ray actors, of so many threads each, on a Ray of their own."""
    return Resources(workers=workers, device="cpu", cpus_per_worker=float(cpus))


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def judged(met: bool, repeats: Sequence[float]) -> bool | None:
    """None where repeats of one measurement differ so much that the machine was not ours: then nothing is shown."""
    return met if max(repeats) <= QUIET * min(repeats) else None


def format_range(values: Sequence[float]) -> str:
    """Median, and the range where there is one."""
    middle = f"{median(values):.3f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3f} to {max(values):.3f})"


@contextmanager
def results(name: str, part: str = "") -> Iterator[Results]:
    """Saves what was found, unless the script fails; leaves the models' own noise out. `part`: see Results."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    found = Results(name, part)
    print(f"== {name}: {' '.join(sys.argv[1:]) or 'all'}", flush=True)
    yield found  # a script that fails leaves none
    found.save()
