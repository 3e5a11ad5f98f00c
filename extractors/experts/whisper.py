"""Whisper: hidden states of the encoder of a speech recogniser.

Source   Whisper (Radford et al. 2022, arXiv 2212.04356); transformers WhisperEncoder. Weights Apache-2.0 (hub)
         or MIT (OpenAI); any checkpoint of model_type `whisper`
Rate     16 kHz / 160 (mel hop) / 2 (second convolution) = 50 frames a second; dim = d_model (large-v3: 1280)
Frame    i is centred at sample 320 * i; a frame is kept where its centre lies in the clip: ceil(T / 320) frames
Values   `--layer last` (default): the encoder's output, after its final norm. `--layer n`: the output of layer
         n of 1 to L, before any final norm; deeper layers are not loaded.

Every clip is padded with zeros to 30 s (max_source_positions frames), as the model was trained, so a short one
costs as much as a long one. `--pad-margin S` pads it by S seconds instead, and up to a whole one, with the positions
that this needs: faster, and not what the model gives (docs/experts.md has the error).
Longer clips: windows of 30 s, of which frames with 2.5 s on both sides are kept; each window is heard on its own, as
a clip would be (Whisper's features are clamped by their own maximum).

Limits: trained on speech; positions beyond a clip's end are never kept, but were attended to.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from coat.extractors.checkpoints.checkpoint import layer_number, open_checkpoint
from coat.extractors.checkpoints.loading import load_pretrained
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.windows import group_by_length
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

STRIDE = 2  # of the second convolution, in mel frames; kernel 3, padding 1: output j is centred on mel frame 2 * j


class Whisper(Expert):
    name = "whisper"
    card = Card(
        family="speech",
        kind="representation",
        what="encoder hidden state",
        source="Whisper (arXiv 2212.04356)",
        licence="Apache-2.0",
        rate_hz=50.0,
        checkpoint="openai/whisper-large-v3",
    )
    takes = ("checkpoint", "layer", "precision", "compile", "pad_margin")
    batch_seconds = 240.0  # eight windows

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.files = files = open_checkpoint("whisper", name, ["whisper"])
        features = files.features()
        rate, mel_hop = features.get("sampling_rate", 16000), features.get("hop_length", 160)
        if features.get("feature_size", 80) != files.get("num_mel_bins"):
            raise InputError(f"{files.where}: preprocessor_config.json and config.json differ in mel bins")
        self.hop = mel_hop * STRIDE  # samples a frame
        self.window_samples = files.get("max_source_positions") * self.hop  # samples of a window: 30 s
        self.window_s = self.window_samples / rate
        self.context_s = self.window_s / 12
        self.pads = options.pad_margin is None
        self.layer = layer_number(files.where, options.layer, files.get("encoder_layers"))
        self.spec = self.describe(
            dim=files.get("d_model"),
            rate_hz=rate / self.hop,
            start_s=0.0,
            sample_rate=rate,
            min_samples=mel_hop,  # it is padded to 30 s in any case
            weights=files.digest,
            checkpoint=name,
            layer=str(self.layer or "last"),
            settings={} if options.pad_margin is None else {"pad_margin_s": options.pad_margin},
        )

    def load(self, device: str) -> None:
        import torch
        from transformers import WhisperConfig, WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        config = WhisperConfig.from_pretrained(self.files.folder)
        config.encoder_layers = self.layer or config.encoder_layers
        prefix = {r"^(model\.)?encoder\.": ""}  # the encoder's own names; the decoder's match nothing and stay on disk
        self.model = load_pretrained(self.files, WhisperEncoder, config=config, key_mapping=prefix)
        if self.layer:
            self.model.layer_norm = torch.nn.Identity()
        self.model = prepare_model(self.model, device, Options())
        self.encode = torch.compile(self.states, dynamic=True) if self.options.compile else self.states
        self.device = device
        self.features = WhisperFeatureExtractor.from_pretrained(self.files.folder, dither=0.0)

    def padded_samples(self, samples: int) -> int:
        if self.options.pad_margin is None:
            return self.window_samples
        rate = self.spec.sample_rate
        return min(self.window_samples, math.ceil(samples / rate + self.options.pad_margin) * rate)

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        found: dict[int, Frames] = {}
        padded = [self.padded_samples(len(x)) for x in waveforms]
        for batch in group_by_length(padded):
            states_BND = self.forward([np.pad(x, (0, padded[i] - len(x))) for i in batch for x in [waveforms[i]]])
            for i, states_ND in zip(batch, states_BND, strict=True):
                found[i] = states_ND[: -(-len(waveforms[i]) // self.hop)]
        return [found[i] for i in range(len(waveforms))]

    def forward(self, clips: list[Waveform]) -> Frames:
        """`[B, N, D]` of clips of one length."""
        import torch

        mel_BDT = self.features(
            clips, sampling_rate=self.spec.sample_rate, padding="do_not_pad", return_tensors="np", device=self.device
        )["input_features"]
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            states_BND = self.encode(to_device(mel_BDT, self.device))
        return to_host(states_BND, self.frames_dtype)

    def states(self, mel_BDT: "torch.Tensor") -> "torch.Tensor":
        """WhisperEncoder.forward, which insists on 30 s, on its own modules, with the first positions of them."""
        import torch.nn.functional as F

        model = self.model
        states_BDN = F.gelu(model.conv2(F.gelu(model.conv1(mel_BDT))))
        states_BND = states_BDN.transpose(1, 2) + model.embed_positions.weight[: states_BDN.shape[-1]]
        for layer in model.layers:
            states_BND = layer(states_BND, None)
        return model.layer_norm(states_BND)
