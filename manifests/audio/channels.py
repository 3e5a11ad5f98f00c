"""Several channels to one: the one that is asked for, or their mean, where there is anything left in it. T samples."""

import numpy as np
from numpy.typing import NDArray

from coat.manifests.audio.clip import AudioError

SILENT_POWER = 1e-8  # -80 dB of full scale: what is as quiet in its channels has nothing to lose
LEFT_POWER = 1e-3  # -30 dB of what the channels have: less is left only where one is another one upside down


def check_channel(path: str, channel: int | None, channels: int) -> None:
    """AudioError where there is no such channel among so many."""
    if channel is not None and channel >= channels:
        has = "one channel" if channels == 1 else f"{channels} channels"
        raise AudioError("channels", f"{path}: {has}, counted from 0; there is no channel {channel}")


class Mixer:
    """The samples of one span, piece by piece."""

    def __init__(self, path: str, channel: int | None) -> None:
        self.path, self.channel = path, channel
        self.samples, self.of_channels, self.of_mix = 0, 0.0, 0.0  # sums of squares, of a channel and of the mean

    @np.errstate(over="ignore")  # of samples that are no sound: infinite sums tell nothing, and need no warning
    def mono(self, samples_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[T]`, contiguous. AudioError where it is not finite, or the channel is not there."""
        channels = samples_TC.shape[1]
        check_channel(self.path, self.channel, channels)
        if channels == 1 or self.channel is not None:
            samples_T = samples_TC[:, self.channel or 0]
        else:
            samples_T = samples_TC.mean(axis=1, dtype=np.float32)
        samples_T = np.ascontiguousarray(samples_T, dtype=np.float32)
        if not np.isfinite(samples_T).all():
            raise AudioError("not_finite", f"{self.path}: NaN or infinite samples; write the file again")
        if channels > 1 and self.channel is None:
            self.samples += len(samples_T)
            self.of_mix += float(np.dot(samples_T, samples_T))
            self.of_channels += float(np.einsum("tc,tc->", samples_TC, samples_TC)) / channels
        return samples_T

    def check(self) -> None:
        """AudioError where the channels cancel each other."""
        if self.of_channels > SILENT_POWER * self.samples and self.of_mix < LEFT_POWER * self.of_channels:
            said = "its channels cancel each other (one is another one upside down), and nothing is left in their mean"
            raise AudioError(
                "channels", f"{self.path}: {said}; --channel 0 of `coat manifest import` takes one of them"
            )
