"""Sinusoidal positions of Whisper's audio towers."""

from typing import Any


def sinusoids(positions: int, dim: int) -> Any:
    """`[positions, dim]`, Whisper's: the tower's positions are frozen, so random ones would never be learnt."""
    import torch

    periods = torch.exp(-torch.arange(dim // 2) * (torch.log(torch.tensor(10000.0)) / (dim // 2 - 1)))
    angles = torch.arange(positions)[:, None] * periods[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
