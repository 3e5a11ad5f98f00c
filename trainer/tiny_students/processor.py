"""What a tiny student's processor is made of: a byte-level tokenizer, a chat template and Whisper's features."""

from collections.abc import Mapping, Sequence
from typing import Any

from coat.trainer.tiny_students.sizes import MEL_BINS

SAMPLE_RATE = 16000  # Hz, as the public checkpoints
MERGED_VOCABULARY = 4096  # at most, where a tokenizer learns merges
PAD, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # as in the public checkpoints
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'audio' %}AUDIO{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CHAT_TEXT = "system\nYou are a helpful assistant.\nuser\nAudio 1: \nassistant\n"  # what templates put around a turn


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


def byte_tokenizer(special: list[str] | Mapping[str, str], texts: Sequence[str] = ()) -> Any:
    """Byte-level BPE: 256 symbols, the special tokens, and merges up to the whole words of `texts`.

    Any text has ids; one without merges is a token a byte. Tokens with a name are attributes of the tokenizer, as
    some processors ask for.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=bool(texts))  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    if texts:
        learner = trainers.BpeTrainer(vocab_size=MERGED_VOCABULARY, initial_alphabet=symbols, show_progress=False)
        bpe.train_from_iterator([CHAT_TEXT, *texts], learner)
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
