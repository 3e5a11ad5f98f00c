"""Pitch: fundamental frequency, voicing and loudness by SwiftF0.

Source   SwiftF0 (Nieradzik 2025, arXiv 2508.18440), package `swift-f0`; code and weights MIT
Rate     16 kHz / 256 samples = 62.5 frames a second; max(1, T // 256) frames
Frame    i is centred at sample 256 * i (the package's own timestamps)
Channels log2_f0_hz    log2 of f0 in Hz, 46.875 to 2093.75 Hz: 5.55 to 11.03; given where unvoiced too
         voicing       confidence 0 to 1, calibrated so that 0.5 is voiced; 0 where samples peak under 1e-3
         loudness_db   RMS of the 32 ms around the centre, dB of full scale, not below -140

Windows  of 30 s, with the 2815 samples that a frame hears on both sides: equal to a single pass

Limits: one voice at a time; octave errors on creaky voice and chords; f0 of unvoiced frames is a guess, so
weigh it by voicing. Runs on the CPU.
"""

from collections.abc import Sequence

import numpy as np

from coat.extractors.checkpoints.checkpoint import digest_files, package_folder
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial

SAMPLE_RATE = 16000  # Hz
HOP = 256  # samples
REACH = 2815  # samples on both sides of its centre that a frame hears: half a 2048-point window, and 7 hops


def weigh_f0_by_voicing(frames_ND: Frames) -> Frames:
    """f0 as far as it is voiced, voicing and loudness: f0 of noise is a guess, and jumps where nothing happens."""
    return np.column_stack([frames_ND[:, 0] * frames_ND[:, 1], frames_ND[:, 1:3]])


class Pitch(Expert):
    name = "pitch"
    card = Card(
        family="pitch",
        kind="pitch",
        what="log2 f0, voicing, loudness",
        source="SwiftF0 (arXiv 2508.18440)",
        licence="MIT",
        dim=3,
        rate_hz=SAMPLE_RATE / HOP,
        checkpoint="built-in",
        requires=("swift_f0", "onnxruntime"),
    )
    trial = Trial(whole=1e-5, view=weigh_f0_by_voicing)
    pads = False
    context_s = REACH / SAMPLE_RATE

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = self.describe(
            dim=3,
            rate_hz=SAMPLE_RATE / HOP,
            start_s=0.0,
            sample_rate=SAMPLE_RATE,
            min_samples=HOP,
            weights=digest_files([package_folder("swift_f0") / "model.onnx"]),
            checkpoint="swift_f0/model.onnx",
            channels=("log2_f0_hz", "voicing", "loudness_db"),
        )

    def load(self, device: str) -> None:
        import torch
        from swift_f0 import SwiftF0

        self.detector = SwiftF0(threads=torch.get_num_threads(), spin=False)

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [self.one(x) for x in waveforms]

    def one(self, samples_T: Waveform) -> Frames:
        found = self.detector.detect(samples_T, SAMPLE_RATE)
        frames_N3 = np.stack([np.log2(found.pitch_hz), found.confidence, found.loudness_db], axis=1)
        return frames_N3.astype(np.float32)
