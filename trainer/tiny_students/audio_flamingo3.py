"""A tiny Audio Flamingo 3."""

from typing import Any

from coat.trainer.tiny_students.processor import CHAT, byte_tokenizer, feature_extractor, vocabulary_ids
from coat.trainer.tiny_students.sizes import Sizes
from coat.trainer.tiny_students.whisper_positions import sinusoids

SOUND = {"audio_token": "<sound>"}
FLAMINGO_WINDOWS = 4  # longest audio, in windows of `seconds`


def audio_flamingo3(sizes: Sizes) -> tuple[Any, Any]:
    from transformers import (
        AudioFlamingo3Config,
        AudioFlamingo3EncoderConfig,
        AudioFlamingo3ForConditionalGeneration,
        AudioFlamingo3Processor,
        Qwen2Config,
    )

    tokenizer = byte_tokenizer(list(SOUND.values()), sizes.texts)
    tied: dict[str, Any] = {"tie_word_embeddings": sizes.tied}  # which its class does not heed
    text = Qwen2Config(**sizes.text, **vocabulary_ids(tokenizer), bos_token_id=None)
    audio = AudioFlamingo3EncoderConfig(**sizes.audio)
    audio_id = tokenizer.convert_tokens_to_ids(SOUND["audio_token"])
    model = AudioFlamingo3ForConditionalGeneration(
        AudioFlamingo3Config(audio_config=audio, text_config=text, audio_token_id=audio_id, **tied)
    )
    model.model.audio_tower.embed_positions.weight.data.copy_(sinusoids(sizes.positions, sizes.hidden))
    processor = AudioFlamingo3Processor(
        feature_extractor=feature_extractor(sizes.seconds),
        tokenizer=tokenizer,
        chat_template=CHAT.replace("AUDIO", SOUND["audio_token"]),
        max_audio_len=FLAMINGO_WINDOWS * sizes.seconds,
    )
    return model, processor
