"""The suite must fail on experts that are broken in the ways that matter."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from coat.extractors import Expert, Frames, Options, Waveform, Window
from coat.extractors.mel import Mel
from coat.manifests import TargetSpec
from tests.extractors.conformance import MIXED, ExpertConformance, noise


class Good(Mel):
    """Log-mel, which holds: what each broken one below starts from."""

    def __init__(self) -> None:
        super().__init__(Options())
        self.load("cpu")


class OffByTwoFrames(Good):
    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [np.roll(f, 2, axis=0) for f in super().extract(waveforms)]


class WrongRate(Good):
    """A rate inferred from a shape, one percent off."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, rate_hz=99.0)


class WrongStart(Good):
    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, start_s=0.0125)


class NormalisedOverTheBatch(Good):
    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        frames = super().extract(waveforms)
        return [f - np.concatenate(frames).mean(dtype=np.float32) for f in frames]


class PaddedToTheLongest(Good):
    """Keeps the frames of the padding."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        longest = max((len(x) for x in waveforms), default=0)
        return super().extract([np.pad(x, (0, longest - len(x))) for x in waveforms])


class MixesUpTheOrder(Good):
    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return super().extract(sorted(waveforms, key=len))


class NaNOnSilence(Good):
    def one(self, samples_T: Waveform) -> Frames:
        frames = super().one(samples_T)
        return frames if samples_T.any() else frames * np.float32("nan")


class Overflows(Good):
    """Finite as computed, infinite as stored in float16."""

    def one(self, samples_T: Waveform) -> Frames:
        return super().one(samples_T) * 1e6


class Chance(Good):
    generator = np.random.default_rng()

    def one(self, samples_T: Waveform) -> Frames:
        frames = super().one(samples_T)
        return frames + self.generator.normal(scale=1e-3, size=frames.shape).astype(np.float32)


class ChangesItsInput(Good):
    def one(self, samples_T: Waveform) -> Frames:
        samples_T *= 0.5
        return super().one(samples_T)


class CutsLongAudio(Good):
    def one(self, samples_T: Waveform) -> Frames:
        return super().one(samples_T[: 20 * 16000])


class TooLittleContext(Good):
    def __init__(self) -> None:
        super().__init__()
        self.context_s = 0.0  # a frame hears 200 samples on both sides


class JoinsOffByTwo(Good):
    def windows(self, samples: int) -> list[Window]:
        plan = super().windows(samples)
        return [replace(w, start=w.start + 320 * (i > 0)) for i, w in enumerate(plan)]


class DoublePrecision(Good):
    def one(self, samples_T: Waveform) -> Frames:
        return super().one(samples_T).astype(np.float64)  # pyright: ignore[reportReturnType]


class NeedsMoreThanItSays(Good):
    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, min_samples=100)


class Suite(ExpertConformance):
    whole_tolerance = 1e-4


CLIP = "test_frames_cover_the_clip"
TIME = "test_frames_lie_where_the_spec_says"
SEAM = "test_frames_at_a_seam_lie_where_the_spec_says"


def run(expert: Expert, test: str) -> None:
    arguments = {CLIP: [1.3701], TIME: [0.71], SEAM: [1]}.get(test, [])
    getattr(Suite(), test)(expert, *arguments)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (OffByTwoFrames, TIME),
        (WrongRate, TIME),
        (WrongStart, TIME),
        (NormalisedOverTheBatch, "test_no_dependence_on_batch_mates"),
        (NormalisedOverTheBatch, "test_equal_lengths_do_not_mix"),
        (PaddedToTheLongest, "test_no_dependence_on_batch_mates"),
        (MixesUpTheOrder, "test_no_dependence_on_batch_mates"),
        (NaNOnSilence, "test_silence_and_full_scale_are_finite"),
        (Overflows, "test_values_fit_their_kind"),
        (Chance, "test_deterministic"),
        (ChangesItsInput, "test_deterministic"),
        (CutsLongAudio, "test_long_audio_is_heard_to_its_end"),
        (TooLittleContext, "test_windows_equal_a_single_pass"),
        (TooLittleContext, "test_windows_are_in_the_fingerprint"),
        (JoinsOffByTwo, "test_windows_equal_a_single_pass"),
        (JoinsOffByTwo, SEAM),
        (DoublePrecision, CLIP),
        (NeedsMoreThanItSays, "test_shortest_clip"),
    ],
)
def test_the_suite_finds(broken: type[Good], test: str) -> None:
    run(Good(), test)
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        run(broken(), test)


def test_mixed_batches_differ_in_length_and_level() -> None:
    lengths, levels = zip(*MIXED, strict=True)
    assert len(set(lengths)) == len(lengths)
    assert max(levels) / min(levels) > 10


@pytest.mark.parametrize("shift", [-3, -1, 0, 2, 5])
def test_a_burst_is_found_where_it_is(shift: int) -> None:
    """The measure itself, against a target made by hand."""
    spec = TargetSpec(
        expert="x", version=1, family="events", kind="scalars", dim=1, rate_hz=10, start_s=0.05, sample_rate=100,
        min_samples=1,
    )  # fmt: skip
    before = noise(5.0, 10, level=1e-3)[:, None]
    after = before.copy()
    after[20 + shift : 23 + shift] += [[0.6], [1.0], [0.6]]
    found = Suite().burst_time(before, after, spec)
    assert found == pytest.approx(spec.times(50)[21 + shift], abs=0.002)
