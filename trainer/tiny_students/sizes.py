"""How large a tiny student is, as configurations of transformers name it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coat.manifests import InputError

MEL_BINS = 128
MEL_FRAMES_PER_SECOND = 100


EMBEDDINGS_STD = 0.02  # of the embeddings of tokens, whatever the other weights have


@dataclass(frozen=True)
class Sizes:
    """`hidden` is the dim of both the audio tower and the language model."""

    hidden: int = 32
    text_layers: int = 2
    audio_layers: int = 1
    heads: int = 2
    seconds: int = 3  # of audio that is heard, by Audio Flamingo 3 in one window
    # Standard deviation of the random weights, but for the embeddings of tokens. 0.02, as transformers has it, is for
    # dims of thousands; of dim 64, weights near 1 / sqrt(64) learn from scratch in half the steps.
    weights_std: float = EMBEDDINGS_STD
    tied: bool = False  # whether output embeddings are the input's, in classes that know how: Omni's
    texts: Sequence[str] = ()  # whose words are tokens; none: a token a byte, and sequences five times as long

    def __post_init__(self) -> None:
        smallest = min(self.hidden, self.text_layers, self.audio_layers, self.heads, self.seconds)
        if not self.weights_std > 0:
            raise InputError(f"weights_std {self.weights_std}: expected a number above 0")
        if self.hidden % (2 * self.heads) or smallest < 1:
            raise InputError(
                f"hidden {self.hidden} must be a multiple of twice the heads ({self.heads}), and no size below 1"
            )

    @property
    def positions(self) -> int:
        """Of the audio tower."""
        return self.seconds * MEL_FRAMES_PER_SECOND // 2

    @property
    def text(self) -> dict[str, Any]:
        """What the configurations of all three language models call alike."""
        return {
            "hidden_size": self.hidden,
            "intermediate_size": 4 * self.hidden,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": self.tied,
            "initializer_range": self.weights_std,
        }

    @property
    def rope(self) -> dict[str, Any]:
        """Rotary pairs of a head, dealt to time, height and width."""
        pairs = self.hidden // self.heads // 2
        third = pairs // 3
        return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [pairs - 2 * third, third, third]}

    @property
    def vision(self) -> dict[str, Any]:
        """The least of a vision tower: classes of Omni's have one."""
        return {
            "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": self.hidden,
        }  # fmt: skip

    @property
    def audio(self) -> dict[str, Any]:
        """What the configurations of the audio towers call alike."""
        return {
            "num_mel_bins": MEL_BINS,
            "d_model": self.hidden,
            "encoder_layers": self.audio_layers,
            "encoder_attention_heads": self.heads,
            "encoder_ffn_dim": 4 * self.hidden,
            "max_source_positions": self.positions,
            "initializer_range": self.weights_std,
        }
