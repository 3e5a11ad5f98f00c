"""PE audio: frame embeddings of Meta's Perception Encoder for audio, in one space with texts.

Source   Perception Encoder Audiovisual (Vyas et al. 2025, arXiv 2512.19687); transformers PeAudioFrameLevelModel.
         Weights Apache-2.0; any checkpoint of model_type `pe_audio`: facebook/pe-a-frame-small, -base and -large,
         trained so that single frames match descriptions of events
Rate     48 kHz / (2 * 8 * 10 * 12, the strides of its DAC encoder) = 25 frames a second; dim = that of the texts
         (1024)
Frame    i is centred on what the convolutions hear: sample 1920 * i + 959.5
Values   get_audio_embeds of PeAudioFrameLevelModel: encoder, then its contrastive head; not scaled to length 1. The
         text tower is not loaded

Clips are padded to whole frames, ceil(T / 1920), by their own mirror image, as PeAudioFeatureExtractor does.
Its first norms are over a whole clip, and convolutions hear what comes after its end: clips are batched with their
equals in length alone.

Windows  of 30 s, of which frames with 2 s on both sides are kept; each frame hears its whole window, so that they are
         not a single pass

Limits: frames carry the level and the noise of their whole clip with them. pe-a-frame-large has 1.4 billion weights,
its text tower included; the small one 0.45.
"""

import math
from collections.abc import Sequence

import numpy as np

from coat.extractors.checkpoints.checkpoint import build_config
from coat.extractors.checkpoints.loading import load_partial
from coat.extractors.checkpoints.partial import open_partial
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial
from coat.extractors.windows import group_by_length
from coat.manifests.errors import InputError

ENCODER, HEAD = "audio_encoder.", "audio_head."
HEAD_NAMES = ("layer_norm.weight", "layer_norm.bias", "proj.weight")
HEAD_EPS = 1e-6  # of its layer norm


class PEAudio(Expert):
    name = "pe-audio"
    card = Card(
        family="events",
        kind="representation",
        what="embedding of a frame, in one space with texts",
        source="Perception Encoder Audiovisual (arXiv 2512.19687)",
        licence="Apache-2.0",
        checkpoint="facebook/pe-a-frame-large",
    )
    takes = ("checkpoint", "precision", "compile")
    # Its first norms are over the clip: a loud event would move every frame. After the codec, three convolutions of
    # three frames each: an event shows nearly as well a frame off.
    trial = Trial(quiet=0.1, loud=0.3)
    pads = False
    batch_seconds = 120.0

    def __init__(self, options: Options) -> None:
        from transformers import PeAudioEncoderConfig

        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.files = files = open_partial("pe-audio", name, ["pe_audio"], f"(?={ENCODER}|{HEAD})".replace(".", r"\."))
        if missing := [key for key in HEAD_NAMES if HEAD + key not in files.names]:
            raise InputError(f"{files.where}: no {HEAD}{missing[0]}; expected a PeAudioFrameLevelModel")
        values = files.get("audio_config", dict)
        self.config = build_config(files.where, PeAudioEncoderConfig, values)
        rate = files.features().get("sampling_rate", 48000)
        strides = self.config.dac_config.downsampling_ratios
        self.hop = math.prod(strides)  # samples a frame
        # Each stride's convolution has kernel 2 * stride, padded by half a stride, rounded up.
        centre = sum(
            (stride - 0.5 - math.ceil(stride / 2)) * math.prod(strides[:i]) for i, stride in enumerate(strides)
        )
        self.spec = self.describe(
            dim=files.tensor(f"{HEAD}proj.weight").shape[0],
            rate_hz=rate / self.hop,
            start_s=centre / rate,
            sample_rate=rate,
            min_samples=self.hop,
            weights=files.digest_with(values, files.features()),
            checkpoint=name,
        )

    def load(self, device: str) -> None:
        import torch
        from transformers import PeAudioEncoder

        encoder = load_partial(self.files.where, PeAudioEncoder, self.config, self.files.tensors_under(ENCODER))
        found = self.files.tensors_under(HEAD)
        norm = torch.nn.LayerNorm(self.config.hidden_size, eps=HEAD_EPS)
        head = torch.nn.Sequential(norm, torch.nn.Linear(self.config.hidden_size, self.spec.dim, bias=False))
        head.load_state_dict(dict(zip(head.state_dict(), [found[key] for key in HEAD_NAMES], strict=True)))
        self.model, self.head = prepare_model(encoder, device, self.options), prepare_model(head, device, Options())
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        import torch

        found: dict[int, Frames] = {}
        whole = [np.pad(x, (0, -len(x) % self.hop), mode="reflect") for x in waveforms]
        for batch in group_by_length([len(x) for x in whole]):
            padded_B1T = np.stack([whole[i] for i in batch])[:, None]
            with torch.inference_mode(), autocast(self.device, self.spec.precision):
                frames_BND = self.head(self.model(to_device(padded_B1T, self.device)).last_hidden_state)
            found |= zip(batch, to_host(frames_BND, self.frames_dtype), strict=True)
        return [found[i] for i in range(len(waveforms))]
