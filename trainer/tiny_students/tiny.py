"""Tiny random checkpoints in the students' true formats: for tests and the quickstart, fully offline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coat.manifests import InputError

SAMPLE_RATE = 16000  # Hz, as the public checkpoints
MEL_BINS = 128
MEL_FRAMES_PER_SECOND = 100
PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # as in the public checkpoints
QWEN_AUDIO = {"audio_bos_token": "<|audio_bos|>", "audio_token": "<|AUDIO|>", "audio_eos_token": "<|audio_eos|>"}
QWEN_VISION = {
    "image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
}  # fmt: skip
QWEN3_AUDIO = {"audio_bos_token": "<|audio_start|>", "audio_token": "<|audio_pad|>", "audio_eos_token": "<|audio_end|>"}
QWEN3_VISION = {
    "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
}  # fmt: skip
SOUND = {"audio_token": "<sound>"}
FLAMINGO_WINDOWS = 4  # longest audio, in windows of `seconds`
QWEN3_RATE = 13  # audio positions a second
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'audio' %}AUDIO{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Sizes:
    """`hidden` is the dim of both the audio tower and the language model."""

    hidden: int = 32
    text_layers: int = 2
    audio_layers: int = 1
    heads: int = 2
    seconds: int = 3  # of audio that is heard, by Audio Flamingo 3 in one window

    def __post_init__(self) -> None:
        smallest = min(self.hidden, self.text_layers, self.audio_layers, self.heads, self.seconds)
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
            "tie_word_embeddings": False,
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
        }


def make_tiny_student(out: str | Path, *, name: str = "qwen2-audio", seed: int = 0, **sizes: int) -> Path:
    """Write a random student of these Sizes; equal arguments give equal weights.

    InputError: unknown name, bad sizes, or `out` holds something already.
    """
    folder = Path(out)
    if name not in BUILDERS:
        raise InputError(f"tiny student {name!r} is not one of {', '.join(BUILDERS)}")
    wanted = Sizes(**sizes)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not an empty folder; choose another")
    import torch

    with torch.random.fork_rng(devices=[]):  # the caller's random state is its own
        torch.manual_seed(seed)
        model, processor = BUILDERS[name](wanted)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def qwen2_audio(sizes: Sizes) -> tuple[Any, Any]:
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        Qwen2Config,
    )

    tokenizer = byte_tokenizer(list(QWEN_AUDIO.values()))
    text = Qwen2Config(**sizes.text, **ids_of(tokenizer), bos_token_id=None)
    audio_id = tokenizer.convert_tokens_to_ids(QWEN_AUDIO["audio_token"])
    audio = Qwen2AudioEncoderConfig(**sizes.audio)
    model = Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=audio_id)
    )
    model.model.audio_tower.embed_positions.weight.data.copy_(sinusoids(sizes.positions, sizes.hidden))
    return model, Qwen2AudioProcessor(feature_extractor=extractor(sizes.seconds), tokenizer=tokenizer)


def audio_flamingo3(sizes: Sizes) -> tuple[Any, Any]:
    from transformers import (
        AudioFlamingo3Config,
        AudioFlamingo3EncoderConfig,
        AudioFlamingo3ForConditionalGeneration,
        AudioFlamingo3Processor,
        Qwen2Config,
    )

    tokenizer = byte_tokenizer(list(SOUND.values()))
    text = Qwen2Config(**sizes.text, **ids_of(tokenizer), bos_token_id=None)
    audio = AudioFlamingo3EncoderConfig(**sizes.audio)
    audio_id = tokenizer.convert_tokens_to_ids(SOUND["audio_token"])
    model = AudioFlamingo3ForConditionalGeneration(
        AudioFlamingo3Config(audio_config=audio, text_config=text, audio_token_id=audio_id)
    )
    model.model.audio_tower.embed_positions.weight.data.copy_(sinusoids(sizes.positions, sizes.hidden))
    processor = AudioFlamingo3Processor(
        feature_extractor=extractor(sizes.seconds),
        tokenizer=tokenizer,
        chat_template=CHAT.replace("AUDIO", SOUND["audio_token"]),
        max_audio_len=FLAMINGO_WINDOWS * sizes.seconds,
    )
    return model, processor


def qwen2_5_omni(sizes: Sizes) -> tuple[Any, Any]:
    """Its Thinker."""
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
    )

    tokenizer = byte_tokenizer({**QWEN_AUDIO, **QWEN_VISION})
    id_of = tokenizer.convert_tokens_to_ids
    settings: dict[str, Any] = {
        "audio_config": {**sizes.audio, "output_dim": sizes.hidden},
        "vision_config": {**sizes.vision, "fullatt_block_indexes": [0]},
        "text_config": {**sizes.text, **ids_of(tokenizer), "rope_parameters": sizes.rope},
        "audio_token_index": id_of(QWEN_AUDIO["audio_token"]),
        "audio_start_token_id": id_of(QWEN_AUDIO["audio_bos_token"]),
        "audio_end_token_id": id_of(QWEN_AUDIO["audio_eos_token"]),
        "image_token_index": id_of(QWEN_VISION["image_token"]),
        "video_token_index": id_of(QWEN_VISION["video_token"]),
        "vision_start_token_id": id_of(QWEN_VISION["vision_bos_token"]),
        "vision_end_token_id": id_of(QWEN_VISION["vision_eos_token"]),
    }
    model = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**settings))
    return model, omni_processor(Qwen2_5OmniProcessor, sizes, tokenizer, QWEN_AUDIO)


def qwen3_omni(sizes: Sizes) -> tuple[Any, Any]:
    """Its Thinker, with four experts a layer of which a token takes two."""
    from transformers import (
        Qwen3OmniMoeProcessor,
        Qwen3OmniMoeThinkerConfig,
        Qwen3OmniMoeThinkerForConditionalGeneration,
    )

    tokenizer = byte_tokenizer({**QWEN3_AUDIO, **QWEN3_VISION})
    id_of = tokenizer.convert_tokens_to_ids
    # Half of the positions are for audio: 4 times `seconds`.
    text = {**sizes.text, **ids_of(tokenizer), "max_position_embeddings": 2 * QWEN3_RATE * 4 * sizes.seconds}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": sizes.hidden}
    settings: dict[str, Any] = {
        "audio_config": {**sizes.audio, "output_dim": sizes.hidden, "downsample_hidden_size": 8},
        "vision_config": {**sizes.vision, "num_position_embeddings": 16, "deepstack_visual_indexes": []},
        "text_config": {**text, **experts, "rope_parameters": sizes.rope},
        "audio_token_id": id_of(QWEN3_AUDIO["audio_token"]),
        "audio_start_token_id": id_of(QWEN3_AUDIO["audio_bos_token"]),
        "image_token_id": id_of(QWEN3_VISION["image_token"]),
        "video_token_id": id_of(QWEN3_VISION["video_token"]),
        "vision_start_token_id": id_of(QWEN3_VISION["vision_bos_token"]),
    }
    model = Qwen3OmniMoeThinkerForConditionalGeneration(Qwen3OmniMoeThinkerConfig(**settings))
    for i in (1, 2, 3):  # as trained ones are not 0: what the convolutions make of padding is heard
        model.model.audio_tower.get_parameter(f"conv2d{i}.bias").data.normal_(0, 0.3)
    return model, omni_processor(Qwen3OmniMoeProcessor, sizes, tokenizer, QWEN3_AUDIO)


def omni_processor(kind: Any, sizes: Sizes, tokenizer: Any, audio: Mapping[str, str]) -> Any:
    """It wants both of vision's, too."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return kind(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        feature_extractor=extractor(sizes.seconds),
        tokenizer=tokenizer,
        chat_template=CHAT.replace("AUDIO", "".join(audio.values())),
    )


