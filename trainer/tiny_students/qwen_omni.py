"""Tiny Thinkers of Qwen2.5-Omni and Qwen3-Omni."""

from collections.abc import Mapping
from typing import Any

from coat.trainer.tiny_students.processor import CHAT, byte_tokenizer, feature_extractor, vocabulary_ids
from coat.trainer.tiny_students.qwen2_audio import QWEN_AUDIO
from coat.trainer.tiny_students.sizes import Sizes

QWEN_VISION = {
    "image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>",
}  # fmt: skip
QWEN3_AUDIO = {"audio_bos_token": "<|audio_start|>", "audio_token": "<|audio_pad|>", "audio_eos_token": "<|audio_end|>"}
QWEN3_VISION = {
    "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
    "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
}  # fmt: skip
QWEN3_RATE = 13  # audio positions a second


def qwen2_5_omni(sizes: Sizes) -> tuple[Any, Any]:
    """Its Thinker."""
    from transformers import (
        Qwen2_5OmniProcessor,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
    )

    tokenizer = byte_tokenizer({**QWEN_AUDIO, **QWEN_VISION}, sizes.texts)
    id_of = tokenizer.convert_tokens_to_ids
    config: dict[str, Any] = {
        "tie_word_embeddings": sizes.tied,
        "audio_config": {**sizes.audio, "output_dim": sizes.hidden},
        "vision_config": {**sizes.vision, "fullatt_block_indexes": [0]},
        "text_config": {**sizes.text, **vocabulary_ids(tokenizer), "rope_parameters": sizes.rope},
        "audio_token_index": id_of(QWEN_AUDIO["audio_token"]),
        "audio_start_token_id": id_of(QWEN_AUDIO["audio_bos_token"]),
        "audio_end_token_id": id_of(QWEN_AUDIO["audio_eos_token"]),
        "image_token_index": id_of(QWEN_VISION["image_token"]),
        "video_token_index": id_of(QWEN_VISION["video_token"]),
        "vision_start_token_id": id_of(QWEN_VISION["vision_bos_token"]),
        "vision_end_token_id": id_of(QWEN_VISION["vision_eos_token"]),
    }
    model = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**config))
    return model, omni_processor(Qwen2_5OmniProcessor, sizes, tokenizer, QWEN_AUDIO)


def qwen3_omni(sizes: Sizes) -> tuple[Any, Any]:
    """Its Thinker, with four experts a layer of which a token takes two."""
    from transformers import (
        Qwen3OmniMoeProcessor,
        Qwen3OmniMoeThinkerConfig,
        Qwen3OmniMoeThinkerForConditionalGeneration,
    )

    tokenizer = byte_tokenizer({**QWEN3_AUDIO, **QWEN3_VISION}, sizes.texts)
    id_of = tokenizer.convert_tokens_to_ids
    # Half of the positions are for audio: 4 times `seconds`.
    text = {**sizes.text, **vocabulary_ids(tokenizer), "max_position_embeddings": 2 * QWEN3_RATE * 4 * sizes.seconds}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": sizes.hidden}
    config: dict[str, Any] = {
        "tie_word_embeddings": sizes.tied,
        "audio_config": {**sizes.audio, "output_dim": sizes.hidden, "downsample_hidden_size": 8},
        "vision_config": {**sizes.vision, "num_position_embeddings": 16, "deepstack_visual_indexes": []},
        "text_config": {**text, **experts, "rope_parameters": sizes.rope},
        "audio_token_id": id_of(QWEN3_AUDIO["audio_token"]),
        "audio_start_token_id": id_of(QWEN3_AUDIO["audio_bos_token"]),
        "image_token_id": id_of(QWEN3_VISION["image_token"]),
        "video_token_id": id_of(QWEN3_VISION["video_token"]),
        "vision_start_token_id": id_of(QWEN3_VISION["vision_bos_token"]),
    }
    model = Qwen3OmniMoeThinkerForConditionalGeneration(Qwen3OmniMoeThinkerConfig(**config))
    for i in (1, 2, 3):  # as trained ones are not 0: what the convolutions make of padding is heard
        model.model.audio_tower.get_parameter(f"conv2d{i}.bias").data.normal_(0, 0.3)
    return model, omni_processor(Qwen3OmniMoeProcessor, sizes, tokenizer, QWEN3_AUDIO)


def omni_processor(processor_class: Any, sizes: Sizes, tokenizer: Any, audio: Mapping[str, str]) -> Any:
    """It wants both of vision's, too."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    return processor_class(
        image_processor=Qwen2VLImageProcessor(),
        video_processor=Qwen2VLVideoProcessor(),
        feature_extractor=feature_extractor(sizes.seconds),
        tokenizer=tokenizer,
        chat_template=CHAT.replace("AUDIO", "".join(audio.values())),
    )
