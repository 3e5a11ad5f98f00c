"""Qwen2.5-Omni's Thinker (arXiv 2503.20215; weights Qwen/Qwen2.5-Omni-7B, Apache-2.0). Its Talker is not loaded.

Audio stands in the text as <|audio_bos|><|AUDIO|>...<|audio_eos|>, 25 positions a second. The tower attends within
windows of 2 s, so that it takes any number of mel frames. By itself the processor pads them all to 300 s, computes
that, and cuts there; here it pads to the longest of a text, a batch to its longest, and what is over 300 s is refused.

Positions are of three axes, which the model makes itself of ids and mask; for text and audio they are one count.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from coat.trainer.students.base import Samples, Student, index_after_last
from coat.trainer.students.whisper_tower import MIN_MEL_FRAMES

FEATURES, MASK = "input_features", "feature_attention_mask"


class Qwen25Omni(Student):
    model_type = "qwen2_5_omni"
    model_class = "Qwen2_5OmniThinkerForConditionalGeneration"
    processor_class = "Qwen2_5OmniProcessor"
    min_mel_frames = MIN_MEL_FRAMES
    audio_token = "<|AUDIO|>"  # noqa: S105
    turn_end = "<|im_end|>"
    not_read = {r"talker\.": "it speaks, and coat trains what is written", r"token2wav\.": "of the Talker's speech"}  # noqa: RUF012

    @property
    def max_samples(self) -> int:
        return self.processor.feature_extractor.n_samples

    def audio_end(self, ids: Sequence[int]) -> int:
        return index_after_last(ids, self.tokenizer.convert_tokens_to_ids(self.processor.audio_eos_token))

    def feature_options(self, audios: Sequence[Samples]) -> dict[str, Any]:
        """Whole mel frames of the longest audio, and half a window of the STFT, which the last frame reaches into."""
        hop, window = self.hop, self.processor.feature_extractor.n_fft
        longest = max((len(a) for a in audios), default=0)
        return {"audio_kwargs": {"max_length": min(-(-longest // hop) * hop + window, self.max_samples)}}

    def encode(self, text: str, audios: Sequence[Samples]) -> tuple[list[int], dict[str, Tensor]]:
        """Its features end with the longest audio."""
        ids, features = super().encode(text, audios)
        frames = int(features[MASK].sum(-1).max())
        return ids, {k: v[..., :frames] for k, v in features.items() if k in (FEATURES, MASK)}

    def stack_features(self, features: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        frames = max((f[MASK].shape[-1] for f in features if f), default=0)
        return super().stack_features([{k: pad(v, (0, frames - v.shape[-1])) for k, v in f.items()} for f in features])

    def tower_indices(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What its tower would compute of lengths that it asked the device for: by transformers' own functions."""
        from transformers.models.qwen2_5_omni import modeling_qwen2_5_omni as modeling

        frames_A, window = inputs[MASK].sum(-1), self.model.config.audio_config.n_window
        windows, lengths = modeling.chunk_and_pad_features(without_padding(inputs), frames_A, window)
        return {
            "padded_feature": windows.contiguous(),
            "chunk_lengths": lengths,
            "valid_indices": modeling.get_valid_indices(lengths),
            "pool_indices": modeling.get_pool_indices(frames_A),
            "cu_seqlens": modeling.get_audio_cu_seqlens(lengths),
        }

    @property
    def longest_window(self) -> int:
        """Positions of its tower that attend to each other, at most."""
        return self.model.config.audio_config.n_window

    def hear(self, inputs: Mapping[str, Tensor], indices: Mapping[str, Tensor]) -> Tensor:
        known = {name: tensor for name, tensor in indices.items() if name != "audio_R"}
        longest = min(self.longest_window, len(indices["valid_indices"]))
        return self.model.model.audio_tower(max_seqlen=longest, **known).last_hidden_state

    def decode(self, embedded_BTD: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        """With one count as positions on all three axes, which it does not take for sequences that are packed."""
        at_T = torch.arange(embedded_BTD.shape[1], device=embedded_BTD.device)
        at_3BT = at_T.expand(3, len(embedded_BTD), -1)
        return self.language_model(
            inputs_embeds=embedded_BTD, attention_mask=mask_B1TT, position_ids=at_3BT, use_cache=False
        ).last_hidden_state


def without_padding(inputs: Mapping[str, Tensor]) -> Tensor:
    """Mel frames of all audios behind each other, `[bins, frames]`."""
    return inputs[FEATURES].transpose(1, 2)[inputs[MASK].bool()].T