BUILDERS: Mapping[str, Callable[[Sizes], tuple[Any, Any]]] = {
    "qwen2-audio": qwen2_audio,
    "audio-flamingo-3": audio_flamingo3,
    "qwen2.5-omni": qwen2_5_omni,
    "qwen3-omni": qwen3_omni,
}


def extractor(seconds: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(
        feature_size=MEL_BINS, sampling_rate=SAMPLE_RATE, chunk_length=seconds, return_attention_mask=True
    )


def ids_of(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def byte_tokenizer(special: list[str] | Mapping[str, str]) -> Any:
    """Byte-level BPE without merges: 256 symbols and the special tokens, so that any text has ids.

    Tokens with a name are attributes of the tokenizer, as some processors ask for.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=TURN_END,
        extra_special_tokens=[TURN_START, *special] if isinstance(special, list) else dict(special),
        clean_up_tokenization_spaces=False,
    )
    if not isinstance(special, list):
        tokenizer.add_tokens([TURN_START], special_tokens=True)
    return tokenizer


def sinusoids(positions: int, dim: int) -> Any:
    """`[positions, dim]`, Whisper's: the tower's positions are frozen, so random ones would never be learnt."""
    import torch

    periods = torch.exp(-torch.arange(dim // 2) * (torch.log(torch.tensor(10000.0)) / (dim // 2 - 1)))
    angles = torch.arange(positions)[:, None] * periods[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
