"""What frames must be, whatever is heard: as many as the clip has time for, finite, and of their kind."""

import numpy as np

from coat.extractors.conformance.check import long_enough, require, require_covered
from coat.extractors.conformance.sounds import noise
from coat.extractors.expert import Expert, extract_windows


def frames_cover_the_clip(expert: Expert) -> str:
    counts = []
    for seconds in (1.0, 1.3701, 2.6):
        x = noise(seconds, expert.spec.sample_rate)
        (frames,) = extract_windows(expert, [x])
        require(frames.dtype == np.float32, f"frames are {frames.dtype}; expected float32")
        require(frames.ndim == 2, f"frames have shape {frames.shape}; expected [N, D]")
        require(
            frames.shape[1] == expert.spec.dim, f"frames of {frames.shape[1]} numbers; the spec says {expert.spec.dim}"
        )
        require(expert.spec.start_s >= 0 or expert.trial.causal, f"frame 0 is centred at {expert.spec.start_s} s")
        require_covered(expert, x, frames)
        counts.append(f"{len(frames)} of {seconds:g} s")
    return f"frames: {', '.join(counts)}"


def values_fit_their_kind(expert: Expert) -> str:
    (frames,) = extract_windows(expert, [noise(1.0, expert.spec.sample_rate)])
    low, high, kind = frames.min(), frames.max(), expert.spec.kind
    if kind in ("probabilities", "distribution"):
        require(low >= 0 and high <= 1, f"values from {low:g} to {high:g} are no {kind}")
    if kind == "distribution":
        sums = frames.sum(axis=1)
        require(
            np.abs(sums - 1).max() < 1e-3, f"frames of a distribution sum to {sums.min():g} to {sums.max():g}, not 1"
        )
    if kind == "pitch":
        voicing = frames[:, 1]
        require(voicing.min() >= 0 and voicing.max() <= 1, "channel 1, voicing, is not within 0 to 1")
    largest = np.abs(frames).max()
    require(largest < np.finfo(expert.spec.dtype).max, f"{largest:g} does not fit into {expert.spec.dtype}")
    return f"from {low:.4g} to {high:.4g}"


def silence_and_full_scale_are_finite(expert: Expert) -> str:
    seconds, rate = long_enough(expert), expert.spec.sample_rate
    zeros = np.zeros(round(seconds * rate), dtype=np.float32)
    clips = {
        "silence": zeros,
        "a constant": zeros + 0.5,
        "full scale": np.sign(noise(seconds, rate)).astype(np.float32),
    }
    for name, frames in zip(clips, extract_windows(expert, [*clips.values()]), strict=True):
        require(np.isfinite(frames).all(), f"values that are not finite, of {name}")
        require(np.isfinite(frames.astype(expert.spec.dtype)).all(), f"not finite as {expert.spec.dtype}, of {name}")
    return ", ".join(clips)
