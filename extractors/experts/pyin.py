"""pYIN: fundamental frequency and voicing by autocorrelation: a tracker that owes nothing to a trained model.

Source   pYIN (Mauch & Dixon 2014, ICASSP), `librosa.pyin`; ISC. No weights.
Rate     22.05 kHz / 512 samples = 43.07 frames a second (librosa's defaults); 1 + T // 512 frames
Frame    i hears the 2048 samples around sample 512 * i, with zeros before and after the clip
Channels log2_f0_hz          log2 of f0 in Hz, 65.4 to 2093 Hz (C2 to C7) in steps of 10 cents; 0 where unvoiced, where
                             librosa has NaN. (Its best guess there says nothing: it joins what is voiced on both sides)
         voicing             1 where the path says voiced, else 0
         voiced_probability  0 to 1, of the frame's own 2048 samples. Not taken for voicing: on eight clips of speech it
                             is over 0.5 in 0 to 19% of the frames that SwiftF0 is sure of, mostly voiced here

The Viterbi path is decoded over the whole clip: 35.9 octaves a second at most, and a switch of voicing costs 1 to 99.

Windows  of 10 s, of which frames with 1 s on both sides are kept. Paths that begin anew soon meet that of a single
         pass, and are equal from there on; there is no bound on how soon, but on 105 s of recordings and 50 s of tones
         and noise in turns no frame differed with half a second

Limits: one voice at a time; octaves off on rich or inharmonic sounds; noise after a tone may stay voiced. Runs on the
CPU at some forty times real time, one clip at a time; the first use of librosa compiles (numba) for some seconds.
"""

from collections.abc import Callable, Sequence
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial
from coat.extractors.viterbi import viterbi

SAMPLE_RATE = 22050  # Hz
FIELD = 2048  # samples that a frame hears: six periods of the lowest f0
HOP = 512  # samples
LOWEST, HIGHEST = 65.40639132514966, 2093.004522404789  # Hz: C2 and C7
NO_F0 = 1.0  # Hz: 0 as a logarithm


class PYin(Expert):
    name = "pyin"
    card = Card(
        family="pitch",
        kind="pitch",
        what="log2 f0, voiced or not, and its probability",
        source="pYIN (Mauch & Dixon 2014), librosa",
        licence="no weights (code ISC)",
        dim=3,
        rate_hz=SAMPLE_RATE / HOP,
        checkpoint="built-in",
        extra="librosa",
        requires=("librosa",),
    )
    # By the probability: the path bridges what is short. A burst of a tone seems half a frame late, an onset does not:
    # librosa's difference function takes what lies beyond a frame's end for zeros, and nothing before its start.
    trial = Trial(window_tolerance=1e-5, tonal=True, burst_s=0.2, view=lambda frames: frames[:, 2:])
    pads = False
    window_s = 10.0
    context_s = 1.0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = self.describe(
            dim=3,
            rate_hz=SAMPLE_RATE / HOP,
            start_s=0.0,
            sample_rate=SAMPLE_RATE,
            min_samples=HOP,
            checkpoint="librosa.pyin",
            channels=("log2_f0_hz", "voicing", "voiced_probability"),
            settings={"fmin_hz": LOWEST, "fmax_hz": HIGHEST, "frame_length": FIELD},
        )

    def load(self, device: str) -> None:
        self.track = faster_pyin()

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [self.extract_clip(x) for x in waveforms]

    def extract_clip(self, samples_T: Waveform) -> Frames:
        f0_N, voiced_N, probability_N = self.track(
            samples_T,
            fmin=LOWEST,
            fmax=HIGHEST,
            sr=SAMPLE_RATE,
            frame_length=FIELD,
            hop_length=HOP,
            fill_na=NO_F0,
            center=True,
            pad_mode="constant",
        )
        return np.stack([np.log2(f0_N), voiced_N, probability_N], axis=1).astype(np.float32)


def faster_pyin() -> Callable[..., Any]:
    """librosa's own `pyin`, but for the search of its path: ours takes a tenth of the time and finds the same one."""
    import librosa

    def path(prob_CST: NDArray[np.float64], transition_SS: NDArray[np.float64], **first: Any) -> NDArray[np.uint16]:
        return np.stack([viterbi(prob_ST, transition_SS, **first) for prob_ST in prob_CST])

    theirs = librosa.pyin
    sequence = SimpleNamespace(**{**vars(librosa.sequence), "viterbi": path})
    ours = FunctionType(theirs.__code__, {**theirs.__globals__, "sequence": sequence})
    ours.__kwdefaults__ = theirs.__kwdefaults__
    return ours
