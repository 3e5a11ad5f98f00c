"""Chroma: pitch classes, and the constant-Q spectrum that they are summed from.

Source   `librosa.feature.chroma_cqt` and `librosa.cqt` (McFee et al. 2015, SciPy); ISC. No weights.
Rate     22.05 kHz / 512 samples = 43.07 frames a second; 1 + T // 512 frames
Frame    i is centred at sample 512 * i
Channels chroma_c ...  12 pitch classes, C to B: magnitudes summed over seven octaves, the largest of a frame 1;
                       0 in digital silence
         cqt_c1 ...    84 semitones, C1 (32.7 Hz) to B7 (3951 Hz): dB, not below -100. As librosa has it, filters of
                       unit energy: a sine of amplitude a reads 20 log10(a / 2) + 10 log10(samples of the filter)

Filters have 17.3 periods: a frame hears 0.53 s of C1, 66 ms of C4 and 4.4 ms of B7. Tuning is A4 = 440 Hz, never
estimated: that would take the whole clip.

Windows  of 30 s, of which frames with 0.75 s on both sides are kept: equal to a single pass. The lowest octave is heard
         at 344.5 Hz, in transforms of 256 samples (0.37 s on both sides), after six halvings whose filters add to that:
         of a click 0.46 s away, a frame has a millionth

Clips under 0.74 s are padded with zeros to that.

Limits: the level is normalised away in chroma, so that of faint noise looks as sure as that of a chord: weigh by the
dB. Overtones count as notes of their own. Runs on the CPU.
"""

from collections.abc import Sequence

import numpy as np

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial

SAMPLE_RATE = 22050  # Hz
HOP = 512  # samples
NOTES = ("c", "c#", "d", "d#", "e", "f", "f#", "g", "g#", "a", "a#", "b")
OCTAVES = 7
# Samples that a transform of the lowest octave spans: 256 of them, 2 ** 6 of ours each.
SPAN = 256 * 2 ** (OCTAVES - 1)
FLOOR = 1e-5  # amplitude: -100 dB


class Chroma(Expert):
    name = "chroma"
    card = Card(
        family="music",
        kind="scalars",
        what="12 pitch classes, 84 constant-Q bands",
        source="librosa",
        licence="no weights (code ISC)",
        dim=12 + 12 * OCTAVES,
        rate_hz=SAMPLE_RATE / HOP,
        checkpoint="built-in",
        extra="librosa",
        requires=("librosa",),
    )
    trial = Trial(whole=1e-4)
    pads = False
    context_s = 0.75

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        semitones = (f"cqt_{note}{octave}" for octave in range(1, 1 + OCTAVES) for note in NOTES)
        self.spec = self.describe(
            dim=12 + 12 * OCTAVES,
            rate_hz=SAMPLE_RATE / HOP,
            start_s=0.0,
            sample_rate=SAMPLE_RATE,
            min_samples=HOP,
            checkpoint="librosa.cqt",
            channels=(*(f"chroma_{note}" for note in NOTES), *semitones),
        )

    def load(self, device: str) -> None:
        import librosa

        self.librosa = librosa

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [self.one(x) for x in waveforms]

    def one(self, samples_T: Waveform) -> Frames:
        padded_T = np.pad(samples_T, (0, max(0, SPAN - len(samples_T))))
        magnitude_FN = np.abs(self.librosa.cqt(padded_T, sr=SAMPLE_RATE, hop_length=HOP, n_bins=12 * OCTAVES))
        chroma_CN = self.librosa.feature.chroma_cqt(C=magnitude_FN, bins_per_octave=12)
        decibels_FN = self.librosa.amplitude_to_db(magnitude_FN, ref=1.0, amin=FLOOR, top_db=None)
        frames_ND = np.concatenate([chroma_CN, decibels_FN]).T[: 1 + len(samples_T) // HOP]
        return np.ascontiguousarray(frames_ND, dtype=np.float32)
