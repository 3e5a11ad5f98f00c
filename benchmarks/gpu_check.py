"""For the day that a GPU is there: does it extract and train as it should, how fast, and what when it fails?

    make gpu-check                                  on one GPU, in under 8 minutes
    python -m benchmarks.gpu_check --tiny           the same on CPUs, with small models: that the script itself works
    python -m benchmarks.gpu_check --only training  or extraction: a part of it

Random weights of the large models' shapes, in bfloat16: they take the time of trained ones. Each line says what was
seen; the exit status is 1 where one is not as it should be. Nothing is read but what is made here (runs/gpu-check).
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.common import speech_like
from benchmarks.gpu_check_training import STUDENTS, check_student
from coat.extractors.expert import Options
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.extraction.summary import Summary

ROOT = Path("runs/gpu-check")
RATE = 16000
BUSY_SHARE = 0.8  # of the steady part, that the GPU should compute
EXPERTS = "benchmarks.gpu_check_experts"
ROWS_OF_MEMORY = 6  # twice as many as fit into memory at once
TIME_S = 8 * 60  # for all of it
COMPILING_S = 75  # that are kept for one student's compilation and steps


class Checks:
    """Runs one check after the other, and says what each found."""

    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, name: str, check: Callable[[], str]) -> None:
        started = time.perf_counter()
        try:
            said, verdict = check(), "ok"
        except Exception as e:  # noqa: BLE001  the other checks go on
            said, verdict = f"{type(e).__name__}: {e}", "FAILED"
            self.failed += 1
        print(f"{verdict:6s} {name} ({time.perf_counter() - started:.0f} s): {said}", flush=True)


class BusyShare:
    """How much of the time a GPU computes, as its driver says, while a block runs; None without a driver to ask."""

    def __enter__(self) -> "BusyShare":
        self.samples: list[int] = []
        self.over = Event()
        self.thread = Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def watch(self) -> None:
        while torch.cuda.is_available() and not self.over.wait(0.2):
            try:
                self.samples.append(torch.cuda.utilization())
            except (RuntimeError, ImportError):  # no nvidia-ml-py
                return

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    @property
    def median(self) -> float | None:
        """Of the samples while it had work."""
        busy = sorted(s for s in self.samples if s > 0)
        return busy[len(busy) // 2] / 100 if busy else None


def corpus(folder: Path, clips: int, seconds: float, poison: int | None = None) -> str:
    """FLAC clips; the row `poison` peaks at 1, the others below 0.9."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for i in range(clips):
        x_T = speech_like(rng, round(seconds * RATE), RATE)
        x_T *= (1.0 if i == poison else 0.8) / np.abs(x_T).max()
        soundfile.write(folder / f"c{i}.flac", x_T, RATE)
        rows.append(f'{{"id": "c{i}", "audio_filepath": "c{i}.flac", "duration": {len(x_T) / RATE}}}\n')
    (folder / "manifest.jsonl").write_text("".join(rows))
    return str(folder / "manifest.jsonl")


def random_whisper(tiny: bool) -> Path:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    dim, layers = (64, 2) if tiny else (1280, 32)
    heads = dim // 64
    config = WhisperConfig(
        d_model=dim, encoder_layers=layers, encoder_ffn_dim=4 * dim, encoder_attention_heads=heads, num_mel_bins=128,
        decoder_layers=1, decoder_ffn_dim=dim, decoder_attention_heads=heads,
    )  # fmt: skip
    return saved("whisper", WhisperForConditionalGeneration, config, WhisperFeatureExtractor(feature_size=128))


def random_wav2vec2(tiny: bool) -> Path:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    dim, layers, conv = (64, 2, 32) if tiny else (1024, 24, 512)
    config = Wav2Vec2Config(
        hidden_size=dim, num_hidden_layers=layers, num_attention_heads=dim // 64, intermediate_size=4 * dim,
        conv_dim=(conv,) * 7, conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True,
    )  # fmt: skip
    features = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    return saved("wav2vec2", Wav2Vec2Model, config, features)


def saved(name: str, model_class: Any, config: Any, features: Any) -> Path:
    folder = ROOT / name
    torch.manual_seed(0)
    model_class(config).to(torch.bfloat16).save_pretrained(folder)  # half the bytes to write and to digest
    features.save_pretrained(folder)
    return folder


def run(
    manifest: str, expert: str, device: str, workers: int = 0, options: Options | None = None, **more: Any
) -> Summary:
    resources = Resources(workers=workers, device=device, **more)
    (summary,) = extract(manifest, str(ROOT / "store"), [expert], options, resources)
    return summary


