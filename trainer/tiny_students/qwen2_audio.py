"""A tiny Qwen2-Audio."""

from typing import Any

from coat.trainer.tiny_students.processor import byte_tokenizer, feature_extractor, vocabulary_ids
from coat.trainer.tiny_students.sizes import Sizes
from coat.trainer.tiny_students.whisper_positions import sinusoids

QWEN_AUDIO = {"audio_bos_token": "<|audio_bos|>", "audio_token": "<|AUDIO|>", "audio_eos_token": "<|audio_eos|>"}


def qwen2_audio(sizes: Sizes) -> tuple[Any, Any]:
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        Qwen2Config,
    )

    tokenizer = byte_tokenizer(list(QWEN_AUDIO.values()), sizes.texts)
    tied: dict[str, Any] = {"tie_word_embeddings": sizes.tied}  # which its class does not heed
    text = Qwen2Config(**sizes.text, **vocabulary_ids(tokenizer), bos_token_id=None)
    audio_id = tokenizer.convert_tokens_to_ids(QWEN_AUDIO["audio_token"])
    audio = Qwen2AudioEncoderConfig(**sizes.audio)
    model = Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=audio_id, **tied)
    )
    model.model.audio_tower.embed_positions.weight.data.copy_(sinusoids(sizes.positions, sizes.hidden))
    return model, Qwen2AudioProcessor(feature_extractor=feature_extractor(sizes.seconds), tokenizer=tokenizer)
