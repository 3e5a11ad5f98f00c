"""coat beside what people do today: the same machine, clips, model and threads; start-up apart for all.

(a) the plain loop, a clip at a time: decode, transformers' forward, np.save
(b) Hugging Face `datasets.map(batched=True)`, eight clips a batch in the order of the corpus, padded by the
    feature extractor; float16 Arrow. Decoded by soundfile in the map: no FFmpeg is needed then
(c) Lhotse `compute_and_store_features_batch` with two loading workers and batches of two minutes, float16 .npy files
(d) coat, in this process

All must give coat's values to the precision of float16, or the script fails; Lhotse's clips that had to be resampled
are left out of that, as its resampler is another one.
"""

import argparse
import shutil
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from benchmarks.common import (
    CPUS,
    MODELS,
    ROOT,
    Figure,
    Results,
    corpus,
    format_range,
    judged,
    median,
    options_of,
    results,
    run,
)
from coat.manifests.corpus.manifest import Manifest
from coat.pipeline.store.target_store import TargetStore

RATE, HOP = 16000, 320  # of both models
CLIPS = {"whisper": 16, "wav2vec2": 40}
BATCH_CLIPS, BATCH_SECONDS = 8, 120.0
CHECKED = 12  # clips whose values are compared
LEVEL = 0.05  # a saving below this cannot be told from noise
TOLERANCE = 2e-3  # of the largest value: float16 has 5e-4, and twice that may meet

Batch = list[NDArray[np.float32]]  # waveforms [T]
Features = list[NDArray[np.float16]]  # [N, D] each
Forward = Callable[[Batch], Features]


@dataclass
class Padding:
    """What a contestant's model was given: seconds of audio, and with its padding."""

    heard: float = 0.0
    model_input: float = 0.0

    @property
    def share(self) -> float:
        return 1 - self.heard / self.model_input if self.model_input else 0.0


