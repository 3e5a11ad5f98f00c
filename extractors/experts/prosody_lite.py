"""Prosody-lite: f0, loudness, rhythm and spectral balance, all of it free for commercial use.

Source   f0 and voicing: SwiftF0 (arXiv 2508.18440, MIT), as expert `pitch` gives them. Loudness: ITU-R BS.1770-5.
         Tilt: eGeMAPS' alpha ratio (Eyben et al. 2016). The rest is defined here; numpy
Rate     16 kHz / 256 samples = 62.5 frames a second; max(1, T // 256) frames: SwiftF0's, so nothing is interpolated
Frame    i is centred at sample 256 * i
Channels log2_f0_hz, voicing    of `pitch`; f0 is given where unvoiced too
         loudness_lkfs          K-weighted level of a Hann window of 32 ms, not below -70 (the standard's gate); a sine
                                of 997 Hz and full scale reads -3.01
         loudness_slope_db_s    of a straight line through the loudness of seven frames (0.11 s)
         syllable_hz            2 to 8 Hz: mean frequency of the envelope's modulation, a proxy of syllables a second
         syllable_depth         of that modulation: 0 for a steady sound, m for an envelope of 1 + m cos
         tilt_db                level of 1 to 5 kHz above that of 50 Hz to 1 kHz, unweighted
         centroid_log2_hz       log2 of the power's mean frequency, unweighted

Rhythm, exactly. The envelope e is the root of the K-weighted mean square of each frame. Around each frame it is
weighted by a Hann window of 129 frames (2.06 s; 1.03 s at half height), less its weighted mean, and transformed at 2,
2.25 ... 8 Hz; frames outside the clip weigh nothing. With powers P relative to the squared mean, syllable_hz is
sum(f P) / sum(P), where each P is raised by 1e-6, so that steady sounds read 5 Hz; syllable_depth is the root of
sum(P), scaled so that one sinusoid within the band reads its depth.

Windows  of 30 s, with the 1.04 s that a frame hears on both sides: equal to a single pass

Limits: syllable_hz counts whatever swells and fades at 2 to 8 Hz, in music too; it is slow (a second), leans to 5 Hz
where rates are mixed, and means little where syllable_depth is near 0. f0 is a guess where voicing is low. A clip's
first frame hears half a window, and so reads 3 dB less. Runs on the CPU.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.experts.pitch import HOP, REACH, SAMPLE_RATE, Pitch, weigh_f0_by_voicing
from coat.extractors.trial import Trial

RATE = SAMPLE_RATE / HOP  # frames a second
FIELD = 512  # samples of the window that level and spectrum are measured in: 32 ms
QUIETEST = 10 ** ((-70 + 0.691) / 10)  # mean square at the gate of -70 LKFS
SLOPE = 3  # frames on both sides
RHYTHM = 64  # frames on both sides
DEPTH_FLOOR = 1e-3  # of modulation: below it, syllable_hz tends to the middle of its band
# The power spectrum of 2.06 s holds lags up to that, so steps of 1/4 Hz leave nothing out.
SYLLABLE_HZ = np.arange(2.0, 8.01, 0.25)
# BS.1770-5, tables 1 and 2: a shelf and a high pass, (b, a) at 48 kHz.
K_FILTERS = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
K_RATE = 48000
Array = NDArray[np.float64]


def k_weights(hz_F: NDArray[np.floating]) -> Array:
    """Gain of power of the two filters, where they are defined: their response depends on the frequency alone."""
    z_F = np.exp(-2j * np.pi * hz_F / K_RATE)
    ratios = [np.polyval(b[::-1], z_F) / np.polyval(a[::-1], z_F) for b, a in K_FILTERS]
    return np.abs(np.prod(ratios, axis=0)) ** 2


HANN_T = np.hanning(FIELD + 1)[:-1]
HZ_F = np.fft.rfftfreq(FIELD, 1 / SAMPLE_RATE)
K_F = k_weights(HZ_F)
RHYTHM_W = np.hanning(2 * RHYTHM + 3)[1:-1]


class ProsodyLite(Expert):
    name = "prosody-lite"
    card = Card(
        family="prosody",
        kind="scalars",
        what="f0, loudness, rhythm, spectral balance",
        source="SwiftF0 (arXiv 2508.18440), ITU-R BS.1770",
        licence="MIT",
        dim=8,
        rate_hz=RATE,
        checkpoint="built-in",
        requires=Pitch.card.requires,
    )
    trial = Trial(whole=1e-5, view=weigh_f0_by_voicing)  # not by the rhythm, which takes a second
    pads = False
    context_s = max(RHYTHM * HOP + FIELD // 2, REACH) / SAMPLE_RATE

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.pitch = Pitch(Options())
        self.spec = self.describe(
            dim=8,
            rate_hz=RATE,
            start_s=0.0,
            sample_rate=SAMPLE_RATE,
            min_samples=HOP,
            weights=self.pitch.spec.weights,
            checkpoint=self.pitch.spec.checkpoint,
            channels=(
                *("log2_f0_hz", "voicing", "loudness_lkfs", "loudness_slope_db_s"),
                *("syllable_hz", "syllable_depth", "tilt_db", "centroid_log2_hz"),
            ),
        )

    def load(self, device: str) -> None:
        self.pitch.load(device)

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [self.one(x) for x in waveforms]

    def one(self, samples_T: Waveform) -> Frames:
        f0_N2 = self.pitch.one(samples_T)[:, :2]
        power_NF = spectra(samples_T)[: len(f0_N2)]
        weighted_N = power_NF @ K_F
        loudness_N = 10 * np.log10(np.maximum(weighted_N, QUIETEST)) - 0.691
        columns = [loudness_N, slope(loudness_N), *rhythm(np.sqrt(weighted_N)), *balance(power_NF)]
        return np.column_stack([f0_N2, *columns]).astype(np.float32)


def spectra(samples_T: Waveform) -> Array:
    """`[N, F]` of frames at 256 * i; the sum over F is the mean square of the window."""
    windows_NT = np.lib.stride_tricks.sliding_window_view(np.pad(samples_T, FIELD // 2), FIELD)[::HOP] * HANN_T
    power_NF = np.abs(np.fft.rfft(windows_NT)) ** 2 / (FIELD * np.sum(HANN_T**2))
    power_NF[:, 1:-1] *= 2  # negative frequencies
    return power_NF


def slope(loudness_N: Array) -> Array:
    """dB a second, by least squares; the first and the last frame are repeated beyond the clip."""
    steps = np.arange(SLOPE, -SLOPE - 1, -1)  # convolution turns them round
    return np.convolve(np.pad(loudness_N, SLOPE, mode="edge"), steps / np.sum(steps**2), mode="valid") * RATE


def rhythm(envelope_N: Array) -> tuple[Array, Array]:
    """syllable_hz and syllable_depth."""
    turning_SN = np.exp(-2j * np.pi * SYLLABLE_HZ[:, None] * np.arange(len(envelope_N)) / RATE)
    ones_N = np.ones_like(envelope_N)
    weight_N = windowed(ones_N)
    mean_N = windowed(envelope_N) / weight_N
    swing_SN = np.stack([windowed(envelope_N * t) - mean_N * windowed(t) for t in turning_SN])
    power_SN = np.abs(2 * swing_SN / (weight_N * np.maximum(mean_N, np.sqrt(QUIETEST)))) ** 2
    raised_SN = power_SN + DEPTH_FLOOR**2
    bandwidth_N = RATE * windowed(ones_N, RHYTHM_W**2) / weight_N**2  # Hz that a sinusoid's power is spread over
    depth_N = np.sqrt(power_SN.sum(axis=0) * (SYLLABLE_HZ[1] - SYLLABLE_HZ[0]) / bandwidth_N)
    return SYLLABLE_HZ @ raised_SN / raised_SN.sum(axis=0), depth_N


def windowed(values_N: NDArray, window_W: Array = RHYTHM_W) -> NDArray:
    """Sums around each frame, weighted by the window; the clip's outside counts as zeros."""
    return np.convolve(values_N, window_W, mode="full")[RHYTHM:-RHYTHM]


def balance(power_NF: Array) -> tuple[Array, Array]:
    """tilt_db and centroid_log2_hz."""
    raised_NF = power_NF + QUIETEST / len(HZ_F)  # silence is flat
    low_N = raised_NF[:, (HZ_F >= 50) & (HZ_F < 1000)].sum(axis=1)
    high_N = raised_NF[:, (HZ_F >= 1000) & (HZ_F <= 5000)].sum(axis=1)
    return 10 * np.log10(high_N / low_N), np.log2(raised_NF @ HZ_F / raised_NF.sum(axis=1))
