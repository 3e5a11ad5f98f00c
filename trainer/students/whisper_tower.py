"""Lengths in an audio tower of Whisper's kind with a pooling behind it: 100 mel frames a second, 25 positions.

A audios or windows, M mel frames, S source positions, P positions in the text, R of all audios together.
"""

import torch
from torch import Tensor

TOWER_STRIDE = 2  # mel frames per source position: the stride of conv2
POOLED = 2  # source positions per position in the text: the tower's average pooling
MIN_MEL_FRAMES = 3  # one position in the text


def mel_frames(samples: int, hop: int) -> int:
    """Mel frames of so many samples, without padding."""
    return -(-samples // hop)


def audio_positions(frames: int) -> int:
    """Positions in the text of so many mel frames; 0 of fewer than MIN_MEL_FRAMES."""
    tower_positions = (frames - 1) // TOWER_STRIDE + 1
    return (tower_positions - POOLED) // POOLED + 1


def tower_indices(mask_AM: Tensor) -> dict[str, Tensor]:
    """Of a batch's masks of mel frames: `heard_R`, indices into A * P of the positions that are in the text; and, where
    any audio is shorter than the tower, `mask_A11S` of the source positions that are attended to.
    """
    sources_A = (mask_AM.sum(-1) - 1) // TOWER_STRIDE + 1
    sources = (mask_AM.shape[-1] - 1) // TOWER_STRIDE + 1
    positions_A = (sources_A - POOLED) // POOLED + 1
    heard_AP = torch.arange(sources // POOLED) < positions_A[:, None]
    found = {"heard_R": heard_AP.flatten().nonzero()[:, 0]}
    if (sources_A < sources).any():
        found["mask_A11S"] = (torch.arange(sources) < sources_A[:, None])[:, None, None]
    return found
