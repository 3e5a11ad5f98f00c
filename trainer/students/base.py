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

from coat.trainer.students.attention import use_tower_attention
from coat.trainer.students.chat import Chat, Turns
from coat.trainer.students.unusable import UnusableInput
from coat.trainer.students.weights import check_all_read, check_finite, weights_digest
from coat.trainer.students.whisper_tower import audio_positions, mel_frames

Samples = NDArray[np.float32]  # [S], mono

# Only the language model: a bare `q_proj` would also hit the audio tower.
LORA_TARGETS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj"


@dataclass(frozen=True)
class Prefix:
    """A prompt with its audio and earlier turns, up to where the response starts, without a thinking block."""

    ids: list[int]  # [T], the placeholder expanded to one id per audio position
    audio_end: int  # index in `ids` just behind the last audio; 0: there is none
    features: dict[str, Tensor]  # what the audio tower is given, one row an audio or window; empty: there is none
    answers: tuple[range, ...] = ()  # indices of the answers of earlier turns, each with the token that ends a turn


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
    max_audios: ClassVar[int | None] = None  # in one text; None: any number
    lora_targets: ClassVar[str] = LORA_TARGETS
    not_read: ClassVar[Mapping[str, str]] = {}  # patterns of names of tensors that are left out: why

    def __init__(self, source: str, model: Any, processor: Any) -> None:
        self.source = source
        self.model = model  # ...ForConditionalGeneration
        self.processor = processor
        self.chat = Chat(source, processor, self.model_type, self.audio_token, self.turn_end)
        self.digest = ""  # of the weights as they were read
        self.peft_model: Any = None  # the PeftModel around `model`, where LoRA was added

    @classmethod
    def load(cls, source: str, dtype: torch.dtype, attention: str = "sdpa", **options: Any) -> Self:
        """Read weights and processor of a hub id or folder; `options` are further ones of `from_pretrained`.

        OSError or ValueError where it is not such a checkpoint.

        InputError where a tensor is missing, unknown, of another shape, or holds what is not finite.
        """
        import transformers

        model_class, processor_class = (getattr(transformers, n) for n in (cls.model_class, cls.processor_class))
        model, info = model_class.from_pretrained(
            source, dtype=dtype, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True,
            attn_implementation=attention, **options,
        )  # fmt: skip
        check_all_read(source, info, cls.not_read)
        use_tower_attention(model)
        student = cls(source, model, processor_class.from_pretrained(source))
        check_finite(source, model)
        student.digest = weights_digest(model)
        return student

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
        return audio_positions(mel_frames(samples, self.hop))

    def feature_rows(self, samples: int) -> int:
        """Rows that audio of so many samples has in the features."""
        return 1

    def audio_indices(self, ids: Sequence[int]) -> list[int]:
        """Where in a prefix audio stands, one index a position."""
        audio_id = self.tokenizer.convert_tokens_to_ids(self.audio_token)
        return [i for i, token in enumerate(ids) if token == audio_id]

    @property
    def max_positions(self) -> int | None:
        """The longest sequence that its language model was made for; None where its config does not say."""
        return getattr(self.model.config.text_config, "max_position_embeddings", None)

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
        """Index just behind the last audio, its closing token included."""

    def hidden_states(
        self,
        inputs: Mapping[str, Tensor],
        indices: Mapping[str, Tensor] | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states (behind the final norm), `[B, T, D]`, without any logits.

        With a batch's `indices` nothing is asked of the device; states of padding are then of no meaning. With them
        there may be a mask of what each position attends to (bool) in place of the causal one, but not for eager.
        """
        if not indices or self.model.config.text_config._attn_implementation == "eager":
            assert mask_B1TT is None
            return self.model.model(**inputs, use_cache=False).last_hidden_state
        embedded_BTD = self.model.get_input_embeddings()(inputs["input_ids"])
        heard_RD = self.hear(inputs, indices).to(embedded_BTD.dtype)
        audio_R, positions = indices["audio_R"], embedded_BTD.shape[1]
        embedded_BTD = embedded_BTD.index_put((audio_R // positions, audio_R % positions), heard_RD)
        return self.decode(embedded_BTD, mask_B1TT)

    def indices(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where everything stands in a batch that is padded on the right, for `hidden_states`: made on the host.

        `audio_R`: positions of audio, of all B * T; and what the tower needs to know.
        """
        audio_id = self.tokenizer.convert_tokens_to_ids(self.audio_token)
        audio_R = (inputs["input_ids"].flatten() == audio_id).nonzero()[:, 0]
        return {"audio_R": audio_R, **self.tower_indices(inputs)}

    @abstractmethod
    def tower_indices(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `hear` is given."""

    @abstractmethod
    def hear(self, inputs: Mapping[str, Tensor], indices: Mapping[str, Tensor]) -> Tensor:
        """What the audio tower makes of a batch's audio: as many states as it has positions in the text, `[R, D]`."""

    def decode(self, embedded_BTD: Tensor, mask_B1TT: Tensor | None) -> Tensor:
        """The language model's last states. Padding is on the right, where no position sees it: it needs no mask."""
        masks = {"full_attention": mask_B1TT}
        return self.language_model(inputs_embeds=embedded_BTD, attention_mask=masks, use_cache=False).last_hidden_state

    def prefill(self, inputs: Mapping[str, Tensor]) -> Any:
        """transformers' Cache of the keys and values of all positions, without any logits."""
        return self.model.model(**inputs, use_cache=True).past_key_values

    def logits(self, states: Tensor) -> Tensor:
        """`[..., D]` to `[..., V]`."""
        return self.model.get_output_embeddings()(states)

    def check_audio(self, samples_S: NDArray[np.float32], name: str = "audio") -> None:
        """UnusableInput where the student would hear nothing of it, or not all of it."""
        seconds = len(samples_S) / self.sample_rate
        if len(samples_S) < self.min_samples:
            raise UnusableInput(
                "too_short",
                f"{name}: {seconds:.3f} s gives no audio positions; "
                f"{self.model_type} needs at least {self.min_samples / self.sample_rate:.3f} s",
            )
        if len(samples_S) > self.max_samples:
            raise UnusableInput(
                "too_long",
                f"{name}: {seconds:.2f} s, but this {self.model_type} hears at most {self.max_seconds:g} s; "
                "cut the audio into parts",
            )

    def prefix(
        self,
        samples_S: Samples | Sequence[Samples] | None,
        prompt: str,
        name: str = "audio",
        turns: Turns = (),
    ) -> Prefix:
        """Token ids and features of a prompt with its audio (at `sample_rate`): one, several, or None.

        UnusableInput where the student cannot take them whole; `name` says in it whose they are.
        """
        audios = [] if samples_S is None else [samples_S] if isinstance(samples_S, np.ndarray) else list(samples_S)
        if self.max_audios is not None and len(audios) > self.max_audios:
            raise UnusableInput(
                "too_many_audios", f"{name}: {len(audios)} audios; {self.model_type} hears {self.max_audios} in a text"
            )
        for audio_S in audios:
            self.check_audio(audio_S, name)
        first, rest = self.chat.tokenize_turns(prompt, len(audios), turns)
        if audios:
            ids, features = self.encode(first, [np.ascontiguousarray(a, dtype=np.float32) for a in audios])
        else:
            ids, features = list(self.tokenizer(first)["input_ids"]), {}
        audio_end = self.audio_end(ids) if audios else 0
        answers = []
        for answer, between in rest:
            answers.append(range(len(ids), len(ids) + len(answer)))
            ids += [*answer, *between]
        return Prefix(ids, audio_end, features, tuple(answers))

    def encode(self, text: str, audios: Sequence[Samples]) -> tuple[list[int], dict[str, Tensor]]:
        """Ids of a text with its placeholders expanded, and features, by the student's own processor."""
        options = {"sampling_rate": self.sample_rate, "return_tensors": "pt", **self.feature_options(audios)}
        encoded = self.processor(text=[text], audio=audios, **options)
        ids = encoded["input_ids"][0].tolist()
        return ids, {k: v for k, v in encoded.items() if k not in ("input_ids", "attention_mask")}

    def feature_options(self, audios: Sequence[Samples]) -> dict[str, Any]:
        """What the processor is told beside the audio, so that it works on no more than there is."""
        return {}

    def prompt_positions(self, prompt: str, audios: int = 1, turns: Turns = ()) -> int:
        """Positions of a prefix without its audio's."""
        first, rest = self.chat.tokenize_turns(prompt, audios, turns)
        return len(self.tokenizer(first)["input_ids"]) - audios + sum(len(a) + len(b) for a, b in rest)

    def stack_features(self, features: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Features of several prompts as one batch, of those that have audio; here for towers with one fixed length."""
        with_audio = [f for f in features if f]
        return {name: torch.cat([f[name] for f in with_audio]) for name in (with_audio[0] if with_audio else ())}


def index_after_last(ids: Sequence[int], token: int) -> int:
    """Index just after the last of these tokens."""
    return len(ids) - list(reversed(ids)).index(token)
