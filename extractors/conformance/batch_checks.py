"""What must change nothing: a second pass, other clips in the batch, the length of a clip."""

import numpy as np

from coat.extractors.conformance.check import BATCH_TOLERANCE, require
from coat.extractors.conformance.differences import relative_error
from coat.extractors.conformance.sounds import noise, tone
from coat.extractors.expert import Expert

MIXED = ((1.0, 0.1), (3.1, 0.3), (0.63, 0.02), (2.05, 0.1))  # seconds and level of clips in one batch


def a_clip_gives_the_same_twice(expert: Expert) -> str:
    x = noise(1.5, expert.spec.sample_rate)
    (first,), (second,) = expert.extract([x]), expert.extract([x])
    require(np.array_equal(first, second), f"two passes differ by {relative_error(first, second):.1e}")
    return "equal bits"


def frames_are_left_alone(expert: Expert) -> str:
    """A worker writes them while the next clips are heard: no buffer of the expert's own."""
    clips = [noise(1.5, expert.spec.sample_rate, seed=i) for i in range(2)]
    (first,) = expert.extract(clips[:1])
    before = first.copy()
    (second,) = expert.extract(clips[1:])
    require(np.array_equal(first, before, equal_nan=True), "the frames of a clip change when the next one is heard")
    require(not np.shares_memory(first, second), "two clips have their frames in the same memory")
    return "unchanged by the next pass"


def frames_may_be_cast_on_the_device(expert: Expert) -> str:
    """Where `frames_dtype` asks for float16, it gives that or float32, and the same values."""
    x = noise(1.5, expert.spec.sample_rate)
    (full,) = expert.extract([x])
    asked, expert.frames_dtype = expert.frames_dtype, "float16"
    try:
        (given,) = expert.extract([x])
    finally:
        expert.frames_dtype = asked
    require(given.dtype in (np.float16, np.float32), f"frames are {given.dtype}; expected float16 or float32")
    require(np.array_equal(full.astype(np.float16), given.astype(np.float16)), "float16 frames are other frames")
    return f"{given.dtype} where float16 is asked"


def batch_mates_change_nothing(expert: Expert) -> str:
    rate, worst = expert.spec.sample_rate, 0.0
    clips = [noise(s, rate, seed=i, level=v) for i, (s, v) in enumerate(MIXED)]
    clips.append(tone(1.7, rate))
    clips += [noise(1.2, rate, seed=i, level=v) for i, v in enumerate((0.01, 0.3, 0.1))]  # of one length
    clips = [x for x in clips if len(expert.windows(len(x))) == 1]
    alone = [expert.extract([x])[0] for x in clips]
    for order in (range(len(clips)), np.random.default_rng(0).permutation(len(clips))):
        in_one_batch = expert.extract([clips[i] for i in order])
        require(len(in_one_batch) == len(clips), f"{len(in_one_batch)} targets of {len(clips)} clips")
        for i, frames in zip(order, in_one_batch, strict=True):
            error = relative_error(alone[i], frames)
            require(error <= BATCH_TOLERANCE, f"a clip differs in a batch by {error:.1e}; {BATCH_TOLERANCE:g} allowed")
            worst = max(worst, error)
    return f"{worst:.1e} at most, {BATCH_TOLERANCE:g} allowed"


def the_shortest_clip_gives_a_frame(expert: Expert) -> str:
    spec = expert.spec
    shortest = noise(spec.min_samples / spec.sample_rate, spec.sample_rate)
    require(len(shortest) == spec.min_samples, f"min_samples {spec.min_samples} is no length")
    alone = expert.extract([shortest])[0]
    require(alone.shape[0] >= 1 and alone.shape[1] == spec.dim, f"{spec.min_samples} samples give {alone.shape}")
    require(np.isfinite(alone).all(), f"{spec.min_samples} samples give values that are not finite")
    mixed = expert.extract([noise(1.1, spec.sample_rate, seed=2), shortest])[1]
    require(relative_error(alone, mixed) <= BATCH_TOLERANCE, "beside a longer clip it gives other frames")
    return f"{len(alone)} of {spec.min_samples} samples"


def no_clips_give_no_targets(expert: Expert) -> str:
    require(expert.extract([]) == [], "an empty batch gives something")
    return "an empty batch is empty"


def padded_samples_grow_with_the_clip(expert: Expert) -> str:
    rate = expert.spec.sample_rate
    lengths = [expert.spec.min_samples, rate, round(expert.window_s * rate)]
    costs = [expert.padded_samples(n) for n in lengths]
    require(costs == sorted(costs), f"clips of {lengths} samples cost {costs}")
    require(
        all(cost >= n * 0.99 for cost, n in zip(costs, lengths, strict=True)), f"{lengths} samples cost less: {costs}"
    )
    return f"clips of {', '.join(map(str, lengths))} samples cost {', '.join(map(str, costs))}"
