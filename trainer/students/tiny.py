"""Tiny random checkpoints in the students' true formats: for tests and the quickstart, fully offline."""

from pathlib import Path
from typing import Any

from coat.manifests import InputError

SAMPLE_RATE = 16000  # Hz, as the public checkpoint
MEL_BINS = 128
MEL_FRAMES_PER_SECOND = 100
# `<|endoftext|>` pads, `<|im_end|>` ends a turn, as in the public checkpoint.
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>")
NAMES = ("qwen2-audio",)


def make_tiny_student(
    out: str | Path,
    *,
    name: str = "qwen2-audio",
    hidden: int = 32,
    text_layers: int = 2,
    audio_layers: int = 1,
    heads: int = 2,
    seconds: int = 3,
    seed: int = 0,
) -> Path:
    """Write a random student that hears `seconds` of audio; equal arguments give equal weights.

    `hidden` is the dim of both the audio tower and the language model. InputError: unknown name, bad sizes,
    or `out` holds something already.
    """
    folder = Path(out)
    if name not in NAMES:
        raise InputError(f"tiny student {name!r} is not one of {', '.join(NAMES)}")
    if hidden % (2 * heads) or min(hidden, text_layers, audio_layers, heads, seconds) < 1:
        raise InputError(f"hidden {hidden} must be a multiple of twice the heads ({heads}), and no size below 1")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: not an empty folder; choose another")
    import torch

    with torch.random.fork_rng(devices=[]):  # the caller's random state is its own
        torch.manual_seed(seed)
        model, processor = build_qwen2_audio(hidden, text_layers, audio_layers, heads, seconds)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_qwen2_audio(hidden: int, text_layers: int, audio_layers: int, heads: int, seconds: int) -> tuple[Any, Any]:
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        Qwen2Config,
        WhisperFeatureExtractor,
    )

    tokenizer = byte_tokenizer()
    positions = seconds * MEL_FRAMES_PER_SECOND // 2
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=MEL_BINS,
        d_model=hidden,
        encoder_layers=audio_layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * hidden,
        max_source_positions=positions,
    )
    text = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=text_layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    audio_token = tokenizer.convert_tokens_to_ids("<|AUDIO|>")
    config = Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=audio_token)
    model = Qwen2AudioForConditionalGeneration(config)
    model.model.audio_tower.embed_positions.weight.data.copy_(sinusoids(positions, hidden))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    extractor = WhisperFeatureExtractor(
        feature_size=MEL_BINS, sampling_rate=SAMPLE_RATE, chunk_length=seconds, return_attention_mask=True
    )
    return model.eval(), Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer)


def byte_tokenizer() -> Any:
    """Byte-level BPE without merges: 256 symbols and the special tokens, so that any text has ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[2],
        additional_special_tokens=[SPECIAL_TOKENS[1], *SPECIAL_TOKENS[3:]],
        clean_up_tokenization_spaces=False,
    )


def sinusoids(positions: int, dim: int) -> Any:
    """`[positions, dim]`, Whisper's: the tower's positions are frozen, so random ones would never be learnt."""
    import torch

    periods = torch.exp(-torch.arange(dim // 2) * (torch.log(torch.tensor(10000.0)) / (dim // 2 - 1)))
    angles = torch.arange(positions)[:, None] * periods[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
