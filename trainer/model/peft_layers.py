"""Layers of peft that cost memory for nothing, computed otherwise: the same weights, names and checkpoints.

B batch, T positions of a sequence, N rows that are trained, D hidden dim, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn


class OverlaidRows(TrainableTokensLayer):
    """Trained rows of an embedding, or of an output layer that is tied to it, laid over what the frozen ones give.

    peft trains a changed copy of the whole embedding, [V, D], whose gradient is as large once more; here a pass costs
    [B, T, D], and the gradient [N, D].
    """

    sorted_N: Tensor  # the rows' ids
    order_N: Tensor  # where they stand among the trained rows

    def remember_ids(self) -> None:
        """Keep the ids on the device of the weights: they are the same from now on."""
        (ids,) = self.token_indices.values()
        sorted_N, order_N = torch.tensor(list(ids)).sort()
        self.register_buffer("sorted_N", sorted_N, persistent=False)
        self.register_buffer("order_N", order_N, persistent=False)

    def forward_adapters(self, x: Tensor, active_adapters: Sequence[str], *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters or self.merged or not active_adapters:
            return super().forward_adapters(x, active_adapters, *args, **kwargs)
        (name,) = active_adapters
        given, rows_ND = self.base_layer(x, *args, **kwargs), self.trainable_tokens_delta[name]
        if isinstance(self.base_layer, nn.Linear):
            ids_N = self.sorted_N[self.order_N.argsort()]
            return given.index_copy(-1, ids_N, F.linear(x, rows_ND.to(x.dtype)).to(given.dtype))
        found_BT = torch.searchsorted(self.sorted_N, x.contiguous()).clamp(max=len(self.sorted_N) - 1)
        is_trained_BT = self.sorted_N[found_BT] == x
        trained_BTD = F.embedding(self.order_N[found_BT], rows_ND.to(given.dtype))
        return torch.where(is_trained_BT[..., None], trained_BTD, given)


def cast_unless_autocast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The input of an adapter in the adapter's type. Under autocast products cast by themselves, and to fewer bytes:
    peft would first make a float32 copy of every input.
    """
    return x if x.dtype == dtype or torch.is_autocast_enabled(x.device.type) else x.to(dtype)


def lighten(model: nn.Module) -> None:
    """Let a model's adapters and trained rows compute as above."""
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer):
            module.__class__ = OverlaidRows
            module.remember_ids()  # type: ignore[attr-defined]
        elif isinstance(module, LoraLayer):
            module._cast_input_dtype = cast_unless_autocast  # type: ignore[method-assign]
