"""VAD: is someone speaking, by Silero.

Source   Silero VAD v6 (github.com/snakers4/silero-vad), package `silero-vad`; code and weights MIT
Rate     16 kHz / 512 samples = 31.25 frames a second; ceil(T / 512) frames, the last padded with zeros
Frame    i is the probability of speech in samples 512 * i to 512 * (i + 1), so centred at 512 * i + 256.
         The model also hears the 64 samples before, and remembers all frames before (an LSTM): causal.

Windows  of 32.8 s without overlap: the state goes over from each to the next, so they equal a single pass. (Windows
         that begin anew would not: after 8 s of context, frames of running speech were off by up to 0.19.)

The weights are `silero_vad_16k_sequence.onnx`: the frames of a window in one call. The package itself is not imported:
that would set torch to one thread for the whole process.

Limits: the first frames of a clip that starts inside a word come out low; singing and babble are borderline.
Runs on the CPU.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from coat.extractors.checkpoints.checkpoint import digest_files, package_folder
from coat.extractors.devices import onnx_session
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial, logit
from coat.extractors.windows import Window

SAMPLE_RATE = 16000  # Hz
STEP = 512  # samples a frame
CONTEXT = 64  # samples before it that the model hears again
WINDOW = 1024 * STEP
STATE = (1, 1, 128)


class VAD(Expert):
    name = "vad"
    card = Card(
        family="activity",
        kind="probabilities",
        what="probability of speech",
        source="Silero VAD v6",
        licence="MIT",
        dim=1,
        rate_hz=SAMPLE_RATE / STEP,
        checkpoint="built-in",
        requires=("silero_vad", "onnxruntime"),
    )
    trial = Trial(whole=1e-5, frames_off=1.0, causal=True, view=logit)
    pads = False
    window_s = WINDOW / SAMPLE_RATE
    context_s = 0.0  # what came before is in the state

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.model = package_folder("silero_vad") / "data" / "silero_vad_16k_sequence.onnx"
        self.spec = self.describe(
            dim=1,
            rate_hz=SAMPLE_RATE / STEP,
            start_s=STEP / 2 / SAMPLE_RATE,
            sample_rate=SAMPLE_RATE,
            min_samples=CONTEXT,
            weights=digest_files([self.model]),
            checkpoint=f"silero_vad/{self.model.name}",
            channels=("speech",),
        )

    def load(self, device: str) -> None:
        self.session = onnx_session(str(self.model))

    def windows(self, samples: int) -> list[Window]:
        starts = range(0, samples, WINDOW)
        return [Window(start, min(start + WINDOW, samples), 0, None) for start in starts]

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [frames for x in waveforms for frames in self.stream([x])]

    def stream(self, waveforms: Iterable[Waveform], batch_seconds: float | None = None) -> Iterator[Frames]:
        before_C = np.zeros(CONTEXT, dtype=np.float32)
        hidden = cell = np.zeros(STATE, dtype=np.float32)
        for samples_T in waveforms:
            padded_T = np.concatenate([before_C, samples_T, np.zeros(-len(samples_T) % STEP, dtype=np.float32)])
            windows_NW = np.lib.stride_tricks.sliding_window_view(padded_T, CONTEXT + STEP)[::STEP]
            speech, hidden, cell = self.session.run(
                ["speech_probs", "hn", "cn"], {"input": np.ascontiguousarray(windows_NW), "h": hidden, "c": cell}
            )
            before_C = padded_T[-CONTEXT:]
            yield speech.reshape(-1, 1).astype(np.float32, copy=False)
