"""Prosody: the 25 low-level descriptors of eGeMAPSv02, by openSMILE.

Source   eGeMAPS (Eyben et al. 2016, IEEE TAC 7(2)); openSMILE 3 (audEERING), package `opensmile`
Licence  openSMILE: audEERING Research License, **not for commercial use**. No weights.
Rate     100 frames a second (10 ms hop); heard at 16 kHz, 16 bit
Channels loudness, spectral shape and flux, MFCC 1-4, F0 (semitones from 27.5 Hz; 0 where unvoiced), jitter,
         shimmer, HNR, harmonic differences, formants 1-3; each smoothed over 3 frames by openSMILE

Time. openSMILE puts into its row i what it measured in windows that *begin* at 10 * i ms, and these are 20 ms
long for spectrum, jitter, shimmer and formants, 60 ms for F0, HNR and harmonics: centres 20 ms apart in
one row. Here each channel is moved to its own centre (ALIGNED below; measured with tone bursts, see the
tests): row i holds all that is centred at 30 + 10 * i ms, so two rows fewer come out than of openSMILE.

Windows of 30 s, of which frames with 2 s on both sides are kept: openSMILE smooths F0 over some tenths of a second, and
from 0.5 s on the windows could not be told from a single pass on two minutes of speech (docs/experts.md).

Clips under 70 ms are padded with zeros to that, and give one row.

Limits: F0, jitter, shimmer and HNR are 0 where unvoiced; formants are guesses in noise and silence. Heard at
16 kHz, spectral slopes differ from those of 44.1 kHz audio. A clip takes one CPU thread; a worker with more hears more
clips at once.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial

SAMPLE_RATE = 16000  # Hz
HOP = 160  # samples: 10 ms
LONG, SHORT = 960, 320  # samples of the two windows: 60 and 20 ms
SHIFT = (LONG - SHORT) // 2 // HOP  # rows by which the short windows run ahead: 2
WHOLE = LONG + (SHIFT - 1) * HOP  # samples that give one row: openSMILE gives one more than whole long windows

# In openSMILE's order and names; True where the window is the long one.
CHANNELS = {
    "Loudness_sma3": False,
    "alphaRatio_sma3": False,
    "hammarbergIndex_sma3": False,
    "slope0-500_sma3": False,
    "slope500-1500_sma3": False,
    "spectralFlux_sma3": False,
    "mfcc1_sma3": False,
    "mfcc2_sma3": False,
    "mfcc3_sma3": False,
    "mfcc4_sma3": False,
    "F0semitoneFrom27.5Hz_sma3nz": True,
    "jitterLocal_sma3nz": False,
    "shimmerLocaldB_sma3nz": False,
    "HNRdBACF_sma3nz": True,
    "logRelF0-H1-H2_sma3nz": True,
    "logRelF0-H1-A3_sma3nz": True,
    "F1frequency_sma3nz": False,
    "F1bandwidth_sma3nz": False,
    "F1amplitudeLogRelF0_sma3nz": True,
    "F2frequency_sma3nz": False,
    "F2bandwidth_sma3nz": False,
    "F2amplitudeLogRelF0_sma3nz": True,
    "F3frequency_sma3nz": False,
    "F3bandwidth_sma3nz": False,
    "F3amplitudeLogRelF0_sma3nz": True,
}
ALIGNED = np.array([0 if long else SHIFT for long in CHANNELS.values()])


class Prosody(Expert):
    name = "prosody"
    card = Card(
        family="prosody",
        kind="scalars",
        what="25 eGeMAPS descriptors",
        source="eGeMAPSv02, openSMILE",
        licence="audEERING Research License (non-commercial)",
        dim=len(CHANNELS),
        rate_hz=SAMPLE_RATE / HOP,
        checkpoint="built-in",
        extra="opensmile",
        requires=("opensmile",),
    )
    trial = Trial(whole=1e-5, view=lambda frames: frames[:, :1])  # loudness; formants of noise are guesses
    pads = False
    parallel_rows = True  # each call makes an openSMILE of its own, whose C code lets other threads run

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = self.describe(
            dim=len(CHANNELS),
            rate_hz=SAMPLE_RATE / HOP,
            start_s=LONG / 2 / SAMPLE_RATE,
            sample_rate=SAMPLE_RATE,
            min_samples=HOP,
            checkpoint="eGeMAPSv02",
            channels=tuple(CHANNELS),
            settings={"level": "LowLevelDescriptors", "aligned": True, "opensmile": metadata.version("opensmile")},
        )

    def load(self, device: str) -> None:
        import opensmile

        self.smile: Any = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
            num_workers=1,  # in this process and thread: the worker has the threads
            multiprocessing=False,
        )
        assert tuple(self.smile.feature_names) == self.spec.channels, self.smile.feature_names

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [self.one(x) for x in waveforms]

    def one(self, samples_T: Waveform) -> Frames:
        # openSMILE's wrapper casts to 16 bit without saturating: 1.0 would wrap to -1.0.
        saturated_T = np.clip(samples_T, -1.0, 1.0 - 2.0**-15)
        saturated_T = np.pad(saturated_T, (0, max(0, WHOLE - len(saturated_T))))
        rows_MD = self.smile(saturated_T, SAMPLE_RATE)[0].T
        rows = np.arange(len(rows_MD) - SHIFT)
        return rows_MD[rows[:, None] + ALIGNED, np.arange(len(ALIGNED))].astype(np.float32)
