"""What the trainer asks of a student: one small adapter per large audio language model.

B batch, T positions of a sequence, S samples of audio, D hidden dim, V vocabulary. The architecture stays
as transformers has it; an adapter only says where audio stands in the text, and how long it may be.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coat.manifests import InputError
from coat.trainer.students.whisper_tower import mel_frames, positions

# Only the language model: a bare `q_proj` would also hit the audio tower.
LORA_TARGETS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"


class Unusable(InputError):
    """What the student cannot take whole; it is never cut silently.

    `reason`: too_short, too_long (audio) or special_token (a prompt or response that would be read as markup).
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Prefix:
    """A prompt with its audio, up to where the response starts, without a thinking block."""

    ids: list[int]  # [T], the placeholder expanded to one id per audio position
    audio_end: int  # index in `ids` just behind the audio
    features: dict[str, Tensor]  # what the audio tower is given, batch of one


class Student(ABC):
    """A large audio language model with its processor.

    `source` is the hub id or folder that it was read from. Subclasses state names and limits.
    """

    model_type: ClassVar[str]  # of config.json
    model_class: ClassVar[str]  # of transformers
    processor_class: ClassVar[str]
    min_mel_frames: ClassVar[int]  # of the shortest audio
    audio_token: ClassVar[str]
    turn_end: ClassVar[str]  # token that ends a turn in the chat template
    lora_targets: ClassVar[str] = LORA_TARGETS

    def __init__(self, source: str, model: Any, processor: Any) -> None:
        self.source = source
        self.model = model  # ...ForConditionalGeneration
        self.processor = processor
        self.adapted: Any = None  # the PeftModel around `model`, where LoRA was added

    @classmethod
    def load(cls, source: str, dtype: torch.dtype) -> Self:
        """Read weights and processor of a hub id or folder. OSError or ValueError where it is not such a checkpoint."""
        import transformers

        model_class, processor_class = (getattr(transformers, n) for n in (cls.model_class, cls.processor_class))
        model = model_class.from_pretrained(source, dtype=dtype, use_safetensors=True)
        return cls(source, model, processor_class.from_pretrained(source))

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def sample_rate(self) -> int:
        return self.processor.feature_extractor.sampling_rate

    @property
    @abstractmethod
    def max_samples(self) -> int:
        """The longest audio that is heard whole, in samples."""

    @property
    def hop(self) -> int:
        """Samples of a mel frame."""
        return self.processor.feature_extractor.hop_length

    @property
    def min_samples(self) -> int:
        """The shortest audio that becomes audio positions, in samples."""
        return (self.min_mel_frames - 1) * self.hop + 1

    def audio_positions(self, samples: int) -> int:
        """Positions that the placeholder of audio of so many samples is expanded to, in a prefix."""
        return positions(mel_frames(samples, self.hop))

    def audio_indices(self, ids: Sequence[int]) -> list[int]:
        """Where in a prefix audio stands, one index a position."""
        audio_id = self.tokenizer.convert_tokens_to_ids(self.audio_token)
        return [i for i, token in enumerate(ids) if token == audio_id]

    @property
    def max_seconds(self) -> float:
        return self.max_samples / self.sample_rate

    @property
    def language_model(self) -> nn.Module:
        """The decoder stack; its `layers` are what LoRA adapts and what a state hook is put on."""
        return self.model.model.language_model

    @property
    def hidden_size(self) -> int:
        """D of the language model."""
        return self.model.config.text_config.hidden_size

    @abstractmethod
    def audio_end(self, ids: Sequence[int]) -> int:
        """Index just behind the audio, its closing token included."""

    def hidden_states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Last hidden states (behind the final norm), `[B, T, D]`, without any logits."""
        return self.model.model(**inputs, use_cache=False).last_hidden_state

    def prefill(self, inputs: Mapping[str, Tensor]) -> Any:
        """transformers' Cache of the keys and values of all positions, without any logits."""
        return self.model.model(**inputs, use_cache=True).past_key_values

    def logits(self, states: Tensor) -> Tensor:
        """`[..., D]` to `[..., V]`."""
        return self.model.get_output_embeddings()(states)

    def check_audio(self, samples_S: NDArray[np.float32], name: str = "audio") -> None:
        """Unusable where the student would hear nothing of it, or not all of it."""
        seconds = len(samples_S) / self.sample_rate
        if len(samples_S) < self.min_samples:
            raise Unusable(
                "too_short",
                f"{name}: {seconds:.3f} s gives no audio positions; "
                f"{self.model_type} needs at least {self.min_samples / self.sample_rate:.3f} s",
            )
        if len(samples_S) > self.max_samples:
            raise Unusable(
                "too_long",
                f"{name}: {seconds:.2f} s, but this {self.model_type} hears at most {self.max_seconds:g} s; "
                "cut the audio into parts",
            )

    def check_text(self, text: str) -> None:
        """Unusable where a text would be read as the end of a turn, as audio, or as a think position."""
        if any(token in text for token in self.tokenizer.get_added_vocab()):
            raise Unusable("special_token", f"{text[:60]!r} holds a special token of {self.model_type}; leave it out")

    def conversation(self, prompt: str) -> str:
        """The chat of one user turn with audio, up to where the response starts."""
        self.check_text(prompt)
        content = [{"type": "audio", "audio_url": "audio"}, {"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    def prefix(self, samples_S: NDArray[np.float32], prompt: str, name: str = "audio") -> Prefix:
        """Token ids and features of a prompt with its audio (mono, at `sample_rate`)."""
        self.check_audio(samples_S, name)
        encoded = self.processor(
            text=[self.conversation(prompt)],
            audio=[np.ascontiguousarray(samples_S, dtype=np.float32)],
            sampling_rate=self.sample_rate,
            return_tensors="pt",
        )
        ids = encoded["input_ids"][0].tolist()
        features = {k: v for k, v in encoded.items() if k not in ("input_ids", "attention_mask")}
        return Prefix(ids, self.audio_end(ids), features)

    def prompt_positions(self, prompt: str) -> int:
        """Positions of a prefix without its audio's."""
        return len(self.tokenizer(self.conversation(prompt))["input_ids"]) - 1  # the placeholder

    def response_ids(self, response: str) -> list[int]:
        """The response and the token that ends a turn."""
        self.check_text(response)
        ids = self.tokenizer(response, add_special_tokens=False)["input_ids"]
        return [*ids, self.tokenizer.convert_tokens_to_ids(self.turn_end)]

    @property
    def stop_ids(self) -> list[int]:
        """Tokens that end an answer; checkpoints differ in whether the tokenizer's own is the turn's."""
        return sorted({self.tokenizer.convert_tokens_to_ids(self.turn_end), self.tokenizer.eos_token_id})

    def stack_features(self, features: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Features of several prompts as one batch; here for towers with one fixed length."""
        return {name: torch.cat([f[name] for f in features]) for name in features[0]}
