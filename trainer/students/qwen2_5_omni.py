"""Qwen2.5-Omni's Thinker (arXiv 2503.20215; weights Qwen/Qwen2.5-Omni-7B, Apache-2.0). Its Talker is not loaded.

Audio stands in the text as <|audio_bos|><|AUDIO|>...<|audio_eos|>, 25 positions a second. The tower attends within
windows of 2 s, so that it takes any number of mel frames; the processor pads them all to 300 s and cuts there. Here
the padding is cut off to the longest of a batch, and what is longer than 300 s is refused.

Positions are of three axes, which the model makes itself of ids and mask; for text and audio they are one count.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from coat.trainer.students.base import Prefix, Student
from coat.trainer.students.whisper_tower import MIN_MEL_FRAMES

FEATURES, MASK = "input_features", "feature_attention_mask"


class Qwen25Omni(Student):
    model_type = "qwen2_5_omni"
    model_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    processor_class = "Qwen2_5OmniProcessor"
    min_mel_frames = MIN_MEL_FRAMES
    audio_token = "<|AUDIO|>"  # noqa: S105
    turn_end = "<|im_end|>"

    @property
    def max_samples(self) -> int:
        return self.processor.feature_extractor.n_samples

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