def whisper_forward(folder: Path, padding: Padding) -> Forward:
    """As transformers' documentation has it; frames of the padding are dropped."""
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    features = WhisperFeatureExtractor.from_pretrained(folder)
    encoder = WhisperModel.from_pretrained(folder, dtype=torch.float32).get_encoder().eval()

    def forward(batch: Batch) -> Features:
        mel_BDT = features(batch, sampling_rate=RATE, return_tensors="pt")["input_features"]
        padding.heard += sum(map(len, batch)) / RATE
        padding.model_input += 30.0 * len(batch)
        with torch.inference_mode():
            states_BND = encoder(mel_BDT).last_hidden_state.numpy().astype(np.float16)
        return [states[: -(-len(x) // HOP)] for states, x in zip(states_BND, batch, strict=True)]

    return forward


def wav2vec2_forward(folder: Path, padding: Padding) -> Forward:
    import torch
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    model = Wav2Vec2Model.from_pretrained(folder).eval()

    def forward(batch: Batch) -> Features:
        inputs = features(batch, sampling_rate=RATE, padding=True, return_tensors="pt")
        padding.heard += sum(map(len, batch)) / RATE
        padding.model_input += inputs["input_values"].numel() / RATE
        with torch.inference_mode():
            states_BND = model(**inputs).last_hidden_state.numpy().astype(np.float16)
        return [states[: (len(x) - 400) // HOP + 1] for states, x in zip(states_BND, batch, strict=True)]

    return forward


def load(path: str) -> NDArray[np.float32]:
    samples_T, rate = soundfile.read(path, dtype="float32")
    return np.asarray(samples_T if rate == RATE else soxr.resample(samples_T, rate, RATE), dtype=np.float32)


def plain_loop(manifest: Manifest, forward: Forward, folder: Path) -> Callable[[str], NDArray[Any]]:
    folder.mkdir()
    for u in manifest:
        np.save(folder / f"{u.id}.npy", forward([load(u.audio)])[0])
    return lambda identity: np.load(folder / f"{identity}.npy")


def hf_map(manifest: Manifest, forward: Forward, folder: Path, dim: int) -> Callable[[str], NDArray[Any]]:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()

    def extract(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {"id": rows["id"], "frames": forward([load(audio["path"]) for audio in rows["audio"]])}

    columns = {"id": [u.id for u in manifest], "audio": [u.audio for u in manifest]}
    found = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
    stored = datasets.Features(
        {"id": datasets.Value("string"), "frames": datasets.Array2D(shape=(None, dim), dtype="float16")}
    )
    done = found.map(
        extract,
        batched=True,
        batch_size=BATCH_CLIPS,
        writer_batch_size=BATCH_CLIPS,
        remove_columns=["audio"],
        features=stored,
        cache_file_name=str(folder) + ".arrow",
        load_from_cache_file=False,
    ).with_format("numpy")
    numbers = {u.id: i for i, u in enumerate(manifest)}
    return lambda identity: done[numbers[identity]]["frames"]


def lhotse_batch(manifest: Manifest, forward: Forward, folder: Path, dim: int) -> Callable[[str], NDArray[Any]]:
    from lhotse import CutSet, NumpyFilesWriter, Recording
    from lhotse.features.base import FeatureExtractor
    from lhotse.utils import compute_num_frames

    @dataclass
    class Config:
        device: str = "cpu"

    class Wrapped(FeatureExtractor):
        """Lhotse asks for duration / shift frames: the last one is repeated, or dropped."""

        name = "wrapped"
        config_type = Config

        @property
        def frame_shift(self) -> float:
            return HOP / RATE

        def feature_dim(self, sampling_rate: int) -> int:
            return dim

        def extract(self, samples: Any, sampling_rate: int) -> NDArray[np.float16]:
            return self.extract_batch([samples], sampling_rate)[0]

        def extract_batch(self, samples: Any, sampling_rate: int, lengths: Any = None) -> Features:
            batch = [np.asarray(x).reshape(-1) for x in samples]
            wanted = [compute_num_frames(len(x) / RATE, HOP / RATE, RATE) for x in batch]
            return [
                np.pad(frames[:n], ((0, max(0, n - len(frames))), (0, 0)), mode="edge")
                for frames, n in zip(forward(batch), wanted, strict=True)
            ]

    # A batch of Lhotse's has one sampling rate: `resample` is lazy, the loading workers do it.
    cuts = CutSet.from_cuts(Recording.from_file(u.audio, recording_id=u.id).to_cut() for u in manifest).resample(RATE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done: Any = cuts.compute_and_store_features_batch(
            Wrapped(), storage_path=folder, batch_duration=BATCH_SECONDS, num_workers=2, storage_type=NumpyFilesWriter
        )
    by_id = {cut.recording_id: cut for cut in done}
    return lambda identity: by_id[identity].load_features()


def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """In a thread that ends with it, as coat's model runs: OpenMP threads that stay would slow the next one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def check(read: Callable[[str], NDArray[Any]], store: Path, expert: str, manifest: Manifest, skip: bool) -> float:
    """Largest difference to coat's targets, of the largest value. AssertionError where they are not the same thing."""
    targets = TargetStore(str(store)).target_set(expert)
    worst = 0.0
    for i, u in enumerate(list(manifest)[:CHECKED]):
        if skip and i % 4 == 3:  # a clip at 44.1 kHz
            continue
        ours, theirs = targets.read(u).frames.astype(np.float32), np.asarray(read(u.id), dtype=np.float32)
        assert abs(len(ours) - len(theirs)) <= 1, (u.id, ours.shape, theirs.shape)
        n = min(len(ours), len(theirs))
        worst = max(worst, float(np.abs(ours[:n] - theirs[:n]).max() / np.abs(ours).max()))
    assert worst < TOLERANCE, (expert, worst)
    return worst


def measure(name: str, clips: int, rounds: int, found: Results) -> None:
    import torch

    torch.set_num_threads(CPUS)
    path = corpus(clips, seed=3)
    manifest = Manifest.read(str(path))
    folder, label = MODELS[name]()
    pads = {rival: Padding() for rival in ("plain loop", "datasets.map", "Lhotse")}
    make = {"whisper": whisper_forward, "wav2vec2": wav2vec2_forward}[name]
    forwards = {rival: in_thread(make, folder, padding) for rival, padding in pads.items()}
    ours = run(path, ROOT / "store", name, options_of(name))  # warms the caches of files and kernels
    dim = TargetStore(str(ROOT / "store")).target_set(name).spec.dim
    rivals: dict[str, Callable[..., Any]] = {
        "plain loop": plain_loop,
        "datasets.map": partial(hf_map, dim=dim),
        "Lhotse": partial(lhotse_batch, dim=dim),
    }
    seconds: dict[str, list[float]] = {"coat": [], **{rival: [] for rival in rivals}}
    differences: dict[str, float] = {}
    for _ in range(rounds):
        for rival, extract in rivals.items():
            out = ROOT / "rival"
            shutil.rmtree(out, ignore_errors=True)
            started = time.perf_counter()
            read = in_thread(extract, manifest, forwards[rival], out)
            seconds[rival].append(time.perf_counter() - started)
            differences[rival] = check(read, ROOT / "store", name, manifest, skip=rival == "Lhotse")
        ours = run(path, ROOT / "store", name, options_of(name))
        seconds["coat"].append(ours.steady_seconds + ours.end_seconds)
    audio, padding = ours.summary.audio_seconds, ours.summary.padding_share
    mine = median(seconds["coat"])
    found.add(Figure(f"coat: {label}", f"{audio / mine:.1f} x real time", note=f"{clips / mine:.1f} clips a second"))
    for rival in rivals:
        ratios = [theirs / own for theirs, own in zip(seconds[rival], seconds["coat"], strict=True)]
        expected = (1 - padding) / (1 - pads[rival].share)
        theirs = median(seconds[rival])
        note = f"{audio / theirs:.1f} x real time, {clips / theirs:.1f} clips a second; padding "
        note += f"{pads[rival].share:.0%} against {padding:.0%}, which alone gives {expected:.2f}"
        # Who pads nothing away, and decodes in microseconds, can be met and not passed.
        target, least = (
            ("> 1", 1.0) if expected > 1 + LEVEL else (f"level (> {1 - LEVEL}): no padding to save", 1 - LEVEL)
        )
        met = judged(median(ratios) > least, seconds["coat"])
        found.add(Figure(f"coat / {rival}: {label}", format_range(ratios), target, met, note))
    found.data[name] = {
        "clips": clips,
        "audio_seconds": audio,
        "seconds": seconds,
        "padding": {"coat": padding, **{rival: p.share for rival, p in pads.items()}},
        "largest_difference": differences,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--expert", choices=list(MODELS), action="append")
    arguments = parser.parse_args()
    with results("rivals") as found:
        for name in arguments.expert or MODELS:
            measure(name, arguments.clips or CLIPS[name], arguments.rounds, found)


if __name__ == "__main__":
    main()
