"""The hyperparameters of the three public checkpoints, as their config.json has them (what is left out is the default).

Qwen2-Audio: Qwen/Qwen2-Audio-7B-Instruct, config.json. Qwen2.5-Omni: Qwen/Qwen2.5-Omni-7B, `thinker_config`;
its vision tower is Qwen2.5-VL-7B's. Audio Flamingo 3: nvidia/audio-flamingo-3-hf, made by transformers'
`convert_audioflamingo3_to_hf.py`, whose text config this is.
"""

from typing import Any

WHISPER_LARGE = {
    "num_mel_bins": 128, "encoder_layers": 32, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120,
    "d_model": 1280, "max_source_positions": 1500,
}  # fmt: skip
QWEN_7B = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "tie_word_embeddings": False,
}  # fmt: skip

QWEN2_AUDIO: dict[str, Any] = {
    "model_type": "qwen2_audio",
    "audio_token_index": 151646,
    "audio_config": {"model_type": "qwen2_audio_encoder", **WHISPER_LARGE},
    "text_config": {
        "model_type": "qwen2", "bos_token_id": 151643, "eos_token_id": 151645, "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "vocab_size": 156032,
    },
}  # fmt: skip
QWEN2_5_OMNI: dict[str, Any] = {
    "model_type": "qwen2_5_omni",
    "thinker_config": {
        "model_type": "qwen2_5_omni_thinker",
        "audio_token_index": 151646, "audio_start_token_id": 151647, "audio_end_token_id": 151648,
        "image_token_index": 151655, "video_token_index": 151656, "vision_start_token_id": 151652,
        "vision_end_token_id": 151653, "pad_token_id": 151643,
        "audio_config": {"model_type": "qwen2_5_omni_audio_encoder", **WHISPER_LARGE, "output_dim": 3584},
        "text_config": {
            "model_type": "qwen2_5_omni_text", **QWEN_7B, "vocab_size": 152064,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        "vision_config": {
            "model_type": "qwen2_5_omni_vision_encoder", "depth": 32, "hidden_size": 1280, "intermediate_size": 3420,
            "num_heads": 16, "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2,
            "temporal_patch_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
}  # fmt: skip
AUDIO_FLAMINGO_3: dict[str, Any] = {
    "model_type": "audioflamingo3",
    "audio_token_id": 151669,
    "audio_config": {
        "model_type": "audioflamingo3_encoder", "num_mel_bins": 128, "num_hidden_layers": 32,
        "num_attention_heads": 20, "intermediate_size": 5120, "hidden_size": 1280, "max_source_positions": 1500,
    },
    "text_config": {
        "model_type": "qwen2", **QWEN_7B, "bos_token_id": 151643, "eos_token_id": 151645, "vocab_size": 151672,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
}  # fmt: skip
