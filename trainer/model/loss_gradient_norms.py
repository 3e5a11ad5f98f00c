"""How strongly each loss acts on the student: norms of its gradient at the hidden states.

B batch, K think positions, R response tokens, D hidden dim.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class LossGradientNorms:
    """For each loss, the norm of its gradient at the hidden states that it is computed from.

    Those are the think states `[B, K, D]` for an expert, and the states before response tokens `[R, D]` for the
    cross-entropy, each over all samples of a step. Loss weights and counts are included, as in the gradient that the
    optimizer is given. A backward hook reads the gradient, so this costs a norm, and no further backward pass.
    """

    def __init__(self) -> None:
        self.squares: dict[str, Tensor] = {}

    def watch(self, name: str, states: Tensor) -> Tensor:
        """The same states as a view of their own, so that its gradient is this loss's alone."""
        if not states.requires_grad:
            return states
        states = states.view_as(states)
        states.register_hook(lambda gradient: self.add(name, gradient))
        return states

    def add(self, name: str, gradient: Tensor) -> None:
        self.squares[name] = self.squares.get(name, torch.zeros((), device=gradient.device)) + (
            gradient.detach().float().square().sum()
        )

    def pop_squares(self, names: Sequence[str], device: torch.device) -> Tensor:
        """Sums of squared gradients since the last call, by loss, `[losses]`: still on the device."""
        zero = torch.zeros((), device=device)
        squares = torch.stack([self.squares.get(name, zero) for name in names])
        self.squares.clear()
        return squares
