"""What a tiny student's processor is made of: a byte-level tokenizer, a chat template and Whisper's features."""

from collections.abc import Mapping
from typing import Any

from coat.trainer.tiny_students.sizes import MEL_BINS

SAMPLE_RATE = 16000  # Hz, as the public checkpoints
PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # as in the public checkpoints
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'audio' %}AUDIO{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def feature_extractor(seconds: int) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(
        feature_size=MEL_BINS, sampling_rate=SAMPLE_RATE, chunk_length=seconds, return_attention_mask=True
    )


def vocabulary_ids(tokenizer: Any) -> dict[str, Any]:
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
