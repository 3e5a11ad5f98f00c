"""Lengths in an audio tower of Whisper's kind with a pooling behind it: 100 mel frames a second, 25 positions."""

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
