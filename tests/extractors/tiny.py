"""Seeded tiny random checkpoints in the formats of the real ones."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

WHISPER_SECONDS = 3


def whisper(folder: Path, seed: int = 0) -> Path:
    """d 32, 3 layers, 20 mel bins, windows of 3 s."""
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=60, num_mel_bins=20, d_model=32, encoder_layers=3, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=50 * WHISPER_SECONDS,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=WHISPER_SECONDS).save_pretrained(folder)
    return folder


def ast(folder: Path, seed: int = 0) -> Path:
    """d 32, 3 layers, windows of 256 fbank frames of 32 bands: 2 x 25 patches."""
    torch.manual_seed(seed)
    config = ASTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, max_length=256,
        num_mel_bins=32,
    )  # fmt: skip
    model = ASTForAudioClassification(config)
    torch.nn.init.normal_(model.audio_spectrogram_transformer.embeddings.position_embeddings, std=0.02)
    model.save_pretrained(folder)
    ASTFeatureExtractor(max_length=256, num_mel_bins=32).save_pretrained(folder)
    return folder


SMALL = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,  # of 16 channels: with 8, oneDNN 3.x gives wrong bfloat16 sums on AMX CPUs
}  # fmt: skip
# As wav2vec2-base and HuBERT-base have it, and as their large versions and WavLM-large do.
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def wav2vec2(folder: Path, seed: int = 0, kind: str = "wav2vec2-group", **config: Any) -> Path:
    torch.manual_seed(seed)
    model = {
        "wav2vec2-group": lambda: Wav2Vec2ForPreTraining(Wav2Vec2Config(**SMALL | BASE | config)),
        "wav2vec2-layer": lambda: Wav2Vec2ForPreTraining(Wav2Vec2Config(**SMALL, **LARGE)),
        "hubert": lambda: HubertModel(HubertConfig(**SMALL, **LARGE)),
        "wavlm": lambda: WavLMModel(WavLMConfig(**SMALL, **LARGE)),
        "data2vec": lambda: Data2VecAudioModel(
            Data2VecAudioConfig(**{**SMALL, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5})
        ),
    }[kind]()
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=kind != "hubert").save_pretrained(folder)
    return folder
