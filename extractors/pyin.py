"""pYIN: fundamental frequency and voicing by autocorrelation, without weights: a tracker that owes nothing to a model.

Source   pYIN (Mauch & Dixon 2014, ICASSP), `librosa.pyin`; ISC. No weights.
Rate     22.05 kHz / 512 samples = 43.07 frames a second (librosa's defaults); 1 + T // 512 frames
Frame    i hears the 2048 samples around sample 512 * i, with zeros before and after the clip
Channels log2_f0_hz    log2 of f0 in Hz, 65.4 to 2093 Hz (C2 to C7) in steps of 10 cents; where unvoiced, the best
                       guess of the Viterbi path (`fill_na=None`; librosa's default is NaN)
         voicing       probability that the frame is voiced, of its own 2048 samples alone
         voiced        1 where the path says voiced, else 0: smoother than voicing, and without its scale

The path is decoded over the whole clip: 35.9 octaves a second at most, and one switch of voicing in a hundred frames.

Windows  of 10 s, of which frames with 1 s on both sides are kept. Paths that begin anew soon meet that of a single
         pass, and from there on they are equal; there is no bound on how soon. voicing is equal in any case

Limits: one voice at a time; octaves on rich or inharmonic tones; voicing falls with f0, since periods fill the frame.
Runs on the CPU, one clip at a time; the first call compiles (numba) for some seconds.
"""

from collections.abc import Sequence

import numpy as np

from coat.extractors.expert import Card, Expert, Frames, Options, Trial, Waveform

SAMPLE_RATE = 22050  # Hz
FIELD = 2048  # samples that a frame hears: three periods of the lowest f0
HOP = 512  # samples
LOWEST, HIGHEST = 65.40639132514966, 2093.004522404789  # Hz: C2 and C7


class PYin(Expert):
    name = "pyin"
    card = Card(
        family="pitch",
        kind="pitch",
        what="log2 f0, voicing, voiced or not",
        source="pYIN (Mauch & Dixon 2014), librosa",
        licence="no weights (code ISC)",
        dim=3,
        rate_hz=SAMPLE_RATE / HOP,
        checkpoint="built-in",
        extra="librosa",
        requires=("librosa",),
    )
    trial = Trial(whole=1e-5)
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
            channels=("log2_f0_hz", "voicing", "voiced"),
            settings={"fmin_hz": LOWEST, "fmax_hz": HIGHEST, "frame_length": FIELD},
        )

    def load(self, device: str) -> None:
        import librosa

        self.track = librosa.pyin

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [self.one(x) for x in waveforms]

    def one(self, samples_T: Waveform) -> Frames:
        f0_N, voiced_N, probability_N = self.track(
            samples_T,
            fmin=LOWEST,
            fmax=HIGHEST,
            sr=SAMPLE_RATE,
            frame_length=FIELD,
            hop_length=HOP,
            fill_na=None,
            center=True,
            pad_mode="constant",
        )
        return np.stack([np.log2(f0_N), probability_N, voiced_N], axis=1).astype(np.float32)
