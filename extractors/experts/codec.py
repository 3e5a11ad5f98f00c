"""Codec: what a neural audio codec's encoder makes of the sound, before it is quantised.

Source   EnCodec (Défossez et al. 2022, arXiv 2210.13438; code and weights MIT), mono and causal, as
         facebook/encodec_24khz; DAC (Kumar et al. 2023, arXiv 2306.06546; MIT), as descript/dac_24khz or dac_16khz;
         Mimi (Défossez et al. 2024, arXiv 2410.00037; code MIT, weights CC BY 4.0), as kyutai/mimi.
         transformers EncodecModel, DacModel, MimiModel, by model_type
Rate     sample rate / product of the strides. EnCodec 24 kHz / (2 * 4 * 5 * 8) = 75 Hz x 128; DAC 24 kHz / 320 =
         75 Hz, 16 kHz / 512 = 31.25 Hz, x 1024; Mimi 24 kHz / (4 * 5 * 6 * 8) / 2 = 12.5 Hz x 512 (past its
         transformer)
Frame    DAC: i is centred on what its convolutions hear, sample 320 * i + 155.5 at 24 kHz. EnCodec and Mimi hear the
         past alone: frame i is the first to hear samples hop * i to hop * (i + 1), which the decoder makes from it,
         and is centred on these
Values   the input of the quantiser: the reference's own codes follow from them. Not normalised

Clips are padded with zeros to whole frames, ceil(T / hop), as DAC's feature extractor does. EnCodec and Mimi in
transformers pad the last frame by layer instead: of a clip that ends inside a frame, that one frame differs.

Padding. DAC's convolutions hear what comes after a clip's end, and EnCodec mirrors its first six frames to make a
start: clips of DAC, and those of EnCodec under seven frames, are batched with their equals in length alone.

Windows  DAC: of 10 s, with the 2656.5 samples (at 24 kHz) that a frame hears on both sides: equal to a single pass.
         EnCodec: of 30 s with 2 s; its LSTM remembers all before, so that this is not a single pass. Mimi: of 40 s
         with 10 s, to which each of its layers attends; not a single pass

Limits: latents follow the waveform, its phase and level too. Stereo, chunked or normalising EnCodec (48 kHz): refused.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coat.extractors.checkpoints.checkpoint import build_config, open_checkpoint
from coat.extractors.checkpoints.loading import load_pretrained
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial
from coat.extractors.windows import group_by_length, pad_batch
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("encodec", "dac", "mimi")
DAC_ENDS = (3, 1)  # steps that DAC's first and last convolutions, of kernels 7 and 3, hear on both sides
DAC_RESIDUAL = 3 * (1 + 3 + 9)  # ... and the three of kernel 7 and these dilations before each stride


class Codec(Expert):
    name = "codec"
    card = Card(
        family="reconstruction",
        kind="representation",
        what="codec latent before quantisation",
        source="EnCodec (arXiv 2210.13438), DAC (2306.06546), Mimi (2410.00037)",
        licence="of the checkpoint (EnCodec, DAC: MIT; Mimi: CC BY 4.0)",
        checkpoint="facebook/encodec_24khz",
    )
    takes = ("checkpoint", "precision", "compile")
    batch_seconds = 120.0

    def __init__(self, options: Options) -> None:
        import transformers

        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.files = files = open_checkpoint("codec", name, MODEL_TYPES)
        self.kind = files.config["model_type"]
        cls = {"encodec": transformers.EncodecConfig, "dac": transformers.DacConfig, "mimi": transformers.MimiConfig}
        config = build_config(files.where, cls[self.kind], files.config)
        # config.json of older DAC checkpoints has no sampling rate, and a wrong hop_length.
        rate = int(files.features().get("sampling_rate", config.sampling_rate))
        if files.config.get("sampling_rate", rate) != rate:
            raise InputError(f"{files.where}: preprocessor_config.json and config.json differ in sampling_rate")
        strides = config.downsampling_ratios if self.kind == "dac" else config.upsampling_ratios[::-1]
        self.hop = math.prod(strides) * (config.latent_stride if self.kind == "mimi" else 1)  # samples a frame
        centre, self.shared = (self.hop - 1) / 2, 0  # `shared`: samples from which on a clip may be padded in a batch
        if self.kind == "dac":
            low, high = dac_receptive_field(strides)
            centre, self.shared, self.pads = (low + high) / 2, math.inf, False
            self.window_s, self.context_s, self.trial = 10.0, (high - low) / 2 / rate, Trial(window_tolerance=1e-5)
        else:
            self.trial = Trial(causal=True)
            require_causal(files.where, config)
        if self.kind == "encodec":
            self.shared = config.last_kernel_size * self.hop
        if self.kind == "mimi":
            self.window_s, self.context_s = 40.0, config.sliding_window * math.prod(strides) / rate
        self.spec = self.describe(
            dim=config.hidden_size,
            rate_hz=rate / self.hop,
            start_s=centre / rate,
            sample_rate=rate,
            min_samples=self.hop,
            weights=files.digest,
            checkpoint=name,
            settings={"codec": self.kind},
        )

    def load(self, device: str) -> None:
        import transformers

        cls = {"encodec": transformers.EncodecModel, "dac": transformers.DacModel, "mimi": transformers.MimiModel}
        encoder = load_pretrained(self.files, cls[self.kind]).encoder
        self.model = sizes_on_host(prepare_model(encoder, device, Options()))
        self.encode = self.latents
        if self.options.compile:
            import torch

            self.encode = torch.compile(self.latents, dynamic=True)
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        found: dict[int, Frames] = {}
        whole = [np.pad(x, (0, -len(x) % self.hop)) for x in waveforms]
        for batch in group_by_length([0 if len(x) >= self.shared else len(x) for x in whole]):
            for i, frames_ND in zip(batch, self.run([whole[i] for i in batch]), strict=True):
                found[i] = frames_ND
        return [found[i] for i in range(len(waveforms))]

    def run(self, clips: list[Waveform]) -> list[Frames]:
        import torch

        padded_BT, lengths = pad_batch(clips)
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            latents_BND = self.encode(to_device(padded_BT[:, None], self.device)).transpose(1, 2)
        frames = lengths // self.hop
        return [latents_ND[:n] for latents_ND, n in zip(to_host(latents_BND, self.frames_dtype), frames, strict=True)]

    def latents(self, padded_B1T: "torch.Tensor") -> "torch.Tensor":
        out = self.model(padded_B1T)
        return out.latents if self.kind == "mimi" else out


def dac_receptive_field(strides: Sequence[int]) -> tuple[int, int]:
    """First and last sample that frame 0 hears: from its last convolution back to the sound."""
    low, high = -DAC_ENDS[1], DAC_ENDS[1]
    for stride in reversed(strides):  # each by a convolution of kernel 2 * stride, padded by half a stride, rounded up
        before = math.ceil(stride / 2)
        low, high = low * stride - before, high * stride - before + 2 * stride - 1
        low, high = low - DAC_RESIDUAL, high + DAC_RESIDUAL
    return low - DAC_ENDS[0], high + DAC_ENDS[0]


def require_causal(where: str, config: Any) -> None:
    """InputError where padding would reach back in time, or channels are more than one."""
    wrong = {
        "audio_channels": config.audio_channels != 1,
        "use_causal_conv": not config.use_causal_conv,
        "chunk_length_s": getattr(config, "chunk_length_s", None) is not None,
        "normalize": getattr(config, "normalize", False),
        "norm_type": getattr(config, "norm_type", "weight_norm") != "weight_norm",
    }
    if found := [f"{key} = {getattr(config, key)!r}" for key, is_wrong in wrong.items() if is_wrong]:
        raise InputError(
            f"{where}: config.json has {', '.join(found)}; expected a mono causal codec that hears clips whole"
        )


def sizes_on_host(model: Any) -> Any:
    """Convolutions of EnCodec and Mimi keep their sizes as buffers; read from a GPU, each would make the host wait."""
    for module in model.modules():
        for name in ("stride", "kernel_size", "padding_total"):
            if name in module._buffers:
                module._buffers[name] = module._buffers[name].cpu()
    return model
