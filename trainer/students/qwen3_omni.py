"""Qwen3-Omni's Thinker (arXiv 2509.17765; weights Qwen/Qwen3-Omni-30B-A3B-Instruct, Apache-2.0), without its Talker.

Audio stands in the text as <|audio_start|><|audio_pad|>...<|audio_end|>, 13 positions a second: the tower takes chunks
of one second, each by itself through three convolutions of stride 2. It takes any length, and its processor cuts
nothing; what is refused here is over 40 minutes (what its report promises) or half of the language model's positions.

Traps: the convolutions of a chunk that is padded to its batch mates' see that padding, so audio under one chunk is
heard with silence behind it. A layer's MLPs are experts in one 3-D parameter, which no LoRA target of modules reaches:
adapters are in the attention alone. The router is left as it is, and so is its balance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from coat.trainer.students.base import Samples
from coat.trainer.students.qwen2_5_omni import Qwen25Omni

LONGEST_S = 40 * 60
STRIDES = 3  # convolutions that halve the mel frames of a chunk


class Qwen3Omni(Qwen25Omni):
    model_type = "qwen3_omni_moe"
    model_class = "Qwen3OmniMoeThinkerForConditionalGeneration"
    processor_class = "Qwen3OmniMoeProcessor"
    min_mel_frames = 3  # as the other students; the processor's own least is 200 samples, of the STFT
    audio_token = "<|audio_pad|>"  # noqa: S105
    not_read = {r"talker\.": "it speaks, and coat trains what is written", r"code2wav\.": "of the Talker's speech"}  # noqa: RUF012
    lora_targets = r".*language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj"

    @property
    def chunk(self) -> int:
        """Mel frames that the tower takes together."""
        return 2 * self.model.config.audio_config.n_window

    @property
    def max_samples(self) -> int:
        chunks = self.model.config.text_config.max_position_embeddings // 2 // self.chunk_positions(self.chunk)
        return min(LONGEST_S * self.sample_rate, chunks * self.chunk * self.hop)

    def audio_positions(self, samples: int) -> int:
        chunks, rest = divmod(max(samples // self.hop, self.chunk), self.chunk)  # mel frames, the last rounded down
        return chunks * self.chunk_positions(self.chunk) + self.chunk_positions(rest)

    @staticmethod
    def chunk_positions(frames: int) -> int:
        for _ in range(STRIDES):
            frames = -(-frames // 2)
        return frames

    def feature_options(self, audios: Sequence[Samples]) -> dict[str, Any]:
        """Its processor pads to the longest by itself."""
        return {}

    def encode(self, text: str, audios: Sequence[Samples]) -> tuple[list[int], dict[str, Tensor]]:
        """Audio under one chunk has silence behind it."""
        chunk = self.chunk * self.hop
        return super().encode(text, [np.pad(a, (0, max(0, chunk - len(a)))) for a in audios])
