"""Wav2Vec2: hidden states of a self-supervised speech model of the wav2vec 2.0 family, by name.

Source   wav2vec 2.0 (arXiv 2006.11477), HuBERT (2106.07447), WavLM (2110.13900), UniSpeech-SAT, data2vec-audio:
         any checkpoint of these through transformers AutoModel, such as facebook/wav2vec2-base,
         facebook/hubert-large-ll60k. Default microsoft/wavlm-large: best of them on SUPERB over content, speaker
         and paralinguistics together, and of the kind that can be batched
Licence  WavLM: that of UniSpeech (CC BY-SA 3.0); wav2vec 2.0 and HuBERT: Apache-2.0
Rate     16 kHz / product of conv_stride (320) = 50 frames a second; dim = hidden_size (wavlm-large: 1024)
Frame    i hears samples 320 * i to 320 * i + 400 through the convolutions: centred at 320 * i + 199.5. No padding
         at the ends, so (T - 400) // 320 + 1 frames
Values   `--layer last` (default): the model's output. `--layer n` of 1 to L: after layer n, before any final norm;
         deeper layers are not loaded. Middle layers often serve best

Audio is normalised to zero mean and unit variance, per clip or window, where preprocessor_config.json says so.

Padding. Checkpoints with feat_extract_norm `group` normalise over time, padding included, and data2vec's stacked
position convolutions leak it: of these, clips are batched only with clips of equal length. The others
(`layer`: the large models) are padded and masked, which leaves values as they are alone.

Clips over 40 s are heard in windows of 40 s, of which frames with 2 s on both sides are kept: attention is quadratic,
and training clips are shorter. An adapter (add_adapter) is left out.
"""

import math
from collections.abc import Sequence

import numpy as np

from coat.extractors.checkpoints import layer_number, load_pretrained, open_checkpoint
from coat.extractors.devices import autocast, place, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Trial, Waveform
from coat.extractors.windows import by_length, pad

PADDABLE = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")  # where their norm is `layer`
MODEL_TYPES = (*PADDABLE, "data2vec-audio")


class Wav2Vec2(Expert):
    name = "wav2vec2"
    card = Card(
        family="speech",
        kind="representation",
        what="hidden state of a self-supervised speech model",
        source="wav2vec 2.0, HuBERT, WavLM, data2vec",
        licence="of the checkpoint (WavLM: CC BY-SA 3.0)",
        rate_hz=50.0,
        checkpoint="microsoft/wavlm-large",
    )
    takes = ("checkpoint", "layer", "precision", "compile")
    trial = Trial(quiet=0.1, loud=0.2)  # clips are normalised: a loud burst would move every frame
    batch_seconds = 120.0
    window_s = 40.0
    context_s = 2.0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.files = files = open_checkpoint("wav2vec2", name, MODEL_TYPES)
        features = files.features()
        rate = features.get("sampling_rate", 16000)
        kernels, strides = files.get("conv_kernel", list), files.get("conv_stride", list)
        self.hop = math.prod(strides)  # samples a frame: 320
        # Samples that a frame hears: 400.
        self.field = 1 + sum((k - 1) * math.prod(strides[:i]) for i, k in enumerate(kernels))
        self.normalise = bool(features.get("do_normalize", True))
        self.pads = files.config.get("feat_extract_norm") == "layer" and files.config["model_type"] in PADDABLE
        self.layer = layer_number(files.where, options.layer, files.get("num_hidden_layers"))
        self.spec = self.describe(
            dim=files.get("hidden_size"),
            rate_hz=rate / self.hop,
            start_s=(self.field - 1) / 2 / rate,
            sample_rate=rate,
            min_samples=self.field,
            weights=files.digest,
            checkpoint=name,
            layer=str(self.layer or "last"),
            settings={"normalise": self.normalise},
        )

    def load(self, device: str) -> None:
        import torch
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.from_pretrained(self.files.folder, trust_remote_code=False)
        config.num_hidden_layers = self.layer or config.num_hidden_layers
        config.add_adapter = False
        self.model = load_pretrained(self.files, AutoModel, config=config)
        if self.layer and getattr(
            config, "do_stable_layer_norm", False
        ):  # the kind whose last norm comes after the layers
            self.model.encoder.layer_norm = torch.nn.Identity()
        self.model = place(self.model, device, self.options)
        self.device = device

    def frames_of(self, samples: int) -> int:
        return (samples - self.field) // self.hop + 1

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        heard = [normalised(x) for x in waveforms] if self.normalise else waveforms
        found: dict[int, Frames] = {}
        for batch in self.batches([len(x) for x in heard]):
            for i, frames_ND in zip(batch, self.run([heard[i] for i in batch]), strict=True):
                found[i] = frames_ND
        return [found[i] for i in range(len(heard))]

    def batches(self, lengths: list[int]) -> list[list[int]]:
        """Indices of the clips that go through the model together."""
        if self.pads:
            return [list(range(len(lengths)))] if lengths else []
        return by_length(lengths)

    def run(self, heard: list[Waveform]) -> list[Frames]:
        import torch

        padded_BT, lengths = pad(heard)
        real_BT = np.arange(lengths.max()) < lengths[:, None]
        mask = None if real_BT.all() else to_device(real_BT.astype(np.int64), self.device)
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            states_BND = self.model(to_device(padded_BT, self.device), attention_mask=mask).last_hidden_state
        return [frames_ND[: self.frames_of(n)] for frames_ND, n in zip(to_host(states_BND), lengths, strict=True)]


def normalised(samples_T: Waveform) -> Waveform:
    """As Wav2Vec2FeatureExtractor does it."""
    return (samples_T - samples_T.mean()) / np.sqrt(samples_T.var() + 1e-7)