def speed(expert: str, checkpoint: Path, device: str, manifest: str) -> str:
    options = Options(checkpoint=str(checkpoint), precision="bfloat16")
    with BusyShare() as busy:
        summary = run(manifest, expert, device, options=options, batch_seconds="auto")
    require(summary.failed == 0, f"{summary.failed} rows failed: {summary.failures[:1]}")
    share = summary.forward_seconds / summary.busy_seconds
    by_driver = "" if busy.median is None else f", busy {busy.median:.0%} by its driver"
    said = f"{summary.rtfx:,.0f} x real time, the model's share of the time {share:.0%}{by_driver}"
    require(device == "cpu" or share >= BUSY_SHARE, f"{said}; the rest of the worker holds it up ({BUSY_SHARE:.0%})")
    return said


def sticky(device: str, manifest: str, rows: int) -> str:
    """A row that breaks the device is found, by workers that are replaced; no other row is lost."""
    summary = run(manifest, f"{EXPERTS}:Asserting", device, workers=1)
    require(summary.ok == rows - 1, f"{summary.ok} rows of {rows} are there; expected all but one")
    require(summary.failed == 1, f"{summary.failures}")
    return f"{summary.worker_deaths} workers replaced; {summary.failures[0]['id']}: {summary.failures[0]['error']}"


def out_of_memory(device: str, manifest: str, rows: int) -> str:
    summary = run(manifest, f"{EXPERTS}:Hungry", device)
    require(summary.ok == rows, f"{summary.ok} rows of {rows}: {summary.failures[:1]}")
    require(summary.halvings > 0, "memory never ran out; is the check's expert too modest for this device?")
    return f"batches halved {summary.halvings} times, to {summary.batch_seconds or 0:g} s of audio; all rows are there"


def same_as_cpu(checkpoint: Path, device: str) -> str:
    """Frames of the GPU in float32 (TF32) against the CPU's."""
    from coat.extractors.conformance.precision_checks import rms, voice
    from coat.extractors.registry import create

    found = []
    for where in (device, "cpu"):
        expert = create("wav2vec2", Options(checkpoint=str(checkpoint)))
        expert.load(where)
        found.append(expert.extract([voice(RATE)])[0])
    error = rms(found[0] - found[1]) / rms(found[1])
    require(error < 0.01, f"they differ by {error:.2%} of the frames' norm")
    return f"they differ by {error:.3%} of the frames' norm"


def require(held: bool, otherwise: str) -> None:
    if not held:
        raise AssertionError(otherwise)


def check_extraction(check: Checks, device: str) -> None:
    tiny = device == "cpu"
    clips, seconds, rows = (4, 2.0, 3) if tiny else (300, 20.0, 8)  # rows: of which one breaks the device
    manifest = corpus(ROOT / "corpus", clips, seconds)
    few, poisoned = corpus(ROOT / "few", ROWS_OF_MEMORY, 2.0), corpus(ROOT / "poisoned", rows, 2.0, poison=rows // 2)
    whisper, wav2vec2 = random_whisper(tiny), random_wav2vec2(tiny)
    check("Whisper large's shape, bfloat16", lambda: speed("whisper", whisper, device, manifest))
    check("wav2vec2 large's shape, bfloat16", lambda: speed("wav2vec2", wav2vec2, device, manifest))
    check("float32 on the GPU and on CPUs", lambda: same_as_cpu(wav2vec2, "cpu" if tiny else "cuda:0"))
    check("memory that runs out", lambda: out_of_memory(device, few, ROWS_OF_MEMORY))
    check("a row that breaks the device", lambda: sticky(device, poisoned, rows))


def check_training(check: Checks, device: str, started: float) -> None:
    def may_compile() -> bool:
        return device == "cpu" or time.perf_counter() - started < TIME_S - COMPILING_S

    for name in STUDENTS:
        check(f"training {name}", lambda: check_student(name, ROOT, device == "cpu", may_compile))  # noqa: B023


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="On CPUs, with small models and little audio.")
    parser.add_argument("--only", choices=["extraction", "training"], help="One part alone.")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        sys.exit("gpu_check: torch sees no GPU here; --tiny tries the script itself on CPUs")
    device, started = "cpu" if arguments.tiny else "cuda", time.perf_counter()
    where = "CPUs" if arguments.tiny else torch.cuda.get_device_name()
    print(f"torch {torch.__version__} on {where}", flush=True)
    shutil.rmtree(ROOT, ignore_errors=True)
    check = Checks()
    if arguments.only != "training":
        check_extraction(check, device)
    if arguments.only != "extraction":
        check_training(check, device, started)
    shutil.rmtree(ROOT, ignore_errors=True)  # gigabytes of weights
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
