"""Long audio in windows: heard to its end, and the same as a single pass where that is claimed."""

import numpy as np

from coat.extractors.conformance.check import NotApplicable, require, require_covered, seconds_of
from coat.extractors.conformance.differences import channel_error
from coat.extractors.conformance.event_checks import check_bursts
from coat.extractors.conformance.sounds import noise, tone
from coat.extractors.expert import Expert, extract_windows
from coat.extractors.windows import Waveform


def long_clip(expert: Expert, level: float = 0.1) -> Waveform:
    return noise(2.4 * expert.window_s + 0.013, expert.spec.sample_rate, level=level)


def long_audio_is_heard_to_its_end(expert: Expert) -> str:
    x = long_clip(expert)
    plan = expert.windows(len(x))
    require(len(plan) > 2, f"{seconds_of(expert, x):.0f} s are heard in {len(plan)} windows of {expert.window_s:g} s")
    (frames,) = extract_windows(expert, [x])
    require(np.isfinite(frames).all(), "long audio gives values that are not finite")
    require_covered(expert, x, frames)
    return f"{seconds_of(expert, x):.0f} s in {len(plan)} windows, {len(frames)} frames"


def frames_at_a_seam_lie_where_the_spec_says(expert: Expert) -> str:
    """A burst where one window's frames end and the next one's begin."""
    spec = expert.spec
    quiet = long_clip(expert, level=expert.trial.quiet)
    firsts = [(w.start / spec.sample_rate, w.skip) for w in expert.windows(len(quiet))[1:3]]
    seams = [start + spec.start_s + skip / spec.rate_hz for start, skip in firsts]
    return check_bursts(expert, quiet, [round(seam * spec.sample_rate) for seam in seams])


def windows_equal_a_single_pass(expert: Expert) -> str:
    whole = expert.trial.whole
    if whole is None:
        raise NotApplicable("each frame hears the whole window")
    rate = expert.spec.sample_rate
    x = long_clip(expert).copy()
    x += tone(len(x) / rate + 1, rate, hz=160)[: len(x)] * np.sin(np.arange(len(x)) / rate)  # comes and goes
    (single,), (joined,) = expert.extract([x]), extract_windows(expert, [x])
    error = channel_error(single, joined)
    require(error <= whole, f"windows differ from a single pass by {error:.1e} of a channel; {whole:g} allowed")
    return f"{error:.1e} of a channel, {whole:g} allowed"
