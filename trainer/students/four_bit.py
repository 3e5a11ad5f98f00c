"""Frozen weights in 4 bits (`student.quantize`): NF4 of QLoRA (Dettmers et al., arXiv 2305.14314), by bitsandbytes.

Linear layers of the language model alone: audio tower, projector, embeddings and `lm_head` stay as they are.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from coat.manifests import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BLOCK = 64  # weights that share a scale
SCALE_BYTES = 4  # float32
ELSEWHERE = r"(?!.*language_model\.layers\.).*"  # names of modules that are left as they are
INSTALL = "student.quantize needs bitsandbytes: pip install 'coat-audio[4bit]'"


def quantization_config(dtype: "torch.dtype") -> Any:
    """transformers' setting for `from_pretrained`; `dtype` is what layers compute in. InputError: not installed."""
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise InputError(INSTALL)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=[ELSEWHERE],  # of 4 bits, too
    )


def without_repacking(model: "nn.Module") -> None:
    """Keep the layers from packing their weights anew for one family of CPUs as soon as they are in eval mode: what is
    packed so has no gradients, and an evaluation beside the training would end that.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def check_rows(model: "nn.Module", source: str) -> None:
    """InputError where a row of a quantized layer is not of whole blocks.

    Kernels for CPUs with AVX-512 then take another block's scale and give other weights than those that were packed,
    without a word; no published student has such layers.
    """
    for name, module in model.named_modules():
        if is_quantized(name, module) and module.in_features % BLOCK:  # type: ignore[operator]
            raise InputError(
                f"student.quantize: {source}: {name} has {module.in_features} inputs; 4 bits need a multiple of {BLOCK}"
            )


def is_quantized(name: str, module: "nn.Module") -> bool:
    """Whether a module of a student would be in 4 bits; without bitsandbytes, too."""
    from torch import nn

    return isinstance(module, nn.Linear) and "language_model.layers." in name


def quantized_bytes(weights: int) -> int:
    """What so many weights of one layer take: half a byte each, and a scale a block."""
    return -(-weights // 2) + -(-weights // BLOCK) * SCALE_BYTES


def dequantized(module: Any) -> "Tensor":
    """The weights of a layer as it computes with them, `[outputs, inputs]`."""
    from bitsandbytes.functional import dequantize_4bit  # pyright: ignore[reportMissingImports] - an extra

    return dequantize_4bit(module.weight.data, module.weight.quant_state)
