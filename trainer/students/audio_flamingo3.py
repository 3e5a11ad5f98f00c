"""Audio Flamingo 3 (arXiv 2507.08128; weights nvidia/audio-flamingo-3-hf, NVIDIA's non-commercial licence).

Audio stands in the text as <sound>..., without tokens around it, 25 positions a second. It is heard in windows of 30 s,
stacked on the first axis, up to 600 s; its processor cuts what is longer, with a warning, so it is refused here. One
audio a text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from coat.trainer.students.base import Student
from coat.trainer.students.whisper_tower import MIN_MEL_FRAMES, mel_frames, positions


class AudioFlamingo3(Student):
    model_type = "audioflamingo3"
    audio_token = "<sound>"  # noqa: S105
    turn_end = "<|im_end|>"

    @classmethod
    def load(cls, source: str, dtype: torch.dtype) -> "AudioFlamingo3":
        from transformers import AudioFlamingo3ForConditionalGeneration, AudioFlamingo3Processor

        model = AudioFlamingo3ForConditionalGeneration.from_pretrained(source, dtype=dtype, use_safetensors=True)
        processor = AudioFlamingo3Processor.from_pretrained(source)
        return cls(source, model, processor)

    @property
    def window_samples(self) -> int:
        return self.processor.feature_extractor.n_samples

    @property
    def max_samples(self) -> int:
        windows = int(self.processor.max_audio_len // self.processor.feature_extractor.chunk_length)
        return windows * self.window_samples

    @property
    def min_samples(self) -> int:
        return (MIN_MEL_FRAMES - 1) * self.processor.feature_extractor.hop_length + 1

    def audio_positions(self, samples: int) -> int:
        hop = self.processor.feature_extractor.hop_length
        windows, rest = divmod(samples, self.window_samples)
        whole = positions(mel_frames(self.window_samples, hop))
        return windows * whole + (positions(mel_frames(rest, hop)) if rest else 0)

    @property
    def language_model(self) -> nn.Module:
        return self.model.model.language_model

    @property
    def hidden_size(self) -> int:
        return self.model.config.text_config.hidden_size

    def audio_end(self, ids: Sequence[int]) -> int:
        return len(ids) - list(reversed(ids)).index(self.model.config.audio_token_id)

    def hidden_states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return cast(Any, self.model.model)(**inputs, use_cache=False).last_hidden_state
