"""Qwen2-Audio (arXiv 2407.10759; weights Qwen/Qwen2-Audio-7B-Instruct, Apache-2.0).

Audio stands in the text as <|audio_bos|><|AUDIO|>...<|audio_eos|>, 25 positions a second. The tower takes
exactly 2 * max_source_positions mel frames (30 s in the public checkpoints); its processor pads shorter
audio and silently cuts longer audio, so longer audio is refused here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from coat.trainer.students.base import Student
from coat.trainer.students.whisper_tower import TOWER_STRIDE, mel_frames, positions

MIN_MEL_FRAMES = 7  # two audio positions; with one, transformers takes its legacy merge of unexpanded text


class Qwen2Audio(Student):
    model_type = "qwen2_audio"
    audio_token = "<|AUDIO|>"  # noqa: S105
    turn_end = "<|im_end|>"

    @classmethod
    def load(cls, source: str, dtype: torch.dtype) -> "Qwen2Audio":
        from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

        model = Qwen2AudioForConditionalGeneration.from_pretrained(source, dtype=dtype, use_safetensors=True)
        processor = Qwen2AudioProcessor.from_pretrained(source)
        return cls(source, model, processor)

    @property
    def max_samples(self) -> int:
        extractor = self.processor.feature_extractor
        frames = TOWER_STRIDE * self.model.config.audio_config.max_source_positions
        return min(frames * extractor.hop_length, extractor.n_samples)

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
        return ids.index(self.tokenizer.convert_tokens_to_ids("<|audio_eos|>")) + 1

    def hidden_states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return cast(Any, self.model.model)(**inputs, use_cache=False).last_hidden_state
