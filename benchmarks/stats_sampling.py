"""How many frames of a target set suffice for its mean and deviation: errors of samples of growing size.

    python -m benchmarks.stats_sampling

Frames are made here, 24 million of 8 dimensions in 600 units (133 hours at 50 a second). Within a clip they go together
(AR(1)), and clips differ: of a dimension's variance 5, 20, 50 or 80 % is between clips, once as Gaussians, once with
the long tails of log-normals. Units hold clips sorted by length, as the plan does, and means drift with length. The
sample is the one of `coat.pipeline.statistics.sampling`, of 20 seeds.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import Figure, durations, results
from coat.pipeline.statistics.sampling import PLACES, FrameSample, choose_sample

UNITS, UNIT_FRAMES, RATE_HZ = 600, 40_000, 50
SHARES = (0.05, 0.2, 0.5, 0.8)  # of the variance, between clips
MEMORY = 0.9  # of AR(1), from frame to frame
SIZES = (64, 256, 1024, PLACES)
SEEDS = 20
PROMISED = 0.02  # of a standard deviation


def main() -> None:
    with results("stats_sampling") as found:
        unit_frames = {f"u{i:05d}": UNIT_FRAMES for i in range(UNITS)}
        frames_ND, clip_N = make()
        mean_D, std_D = frames_ND.mean(0, dtype=np.float64), frames_ND.std(0, dtype=np.float64)
        for places in SIZES:
            errors: list[NDArray[np.float64]] = []
            clips = frames = 0
            for seed in range(SEEDS):
                at_N = positions(choose_sample(unit_frames, places, seed), list(unit_frames))
                part_ND = frames_ND[at_N].astype(np.float64)
                errors.append(np.stack([part_ND.mean(0) - mean_D, part_ND.std(0) - std_D]) / std_D)
                clips, frames = len(np.unique(clip_N[at_N])), len(at_N)
            of_mean, of_std = np.sqrt(np.mean(np.square(errors), axis=0))  # over seeds
            worst = float(max(of_mean.max(), of_std.max()))
            value = f"mean {100 * np.median(of_mean):.2f} %, deviation {100 * np.median(of_std):.2f} % of a deviation"
            of_worst = f"{100 * of_mean.max():.2f} and {100 * of_std.max():.2f} %"
            note = f"root mean square over {SEEDS} seeds, of {clips:,} clips; the worst of 8 dimensions: {of_worst}"
            met = worst <= PROMISED if places == PLACES else None
            target = f"worst <= {100 * PROMISED:.0f} %" if places == PLACES else ""
            found.add(
                Figure(f"Error of statistics of {frames:,} frames of {len(frames_ND):,}", value, target, met, note)
            )
            found.data[str(places)] = {"frames": frames, "clips": clips, "errors": np.array(errors).tolist()}


def positions(sample: FrameSample, units: list[str]) -> NDArray[np.int64]:
    """Of the frames of a sample, among all."""
    place = {unit: i * UNIT_FRAMES for i, unit in enumerate(units)}
    runs = [(place[unit] + first, count) for unit in sample.chunks for first, count in sample.spans(unit)]
    return np.concatenate([np.arange(first, first + count) for first, count in runs])


def make() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Frames `[N, D]` float32, and the number of each one's clip."""
    rng = np.random.default_rng(0)
    total = UNITS * UNIT_FRAMES
    frames_ND, clip_N = np.empty((total, 2 * len(SHARES)), np.float32), np.empty(total, np.int32)
    clips = 0
    for unit, length_s in enumerate(rng.permutation(np.sort(durations(UNITS, rng)))):
        part = slice(unit * UNIT_FRAMES, (unit + 1) * UNIT_FRAMES)
        length = max(1, int(length_s * RATE_HZ))
        of_unit_N = np.arange(UNIT_FRAMES) // length
        clip_N[part] = clips + of_unit_N
        count = int(of_unit_N[-1]) + 1
        clips += count
        drift = 0.5 * np.log(length_s / 5.0)
        between_CD = (rng.standard_normal((count, len(SHARES))) + drift).astype(np.float32)
        within_ND = autoregressive(rng, UNIT_FRAMES, len(SHARES))
        share_D = np.sqrt(np.array(SHARES, np.float32))
        gaussian_ND = share_D * between_CD[of_unit_N] + np.sqrt(1 - share_D**2) * within_ND
        frames_ND[part, : len(SHARES)] = gaussian_ND
        frames_ND[part, len(SHARES) :] = np.exp(0.7 * gaussian_ND)
    return frames_ND, clip_N


def autoregressive(rng: np.random.Generator, frames: int, dim: int) -> NDArray[np.float32]:
    """Variance 1; an exponential window over noise, cut where nothing is left of it."""
    noise_ND = rng.standard_normal((frames + 64, dim), np.float32)
    weight_K = (MEMORY ** np.arange(64)).astype(np.float32)
    weight_K *= np.sqrt(1 - MEMORY**2)
    columns = [np.convolve(noise_ND[:, d], weight_K, "valid")[:frames] for d in range(dim)]
    return np.stack(columns, axis=1)


if __name__ == "__main__":
    main()
