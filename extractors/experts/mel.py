"""Mel: the log-mel spectrogram that the student itself hears, as a target for reconstruction.

Source   Whisper's features (Radford et al. 2022, arXiv 2212.04356); transformers, Apache-2.0. No weights.
Rate     16 kHz / 160 samples = 100 frames a second; dim = mel bins (128; Qwen2-Audio, Qwen2.5-Omni, AF3)
Frame    i is centred at sample 160 * i (centred STFT, 400-sample Hann window); T // 160 frames: those of
         the clip itself, as WhisperFeatureExtractor gives them when it does not pad
Values   log10 of mel power, clamped to 8 below the clip's highest, then (x + 4) / 4: about -1.5 to 1.5

`--checkpoint` takes the parameters from a model's folder or hub id: name the student here, and they are its own.

Windows  of 30 s, with the 200 samples that a frame hears on both sides: values are those of a single pass but for
         the clamp, which follows the loudest frame of its window, as in a student that hears windows of 30 s.
         Clamped once more to 8 below the utterance's highest, they equal a single pass

Limits: the clamp makes a cut clip differ from the same span of a longer one. Students pad with zeros where this
reflects, which touches the last two frames.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from coat.extractors.checkpoints.checkpoint import CONFIGS, checkpoint_folder, read_features
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial
from coat.manifests.errors import InputError

# Everything that decides a value; names and defaults of WhisperFeatureExtractor.
PARAMETERS: dict[str, Any] = {"feature_size": 128, "sampling_rate": 16000, "hop_length": 160, "n_fft": 400}


class Mel(Expert):
    name = "mel"
    card = Card(
        family="reconstruction",
        kind="scalars",
        what="log-mel bands, as the student's feature extractor gives them",
        source="Whisper (arXiv 2212.04356), transformers",
        licence="no weights (code Apache-2.0)",
        dim=PARAMETERS["feature_size"],
        rate_hz=PARAMETERS["sampling_rate"] / PARAMETERS["hop_length"],
        checkpoint="built-in",
    )
    takes = ("checkpoint",)
    trial = Trial(whole=1e-4)
    pads = False

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        checkpoint = options.checkpoint or "built-in"
        self.parameters = PARAMETERS if checkpoint == "built-in" else read_parameters(checkpoint)
        p = self.parameters
        self.context_s = p["n_fft"] / 2 / p["sampling_rate"]
        self.spec = self.describe(
            dim=p["feature_size"],
            rate_hz=p["sampling_rate"] / p["hop_length"],
            start_s=0.0,
            sample_rate=p["sampling_rate"],
            # Centring reflects n_fft / 2 samples at both ends, which must exist; and one whole hop gives a frame.
            min_samples=max(p["n_fft"] // 2 + 1, p["hop_length"]),
            checkpoint=checkpoint,
            channels=tuple(f"mel_{i}" for i in range(p["feature_size"])),
            settings=p,
        )

    def load(self, device: str) -> None:
        from transformers import WhisperFeatureExtractor

        self.features = WhisperFeatureExtractor(**self.parameters, dither=0.0)

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [self.one(x) for x in waveforms]

    def one(self, samples_T: Waveform) -> Frames:
        mel_1DN = self.features(
            samples_T, sampling_rate=self.spec.sample_rate, padding="do_not_pad", truncation=False, return_tensors="np"
        )["input_features"]
        return np.ascontiguousarray(mel_1DN[0].T, dtype=np.float32)


def read_parameters(checkpoint: str) -> dict[str, Any]:
    """From the configuration of a feature extractor; InputError where it is not of Whisper's kind."""
    where = f"--expert mel: {checkpoint}"
    config = read_features(checkpoint_folder("mel", checkpoint, CONFIGS), where)
    if config.get("feature_extractor_type") != "WhisperFeatureExtractor":
        raise InputError(f"{where}: its feature extractor is {config.get('feature_extractor_type')}, not Whisper's")
    found = {key: config.get(key, default) for key, default in PARAMETERS.items()}
    if not all(isinstance(value, int) and value > 0 for value in found.values()):
        raise InputError(f"{where}: of its feature extractor, {found} must be whole numbers above zero")
    return found
