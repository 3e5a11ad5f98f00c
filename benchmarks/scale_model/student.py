"""The student: a Qwen2-Audio of some 400,000 parameters, random, in its true classes.

Audio tower 2 layers of 64, language model 3 of 96; 80 mel bins every 20 ms, so that 2 s are 100 mel frames and 25
audio positions. The tokenizer is byte-level BPE with every word of the questions merged to one token, as a
pretrained one has them: a question costs few positions, and an answer is one token.
"""

from pathlib import Path
from typing import Any

import torch

from benchmarks.scale_model.corpus import CLIP_S, QUESTIONS
from coat.trainer.config.sections import ThinkingConfig
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.registry import load_student
from coat.trainer.tiny_students.processor import PAD, SAMPLE_RATE, TURN_END, TURN_START, vocabulary_ids
from coat.trainer.tiny_students.qwen2_audio import QWEN_AUDIO
from coat.trainer.tiny_students.whisper_positions import sinusoids

TOWER_DIM, TOWER_LAYERS = 64, 2
TEXT_DIM, TEXT_LAYERS = 96, 3
HEADS = 4
MEL_BINS = 80
HOP = 320  # samples, 20 ms: twice Whisper's, so that the sequence is half as long
POSITIONS = 50  # of the tower, in 2 s; its pooling makes 25 of them
THINK = 25  # K: as many as the audio has
SPECIAL = [PAD, TURN_END, TURN_START, *QWEN_AUDIO.values()]
CHAT = (  # without a system message, and with nothing else that costs positions
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_student(folder: Path, seed: int) -> Path:
    """Write the random student of a seed, without a block. Equal seeds give equal weights."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        Qwen2Config,
        WhisperFeatureExtractor,
    )

    tokenizer = word_tokenizer()
    text = Qwen2Config(
        hidden_size=TEXT_DIM,
        intermediate_size=2 * TEXT_DIM,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        **vocabulary_ids(tokenizer),
    )
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=MEL_BINS,
        d_model=TOWER_DIM,
        encoder_layers=TOWER_LAYERS,
        encoder_attention_heads=HEADS,
        encoder_ffn_dim=4 * TOWER_DIM,
        max_source_positions=POSITIONS,
    )
    audio_id = tokenizer.convert_tokens_to_ids(QWEN_AUDIO["audio_token"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2AudioForConditionalGeneration(
            Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=audio_id)
        )
    model.model.audio_tower.embed_positions.weight.data.copy_(sinusoids(POSITIONS, TOWER_DIM))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    extractor = WhisperFeatureExtractor(
        feature_size=MEL_BINS,
        sampling_rate=SAMPLE_RATE,
        hop_length=HOP,
        chunk_length=round(CLIP_S),
        return_attention_mask=True,
    )
    model.eval().save_pretrained(folder)
    Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer, chat_template=CHAT).save_pretrained(folder)
    return folder


def word_tokenizer() -> Any:
    """Byte-level BPE, merged until every word of the questions and the chat is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    said = [text for q in QUESTIONS.values() for text in (q.prompt, *q.answers)] + ["user", "assistant"]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = byte_level  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=2048, min_frequency=1, initial_alphabet=symbols, show_progress=False)
    bpe.train_from_iterator(sorted(said), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=TURN_END,
        extra_special_tokens=[TURN_START, *QWEN_AUDIO.values()],
        clean_up_tokenization_spaces=False,
    )


def with_block(source: Path, folder: Path) -> Path:
    """A copy that has the block's tokens and rows already: the arms begin with equal weights, used or not."""
    student = load_student(str(source))
    ThinkingBlock.add_to(student, ThinkingConfig(count=THINK))
    student.model.save_pretrained(folder)
    student.processor.save_pretrained(folder)
    return folder
