"""Where a sound shows in the frames: there where the spec says that they are centred."""

from collections.abc import Callable, Sequence

import numpy as np

from coat.extractors.conformance import sounds
from coat.extractors.conformance.check import NotApplicable, long_enough, require
from coat.extractors.conformance.differences import (
    Difference,
    difference,
    first_time,
    peak_time,
    segment_times,
    stretch_time,
)
from coat.extractors.conformance.sounds import noise
from coat.extractors.expert import Expert, extract_windows
from coat.extractors.windows import Frames, Waveform, kept_frames, split_into_windows

DRAWS = 3  # of the noise of a burst: what one does to a frame is half chance
TONE_S = 0.5  # of a tone, or eight frames
GLIDE_S = 0.3  # of a glide, or four frames where these are longer


def require_place(expert: Expert, found: float, true: float, what: str) -> float:
    """How many frames an event seems to be off; CheckFailed where that is too many."""
    off, allowed = (found - true) * expert.spec.rate_hz, expert.trial.frames_off
    require(
        abs(off) <= allowed, f"{what} at {true:.4f} s shows at {found:.4f} s: {off:+.2f} frames, {allowed:g} allowed"
    )
    return abs(off)


def extractor_of_variants(expert: Expert, original: Waveform) -> Callable[[Waveform], Frames]:
    """Extracts clips that differ from `original` in a few windows; the frames of all other windows are extracted once.

    Not so for experts with a memory, whose windows depend on those before.
    """
    plan = expert.windows(len(original))
    if len(plan) == 1 or type(expert).stream is not Expert.stream:
        return lambda x: extract_windows(expert, [x])[0]
    windows = list(split_into_windows([original], plan))
    frames = list(expert.stream(windows))

    def extract(x: Waveform) -> Frames:
        changed = {
            i: next(iter(expert.stream([own_T])))
            for i, own_T in enumerate(split_into_windows([x], plan))
            if not np.array_equal(own_T, windows[i])
        }
        return np.concatenate([*kept_frames([changed.get(i, frames[i]) for i in range(len(plan))], plan)])

    return extract


def check_bursts(expert: Expert, quiet: Waveform, centres: Sequence[int]) -> str:
    """The same clip with and without a burst around a sample differs most there."""
    trial, spec = expert.trial, expert.spec
    extract = extractor_of_variants(expert, quiet)
    before = extract(quiet)
    off = 0.0
    for centre in centres:
        struck = [
            sounds.burst(quiet, spec.sample_rate, centre, trial.burst_s, trial.loud, draw, trial.tonal)
            for draw in range(DRAWS)
        ]
        after = [extract(x) for x in struck]
        found_N = np.mean([difference(trial.view(before), trial.view(f)) for f in after], axis=0)
        require(found_N.max() > 0, f"a burst of {trial.burst_s:g} s changes nothing")
        true = centre / spec.sample_rate
        if trial.causal:
            begun = true - trial.burst_s / 2
            off = max(off, require_place(expert, first_time(found_N, spec), begun, "a burst that begins"))
        else:
            off = max(off, require_place(expert, peak_time(found_N, spec), true, "a burst"))
    return f"{off:.2f} frames off at most, {trial.frames_off:g} allowed"


def a_burst_shows_where_the_spec_says(expert: Expert) -> str:
    quiet = noise(long_enough(expert), expert.spec.sample_rate, level=expert.trial.quiet)
    return check_bursts(expert, quiet, [round(where * len(quiet)) for where in (0.3, 0.52, 0.71)])


def event_differences(expert: Expert, pairs: Sequence[tuple[Waveform, Waveform]]) -> list[Difference]:
    """Of clips without and with an event, which is at another place in each pair.

    What changes wherever the event is (a clip is normalised, all frames attend to it) is taken off.
    """
    found: list[Difference] = []
    shared: tuple[Waveform, Frames] | None = None  # the clip without the event, where it is the same in each pair
    for without_T, with_T in pairs:
        if shared is None or not np.array_equal(shared[0], without_T):
            shared = without_T, expert.trial.view(extract_windows(expert, [without_T])[0])
        (after,) = extract_windows(expert, [with_T])
        found.append(difference(shared[1], expert.trial.view(after)))
        require(found[-1].max() > 0, "the event changes nothing")
    if expert.trial.causal:
        return found
    everywhere_N = np.median(found, axis=0)
    return [np.maximum(found_N - everywhere_N, 0.0) for found_N in found]


def a_tone_shows_where_the_spec_says(expert: Expert) -> str:
    """Its middle: what a frame hears on both sides blurs where it begins and ends, and alike."""
    spec, trial = expert.spec, expert.trial
    quiet = noise(long_enough(expert), spec.sample_rate, level=trial.quiet)
    samples = round(max(TONE_S, 8 / spec.rate_hz) * spec.sample_rate)
    starts = [round(where * len(quiet)) for where in (0.03, 0.2, 0.36, 0.53, 0.68)]
    pairs = [sounds.segment(quiet, spec.sample_rate, start, start + samples, trial.loud) for start in starts]
    off, early = [], []  # seconds
    for start, found_N in zip(starts, event_differences(expert, pairs), strict=True):
        begins, length = start / spec.sample_rate, samples / spec.sample_rate
        if trial.causal:
            first = first_time(found_N, spec)
            off.append(first - begins)
        else:
            first, last = segment_times(found_N, spec)
            off.append((first + last - length) / 2 - begins)
        early.append(begins - first)
    require_place(expert, float(np.median(off)), 0.0, f"{len(off)} tones, less their true times:")
    said = f"{np.median(off) * spec.rate_hz:+.2f} frames off, {trial.frames_off:g} allowed"
    return f"{said}; a tone begins {np.median(early) * spec.rate_hz:+.2f} frames early"


def a_glide_shows_where_the_spec_says(expert: Expert) -> str:
    spec, trial = expert.spec, expert.trial
    if trial.causal:
        raise NotApplicable("frames hear the past alone: what comes slowly shows late")
    samples, seconds = round(long_enough(expert) * spec.sample_rate), max(GLIDE_S, 4 / spec.rate_hz)
    centres = [round(where * samples) for where in (0.14, 0.33, 0.5, 0.69, 0.86)]
    found = event_differences(expert, [sounds.glide(samples, spec.sample_rate, centre, seconds) for centre in centres])
    off = [
        stretch_time(found_N, spec, seconds) - centre / spec.sample_rate
        for centre, found_N in zip(centres, found, strict=True)
    ]
    require_place(expert, float(np.median(off)), 0.0, f"{len(off)} glides, less their true times:")
    return f"{np.median(off) * spec.rate_hz:+.2f} frames off, {trial.frames_off:g} allowed"
