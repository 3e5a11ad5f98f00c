"""Qwen2.5-Omni's Thinker (arXiv 2503.20215; weights Qwen/Qwen2.5-Omni-7B, Apache-2.0). Its Talker is not loaded.

Audio stands in the text as <|audio_bos|><|AUDIO|>...<|audio_eos|>, 25 positions a second. The tower attends within
windows of 2 s, so that it takes any number of mel frames; the processor pads them all to 300 s and cuts there. Here
the padding is cut off to the longest of a batch, and what is longer than 300 s is refused.

Positions are of three axes, which the model makes itself of ids and mask; for text and audio they are one count.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from coat.trainer.students.base import Prefix, Student
from coat.trainer.students.whisper_tower import MIN_MEL_FRAMES, mel_frames, positions

FEATURES, MASK = "input_features", "feature_attention_mask"


class Qwen25Omni(Student):
    model_type = "qwen2_5_omni"
    audio_token = "<|AUDIO|>"  # noqa: S105
    turn_end = "<|im_end|>"

    @classmethod
    def load(cls, source: str, dtype: torch.dtype) -> "Qwen25Omni":
        from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

        model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(source, dtype=dtype, use_safetensors=True)
        processor = Qwen2_5OmniProcessor.from_pretrained(source)
        return cls(source, model, processor)

    @property
    def max_samples(self) -> int:
        return self.processor.feature_extractor.n_samples

    @property
    def min_samples(self) -> int:
        return (MIN_MEL_FRAMES - 1) * self.processor.feature_extractor.hop_length + 1

    def audio_positions(self, samples: int) -> int:
        return positions(mel_frames(samples, self.processor.feature_extractor.hop_length))

    @property
    def language_model(self) -> nn.Module:
        return self.model.model.language_model

    @property
    def hidden_size(self) -> int:
        return self.model.config.text_config.hidden_size

    def audio_end(self, ids: Sequence[int]) -> int:
        return ids.index(self.tokenizer.convert_tokens_to_ids(self.processor.audio_eos_token)) + 1

    def prefix(self, samples_S: NDArray[np.float32], prompt: str, name: str = "audio") -> Prefix:
        """Its features end with the audio."""
        found = super().prefix(samples_S, prompt, name)
        frames = int(found.features[MASK].sum())
        return Prefix(found.ids, found.audio_end, {k: v[..., :frames] for k, v in found.features.items()})

    def stack_features(self, features: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        frames = max(f[MASK].shape[-1] for f in features)
        return super().stack_features(
            [{k: pad(v, (0, frames - v.shape[-1])) for k, v in f.items() if k in (FEATURES, MASK)} for f in features]
        )

    def hidden_states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return cast(Any, self.model.model)(**inputs, use_cache=False).last_hidden_state
