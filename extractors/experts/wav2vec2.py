"""Wav2Vec2: hidden states of a self-supervised speech model of the wav2vec 2.0 family, by name.

Source   wav2vec 2.0 (arXiv 2006.11477), HuBERT (2106.07447), WavLM (2110.13900), UniSpeech-SAT, data2vec-audio:
         any checkpoint of these through transformers AutoModel, such as facebook/wav2vec2-base,
         facebook/hubert-large-ll60k. Default microsoft/wavlm-large: best of them on SUPERB over content, speaker
         and paralinguistics together, and of the kind that can be batched
Licence  WavLM: that of UniSpeech (CC BY-SA 3.0); wav2vec 2.0 and HuBERT: Apache-2.0
Rate     16 kHz / product of conv_stride (320) = 50 frames a second; dim = hidden_size (wavlm-large: 1024)
Frame    i hears samples 320 * i to 320 * i + 400 through the convolutions: centred at 320 * i + 199.5. No padding
         at the ends, so (T - 400) // 320 + 1 frames
Values   `--layer last` (default): the model's output. `--layer n` of 1 to L: after layer n, before any final norm.
         `--layer mean:4,5,6`: the plain mean of those. Deeper layers are not loaded. Middle layers often serve best.
         `--layer weighted`: the sum over the embedding and all layers with the weights that a fine-tuned checkpoint
         has learned (layer_weights, through softmax); the last of these states is the model's output, after any
         final norm, as it was in training (transformers 5 gives it without)

Audio is normalised to zero mean and unit variance, per clip or window, where preprocessor_config.json says so.

Padding. Checkpoints with feat_extract_norm `group` normalise over time, padding included, and data2vec's stacked
position convolutions leak it: of these, clips are batched only with clips of equal length. The others
(`layer`: the large models) are padded and masked, which leaves values as they are alone.

Clips over 40 s are heard in windows of 40 s, of which frames with 2 s on both sides are kept: attention is quadratic,
and training clips are shorter. An adapter (add_adapter) is left out.

The experts phonemes, emotion and music are this one with a head, or with another kind of checkpoint.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from coat.extractors.checkpoints.checkpoint import Checkpoint, layer_number, open_checkpoint
from coat.extractors.checkpoints.loading import find_tensor, load_pretrained
from coat.extractors.devices import autocast, prepare_model, to_device, to_host
from coat.extractors.expert import Card, Expert, Frames, Options, Waveform
from coat.extractors.trial import Trial
from coat.extractors.windows import group_by_length, pad_batch
from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch

LEAKY = ("data2vec-audio",)  # cannot be padded, whatever their norm
MODEL_TYPES = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", *LEAKY)


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
    # Clips and states are normalised: a loud event would move every frame
    trial = Trial(quiet=0.1, loud=0.1)
    batch_seconds = 120.0
    window_s = 40.0
    context_s = 2.0
    model_types: ClassVar[Sequence[str]] = MODEL_TYPES
    model_class: ClassVar[str] = "AutoModel"  # of transformers
    beside: ClassVar[Sequence[str]] = ()  # files of the checkpoint that are read beside the usual ones
    weight_names: Mapping[str, str] = {}  # patterns of the weights' names, and what the class calls them
    mix: Mapping[int, float] = {}  # hidden states that make a frame, by weight; none: the model's output

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        name = options.checkpoint or str(self.card.checkpoint)
        self.files = files = open_checkpoint(self.name, name, self.model_types, self.beside)
        features = files.features()
        rate = features.get("sampling_rate", 16000)
        kernels, strides = files.get("conv_kernel", list), files.get("conv_stride", list)
        self.hop = math.prod(strides)  # samples a frame: 320
        # Samples that a frame hears: 400.
        self.field = 1 + sum((k - 1) * math.prod(strides[:i]) for i, k in enumerate(kernels))
        self.normalise = bool(features.get("do_normalize", True))
        self.pads = files.config.get("feat_extract_norm") == "layer" and files.config["model_type"] not in LEAKY
        self.spec = self.describe(
            rate_hz=rate / self.hop,
            start_s=(self.field - 1) / 2 / rate,
            sample_rate=rate,
            min_samples=self.field,
            weights=files.digest,
            checkpoint=name,
            settings={"normalise": self.normalise},
            **self.frame_fields(),
        )

    def frame_fields(self) -> dict[str, Any]:
        """Fields of the spec that say what a frame holds: `dim`, and what else there is to say."""
        self.mix = layer_mix(self.files, self.options.layer)
        if 0 in self.mix:
            layer = "weighted"
        else:
            numbers = ",".join(str(n) for n in self.mix)
            layer = f"mean:{numbers}" if len(self.mix) > 1 else numbers or "last"
        return {"dim": self.files.get("hidden_size"), "layer": layer}

    def config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.files.folder, trust_remote_code=False)

    def load(self, device: str) -> None:
        import transformers

        config = self.config()
        config.num_hidden_layers = max(self.mix, default=config.num_hidden_layers)
        # Of layers by number the states as the layers give them; learned weights had the normalised output as the last.
        config.tie_last_hidden_states = 0 in self.mix
        config.add_adapter = False
        cls = getattr(transformers, self.model_class)
        full_model = load_pretrained(self.files, cls, config=config, key_mapping=dict(self.weight_names))
        self.full_model = prepare_model(full_model, device, Options())
        self.model = prepare_model(self.full_model.base_model, device, self.options)
        self.device = device

    def frames_of(self, samples: int) -> int:
        return (samples - self.field) // self.hop + 1

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        clips = [normalise_clip(x) for x in waveforms] if self.normalise else waveforms
        found: dict[int, Frames] = {}
        for batch in self.batches([len(x) for x in clips]):
            for i, frames_ND in zip(batch, self.run([clips[i] for i in batch]), strict=True):
                found[i] = frames_ND
        return [found[i] for i in range(len(clips))]

    def batches(self, lengths: list[int]) -> list[list[int]]:
        """Indices of the clips that go through the model together."""
        if self.pads:
            return [list(range(len(lengths)))] if lengths else []
        return group_by_length(lengths)

    def run(self, clips: list[Waveform]) -> list[Frames]:
        import torch

        padded_BT, lengths = pad_batch(clips)
        real_BT = np.arange(lengths.max()) < lengths[:, None]
        mask = None if real_BT.all() else to_device(real_BT.astype(np.int64), self.device)
        with torch.inference_mode(), autocast(self.device, self.spec.precision):
            frames_BND = self.head(self.states(to_device(padded_BT, self.device), mask))
        return [
            frames_ND[: self.frames_of(n)]
            for frames_ND, n in zip(to_host(frames_BND, self.frames_dtype), lengths, strict=True)
        ]

    def states(self, padded_BT: "torch.Tensor", mask_BT: "torch.Tensor | None") -> "torch.Tensor":
        """`[B, N, hidden_size]`"""
        out = self.model(padded_BT, attention_mask=mask_BT, output_hidden_states=[*self.mix] or False)
        if not self.mix:
            return out.last_hidden_state
        return sum((weight * out.hidden_states[n] for n, weight in self.mix.items()), start=padded_BT.new_zeros(()))

    def head(self, states_BND: "torch.Tensor") -> "torch.Tensor":
        """`[B, N, D]`"""
        return states_BND


def layer_mix(files: Checkpoint, layer: str | None) -> dict[int, float]:
    """The hidden states that `--layer` asks for, by their weights: n is after layer n, 0 before the first.

    None of them for `last`. Where 0 is among them, the weights are learned, and all have one.
    """
    layers = files.get("num_hidden_layers")
    if layer == "weighted":
        learned = find_tensor(files, "layer_weights")
        if learned is None or len(learned) != layers + 1:
            raise InputError(
                f"{files.where}: --layer weighted: the checkpoint has no layer_weights for {layers} layers and their "
                "input; it takes one that was fine-tuned with use_weighted_layer_sum"
            )
        return dict(enumerate(learned.float().softmax(dim=-1).tolist()))
    several = re.fullmatch(r"mean:(\d+(?:,\d+)*)", layer or "")
    named = several[1].split(",") if several else [layer]
    numbers = [layer_number(files.where, n, layers, ", mean:A,B of these, or weighted") for n in named]
    chosen = sorted({n for n in numbers if n})
    return {n: 1 / len(chosen) for n in chosen}


def refuse_adapter(files: Checkpoint) -> None:
    """InputError where a head sits on an adapter, which gives fewer frames than the convolutions."""
    if files.config.get("add_adapter"):
        raise InputError(f"{files.where}: its head sits on an adapter (add_adapter), whose frames are not supported")


def normalise_clip(samples_T: Waveform) -> Waveform:
    """As Wav2Vec2FeatureExtractor does it."""
    return (samples_T - samples_T.mean()) / np.sqrt(samples_T.var() + 1e-7)
