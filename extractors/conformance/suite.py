"""What every expert must hold, tried on sounds that are made here.

`coat experts --check NAME` prints it, and the tests run it on every expert, and on broken ones that it must find. How
an expert is tried it says itself (`Expert.trial`). Each check gives what it measured, or raises Broken.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coat.extractors.checkpoints.checkpoint import Checkpoint
from coat.extractors.conformance import events
from coat.extractors.conformance.events import noise, relative_error, tone
from coat.extractors.expert import Expert, extract_windows
from coat.extractors.windows import Frames, Waveform, cut, join
from coat.manifests.errors import one_line
from coat.manifests.targets.spec import TargetSpec

BATCH_TOLERANCE = 1e-4  # of the largest value of a clip
DRAWS = 3  # of the noise of a burst: what one does to a frame is half chance
TONE_S = 0.5  # of a tone, or eight frames
GLIDE_S = 0.3  # of a glide, or four frames where these are longer
MIXED = ((1.0, 0.1), (3.1, 0.3), (0.63, 0.02), (2.05, 0.1))  # seconds and level of clips in one batch
SCALE = 1.25  # of all weights, to see whether an expert hears with the ones it was given


class Broken(Exception):
    """The expert does not hold what it must: in words, with numbers."""


class NotTried(Exception):
    """The check says nothing about this expert, and why."""


@dataclass(frozen=True)
class Finding:
    """What became of one check. `held` is None where it does not apply."""

    check: str
    held: bool | None
    said: str


Check = Callable[[Expert], str]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__] = function
    return function


def examine(expert: Expert) -> Iterator[Finding]:
    """Every check on a loaded expert, one after the other."""
    for name, function in CHECKS.items():
        words = name.replace("_", " ")
        try:
            yield Finding(words, True, function(expert))
        except NotTried as e:
            yield Finding(words, None, str(e))
        except Broken as e:
            yield Finding(words, False, str(e))
        except Exception as e:  # noqa: BLE001  whatever an expert raises here is what is wrong with it
            yield Finding(words, False, f"raised {type(e).__name__}: {one_line(e, 300)}")


def require(held: bool | np.bool_, otherwise: str) -> None:
    if not held:
        raise Broken(otherwise)


def long_enough(expert: Expert) -> float:
    """Seconds in which frames can be counted and placed."""
    return max(2.0, 40 / expert.spec.rate_hz)


def seconds_of(expert: Expert, x: Waveform) -> float:
    return len(x) / expert.spec.sample_rate


def require_covered(expert: Expert, x: Waveform, frames: Frames) -> None:
    spec = expert.spec
    require(len(frames) > 0, f"no frames of {seconds_of(expert, x):g} s")
    times, duration = spec.times(len(frames)), seconds_of(expert, x)
    require(times[-1] <= duration + 0.5 / spec.rate_hz, f"a frame is centred at {times[-1]:.4f} s of {duration:.4f} s")
    left = duration - times[-1]
    allowed = spec.start_s + 2 / spec.rate_hz
    require(left <= allowed, f"frames end {left:.4f} s before the clip; {allowed:.4f} s are allowed")


@check
def the_spec_survives_json(expert: Expert) -> str:
    text = json.dumps(expert.spec.to_dict())
    again = TargetSpec.from_dict(json.loads(text))
    require(again.fingerprint == expert.spec.fingerprint, "its fingerprint changes on the way through JSON")
    require(again.to_dict() == json.loads(text), "values of its spec change on the way through JSON")
    return f"fingerprint {again.fingerprint}"


@check
def the_spec_agrees_with_the_class(expert: Expert) -> str:
    spec, card = expert.spec, expert.card
    require(spec.expert == expert.name, f"the class is called {expert.name!r}, the spec's expert {spec.expert!r}")
    for name in ("family", "kind", "dim", "rate_hz"):
        stated, found = getattr(card, name), getattr(spec, name)
        fixed = name in ("family", "kind") or card.checkpoint in ("none", "built-in")  # whatever the checkpoint
        if fixed and stated is not None:
            require(stated == found, f"the card has {name} {stated!r}, the spec {found!r}")
    require(expert.options.dtype == spec.dtype, f"--dtype {expert.options.dtype} is not in the spec")
    return f"{spec.family}, {spec.kind}, {spec.dim} x {spec.rate_hz:.6g} Hz from {spec.start_s:.6g} s"


@check
def windows_are_in_the_spec(expert: Expert) -> str:
    found = tuple(expert.spec.settings.get(name) for name in ("window_s", "context_s"))
    own = (expert.window_s, expert.context_s)
    require(found == own, f"window_s and context_s are {own}, in the spec {found}; make the spec with `describe`")
    return f"windows of {own[0]:g} s, {own[1]:g} s of context"


@check
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


@check
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


def require_place(expert: Expert, found: float, true: float, what: str) -> float:
    """How many frames an event seems to be off; Broken where that is too many."""
    off, allowed = (found - true) * expert.spec.rate_hz, expert.trial.frames_off
    require(
        abs(off) <= allowed, f"{what} at {true:.4f} s shows at {found:.4f} s: {off:+.2f} frames, {allowed:g} allowed"
    )
    return abs(off)


def extractor_of_variants(expert: Expert, original: Waveform) -> Callable[[Waveform], Frames]:
    """Extracts clips that differ from `original` in a few windows; the frames of all others are extracted once.

    Not for experts with a memory, whose windows depend on those before.
    """
    plan = expert.windows(len(original))
    if len(plan) == 1 or type(expert).stream is not Expert.stream:
        return lambda x: extract_windows(expert, [x])[0]
    windows = list(cut([original], plan))
    frames = list(expert.stream(windows))

    def extract(x: Waveform) -> Frames:
        found = {
            i: next(iter(expert.stream([own_T])))
            for i, own_T in enumerate(cut([x], plan))
            if not np.array_equal(own_T, windows[i])
        }
        return np.concatenate([*join([found.get(i, frames[i]) for i in range(len(plan))], plan)])

    return extract


def bursts_off(expert: Expert, quiet: Waveform, centres: Sequence[int]) -> str:
    """The same clip with and without a burst around a sample differs most there."""
    trial, spec = expert.trial, expert.spec
    extract_changed = extractor_of_variants(expert, quiet)
    before = extract_changed(quiet)
    off = 0.0
    for centre in centres:
        struck = [
            events.burst(quiet, spec.sample_rate, centre, trial.burst_s, trial.loud, draw, trial.tonal)
            for draw in range(DRAWS)
        ]
        after = [extract_changed(x) for x in struck]
        found_N = np.mean([events.difference(trial.view(before), trial.view(f)) for f in after], axis=0)
        require(found_N.max() > 0, f"a burst of {trial.burst_s:g} s changes nothing")
        true = centre / spec.sample_rate
        if trial.causal:
            begun = true - trial.burst_s / 2
            off = max(off, require_place(expert, events.first_time(found_N, spec), begun, "a burst that begins"))
        else:
            off = max(off, require_place(expert, events.peak_time(found_N, spec), true, "a burst"))
    return f"{off:.2f} frames off at most, {trial.frames_off:g} allowed"


@check
def a_burst_shows_where_the_spec_says(expert: Expert) -> str:
    quiet = noise(long_enough(expert), expert.spec.sample_rate, level=expert.trial.quiet)
    return bursts_off(expert, quiet, [round(where * len(quiet)) for where in (0.3, 0.52, 0.71)])


def differences(expert: Expert, pairs: Sequence[tuple[Waveform, Waveform]]) -> list[events.Difference]:
    """Of clips without and with an event, which is at another place in each pair.

    What changes wherever the event is (a clip is normalised, all frames attend to it) is taken off.
    """
    found: list[events.Difference] = []
    for clips in pairs:
        before, after = (expert.trial.view(f) for f in extract_windows(expert, [*clips]))
        found.append(events.difference(before, after))
        require(found[-1].max() > 0, "the event changes nothing")
    if expert.trial.causal:
        return found
    everywhere_N = np.median(found, axis=0)
    return [np.maximum(found_N - everywhere_N, 0.0) for found_N in found]


@check
def a_tone_shows_where_the_spec_says(expert: Expert) -> str:
    """Its middle: what a frame hears on both sides blurs where it begins and ends, and alike."""
    spec, trial = expert.spec, expert.trial
    quiet = noise(long_enough(expert), spec.sample_rate, level=trial.quiet)
    samples = round(max(TONE_S, 8 / spec.rate_hz) * spec.sample_rate)
    starts = [round(where * len(quiet)) for where in (0.03, 0.2, 0.36, 0.53, 0.68)]
    pairs = [events.segment(quiet, spec.sample_rate, start, start + samples, trial.loud) for start in starts]
    off, early = [], []  # seconds
    for start, found_N in zip(starts, differences(expert, pairs), strict=True):
        begins, length = start / spec.sample_rate, samples / spec.sample_rate
        if trial.causal:
            first = events.first_time(found_N, spec)
            off.append(first - begins)
        else:
            first, last = events.segment_times(found_N, spec)
            off.append((first + last - length) / 2 - begins)
        early.append(begins - first)
    require_place(expert, float(np.median(off)), 0.0, f"{len(off)} tones, less their true times:")
    said = f"{np.median(off) * spec.rate_hz:+.2f} frames off, {trial.frames_off:g} allowed"
    return f"{said}; a tone begins {np.median(early) * spec.rate_hz:+.2f} frames early"


@check
def a_glide_shows_where_the_spec_says(expert: Expert) -> str:
    spec, trial = expert.spec, expert.trial
    if trial.causal:
        raise NotTried("frames hear the past alone: what comes slowly shows late")
    samples, seconds = round(long_enough(expert) * spec.sample_rate), max(GLIDE_S, 4 / spec.rate_hz)
    centres = [round(where * samples) for where in (0.14, 0.33, 0.5, 0.69, 0.86)]
    found = differences(expert, [events.glide(samples, spec.sample_rate, centre, seconds) for centre in centres])
    off = [
        events.stretch_time(found_N, spec, seconds) - centre / spec.sample_rate
        for centre, found_N in zip(centres, found, strict=True)
    ]
    require_place(expert, float(np.median(off)), 0.0, f"{len(off)} glides, less their true times:")
    return f"{np.median(off) * spec.rate_hz:+.2f} frames off, {trial.frames_off:g} allowed"


@check
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


@check
def a_clip_gives_the_same_twice(expert: Expert) -> str:
    x = noise(1.5, expert.spec.sample_rate)
    (first,), (second,) = expert.extract([x]), expert.extract([x])
    require(np.array_equal(first, second), f"two passes differ by {relative_error(first, second):.1e}")
    return "equal bits"


@check
def batch_mates_change_nothing(expert: Expert) -> str:
    rate, worst = expert.spec.sample_rate, 0.0
    clips = [noise(s, rate, seed=i, level=v) for i, (s, v) in enumerate(MIXED)]
    clips.append(tone(1.7, rate))
    clips += [noise(1.2, rate, seed=i, level=v) for i, v in enumerate((0.01, 0.3, 0.1))]  # of one length
    clips = [x for x in clips if len(expert.windows(len(x))) == 1]
    alone = [expert.extract([x])[0] for x in clips]
    for order in (range(len(clips)), np.random.default_rng(0).permutation(len(clips))):
        together = expert.extract([clips[i] for i in order])
        require(len(together) == len(clips), f"{len(together)} targets of {len(clips)} clips")
        for i, frames in zip(order, together, strict=True):
            error = relative_error(alone[i], frames)
            require(error <= BATCH_TOLERANCE, f"a clip differs in a batch by {error:.1e}; {BATCH_TOLERANCE:g} allowed")
            worst = max(worst, error)
    return f"{worst:.1e} at most, {BATCH_TOLERANCE:g} allowed"


@check
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


@check
def no_clips_give_no_targets(expert: Expert) -> str:
    require(expert.extract([]) == [], "an empty batch gives something")
    return "an empty batch is empty"


def long_clip(expert: Expert, level: float = 0.1) -> Waveform:
    return noise(2.4 * expert.window_s + 0.013, expert.spec.sample_rate, level=level)


@check
def long_audio_is_heard_to_its_end(expert: Expert) -> str:
    x = long_clip(expert)
    plan = expert.windows(len(x))
    require(len(plan) > 2, f"{seconds_of(expert, x):.0f} s are heard in {len(plan)} windows of {expert.window_s:g} s")
    (frames,) = extract_windows(expert, [x])
    require(np.isfinite(frames).all(), "long audio gives values that are not finite")
    require_covered(expert, x, frames)
    return f"{seconds_of(expert, x):.0f} s in {len(plan)} windows, {len(frames)} frames"


@check
def frames_at_a_seam_lie_where_the_spec_says(expert: Expert) -> str:
    """A burst where one window's frames end and the next one's begin."""
    spec = expert.spec
    quiet = long_clip(expert, level=expert.trial.quiet)
    firsts = [(w.start / spec.sample_rate, w.skip) for w in expert.windows(len(quiet))[1:3]]
    seams = [start + spec.start_s + skip / spec.rate_hz for start, skip in firsts]
    return bursts_off(expert, quiet, [round(seam * spec.sample_rate) for seam in seams])


@check
def windows_equal_a_single_pass(expert: Expert) -> str:
    whole = expert.trial.whole
    if whole is None:
        raise NotTried("each frame hears the whole window")
    rate = expert.spec.sample_rate
    x = long_clip(expert).copy()
    x += tone(len(x) / rate + 1, rate, hz=160)[: len(x)] * np.sin(np.arange(len(x)) / rate)  # comes and goes
    (single,), (joined,) = expert.extract([x]), extract_windows(expert, [x])
    error = events.channel_error(single, joined)
    require(error <= whole, f"windows differ from a single pass by {error:.1e} of a channel; {whole:g} allowed")
    return f"{error:.1e} of a channel, {whole:g} allowed"


@check
def padded_samples_grow_with_the_clip(expert: Expert) -> str:
    rate = expert.spec.sample_rate
    lengths = [expert.spec.min_samples, rate, round(expert.window_s * rate)]
    costs = [expert.padded_samples(n) for n in lengths]
    require(costs == sorted(costs), f"clips of {lengths} samples cost {costs}")
    require(
        all(cost >= n * 0.99 for cost, n in zip(costs, lengths, strict=True)), f"{lengths} samples cost less: {costs}"
    )
    return f"clips of {', '.join(map(str, lengths))} samples cost {', '.join(map(str, costs))}"


@check
def other_weights_give_other_targets(expert: Expert) -> str:
    """A copy of its checkpoint with every weight scaled: both the fingerprint and the frames must follow."""
    files = getattr(expert, "files", None)
    if not isinstance(files, Checkpoint) or any(path.suffix != ".safetensors" for path in files.weights):
        raise NotTried("no folder of safetensors")
    from safetensors.torch import load_file, save_file

    x = noise(1.0, expert.spec.sample_rate)
    with tempfile.TemporaryDirectory() as folder:
        for path in files.folder.iterdir():
            if path.is_file() and path not in files.weights:
                shutil.copy(path, folder)
        for path in files.weights:
            tensors = {k: v * SCALE if v.is_floating_point() else v for k, v in load_file(path).items()}
            save_file(tensors, Path(folder) / path.name, metadata={"format": "pt"})
        other = type(expert)(replace(expert.options, checkpoint=folder))
        require(other.spec.fingerprint != expert.spec.fingerprint, "the fingerprint does not change with the weights")
        other.load("cpu")
        (a,), (b,) = expert.extract([x]), other.extract([x])
    error = relative_error(a, b)
    require(error > BATCH_TOLERANCE, "the frames do not change with the weights: are they loaded at all?")
    return f"another fingerprint, frames that differ by {error:.1e}"
