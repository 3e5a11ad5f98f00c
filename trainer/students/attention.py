"""Which kernel computes attention: what a run may ask for, and what audio towers use.

Towers by themselves ask the device in every pass whether a mask masks anything, and Omni's loops over windows of some
seconds whose lengths it asks for, in every layer. Here a mask is a mask, and all windows are one call.

H heads, S positions, W windows, L positions of the longest window, D dim of a head.
"""

from importlib.util import find_spec
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from coat.manifests import InputError

Attention = Literal["sdpa", "flash_attention_2", "eager"]
# "flash" in a name tells transformers that the function takes all windows of a sequence at once, by their bounds.
TOWER_ATTENTION = "coat_flash_windows"


def check_attention(attention: str, dtype: torch.dtype) -> None:
    """InputError where it cannot be had."""
    if attention != "flash_attention_2":
        return
    if dtype == torch.float32:
        raise InputError(
            "student.attention flash_attention_2 computes in bfloat16 or float16; set student.dtype, or take sdpa"
        )
    if find_spec("flash_attn") is None:
        raise InputError(
            "student.attention flash_attention_2: the package flash-attn is not installed here; "
            "install it (pip install flash-attn), or take sdpa"
        )


def use_tower_attention(model: Any) -> None:
    """Let a student's audio tower compute by `tower_attention`; an eager one stays as transformers has it."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(TOWER_ATTENTION, tower_attention)
    AttentionMaskInterface.register(TOWER_ATTENTION, tower_mask)
    config = model.model.audio_tower.config
    if config._attn_implementation != "eager":
        config._attn_implementation = TOWER_ATTENTION


def tower_mask(allow_is_bidirectional_skip: bool = False, **options: Any) -> Tensor | None:
    """transformers' mask for SDPA, made whether or not it masks anything: that would have to be asked of the device."""
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(**options, allow_is_bidirectional_skip=False)


def tower_attention(
    module: Any,
    query_1HSD: Tensor,
    key_1HSD: Tensor,
    value_1HSD: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention by SDPA; within windows where bounds are given, `[W + 1]`, and the longest's length."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None or max_length_q is None:
        return sdpa_attention_forward(module, query_1HSD, key_1HSD, value_1HSD, attention_mask, **options)
    attended_HSD = attend_in_windows(
        query_1HSD[0], key_1HSD[0], value_1HSD[0], cu_seq_lens_q, max_length_q, options["scaling"]
    )
    return attended_HSD.transpose(0, 1)[None], None


def attend_in_windows(
    query_HSD: Tensor, key_HSD: Tensor, value_HSD: Tensor, bounds: Tensor, longest: int, scale: float
) -> Tensor:
    """Attention within each window of a sequence, all of them as one batch, `[H, S, D]`.

    `longest` may be more than the longest window has.
    """
    positions, starts_W, lengths_W = query_HSD.shape[1], bounds[:-1], bounds.diff()
    within_L = torch.arange(longest, dtype=bounds.dtype, device=bounds.device)
    if positions == len(starts_W) * longest:  # all of them are that long
        mask_W11L, at_WL = None, None
    else:
        mask_W11L = (within_L < lengths_W[:, None])[:, None, None]
        at_WL = (starts_W[:, None] + within_L).clamp(max=positions - 1)

    def windows(sequence_HSD: Tensor) -> Tensor:
        padded_HSD = sequence_HSD if at_WL is None else sequence_HSD.index_select(1, at_WL.flatten())
        return padded_HSD.unflatten(1, (-1, longest)).transpose(0, 1)

    query_WHLD, key_WHLD, value_WHLD = map(windows, (query_HSD, key_HSD, value_HSD))
    attended_WHLD = F.scaled_dot_product_attention(query_WHLD, key_WHLD, value_WHLD, attn_mask=mask_W11L, scale=scale)
    padded_HSD = attended_WHLD.transpose(0, 1).flatten(1, 2)
    if at_WL is None:
        return padded_HSD
    at_S = torch.arange(positions, dtype=bounds.dtype, device=bounds.device)
    window_S = torch.searchsorted(bounds, at_S, right=True) - 1
    return padded_HSD.index_select(1, window_S * longest + at_S - starts_W[window_S])
