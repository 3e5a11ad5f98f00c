"""The suite must fail on experts that are broken in the ways that matter."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coat.extractors import Expert, Frames, Options, Waveform, Window
from coat.extractors.conformance import differences, sounds
from coat.extractors.conformance.batch_checks import MIXED
from coat.extractors.conformance.sounds import noise
from coat.extractors.conformance.suite import CHECKS, run_checks
from coat.extractors.experts.mel import Mel
from coat.extractors.experts.whisper import Whisper
from coat.manifests import TargetSpec
from tests.extractors import tiny


class Good(Mel):
    """Log-mel, which holds: what each broken one below starts from."""

    def __init__(self) -> None:
        super().__init__(Options())
        self.load("cpu")


class OffByAFrame(Good):
    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [np.roll(f, 1, axis=0) for f in super().extract(waveforms)]


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
    def extract_clip(self, samples_T: Waveform) -> Frames:
        frames = super().extract_clip(samples_T)
        return frames if samples_T.any() else frames * np.float32("nan")


class Overflows(Good):
    """Finite as computed, infinite as stored in float16."""

    def extract_clip(self, samples_T: Waveform) -> Frames:
        return super().extract_clip(samples_T) * 1e6


class Chance(Good):
    generator = np.random.default_rng()

    def extract_clip(self, samples_T: Waveform) -> Frames:
        frames = super().extract_clip(samples_T)
        return frames + self.generator.normal(scale=1e-3, size=frames.shape).astype(np.float32)


class ChangesItsInput(Good):
    def extract_clip(self, samples_T: Waveform) -> Frames:
        samples_T *= 0.5
        return super().extract_clip(samples_T)


class ReusesItsBuffer(Good):
    """As a model does whose output lies in the same memory each time."""

    buffer_ND = np.zeros((4000, 128), np.float32)

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        frames = super().extract(waveforms)
        for f in frames[-1:]:
            self.buffer_ND[: len(f)] = f
        return [*frames[:-1], *(self.buffer_ND[: len(f)] for f in frames[-1:])]


class ScaledForFloat16(Good):
    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        frames = super().extract(waveforms)
        return [f.astype(np.float16) * np.float16(0.5) for f in frames] if self.frames_dtype == "float16" else frames


class CutsLongAudio(Good):
    def extract_clip(self, samples_T: Waveform) -> Frames:
        return super().extract_clip(samples_T[: 20 * 16000])


class TooLittleContext(Good):
    def __init__(self) -> None:
        super().__init__()
        self.context_s = 0.0  # a frame hears 200 samples on both sides


class JoinsOffByTwo(Good):
    def windows(self, samples: int) -> list[Window]:
        plan = super().windows(samples)
        return [replace(w, start=w.start + 320 * (i > 0)) for i, w in enumerate(plan)]


class DoublePrecision(Good):
    def extract_clip(self, samples_T: Waveform) -> Frames:
        return super().extract_clip(samples_T).astype(np.float64)  # pyright: ignore[reportReturnType]


class NeedsMoreThanItSays(Good):
    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, min_samples=100)


class NoDistribution(Good):
    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, kind="distribution")


class IgnoresItsCheckpoint(Whisper):
    """A model of the right shape whose weights were never loaded: every checkpoint gives the same."""

    def load(self, device: str) -> None:
        super().load(device)
        torch.manual_seed(0)
        for parameter in self.model.parameters():
            torch.nn.init.normal_(parameter, std=0.02)


class OneFingerprint(Whisper):
    """Its spec does not tell one checkpoint from another."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.spec = replace(self.spec, weights="none")


PLACES = {
    "a_burst_shows_where_the_spec_says",
    "a_tone_shows_where_the_spec_says",
    "a_glide_shows_where_the_spec_says",
}


def failed(expert: Expert) -> set[str]:
    return {f.check.replace(" ", "_") for f in run_checks(expert) if f.held is False}


def test_a_good_expert_holds_everything() -> None:
    found = {f.check.replace(" ", "_"): f for f in run_checks(Good())}
    assert found.keys() == CHECKS.keys()
    none_of_it = {"other_weights_give_other_targets", "bfloat16_is_near"}  # it has no weights
    assert {name for name, f in found.items() if not f.held} == none_of_it
    assert all(f.said for f in found.values())


@pytest.mark.parametrize(
    ("broken", "checks"),
    [
        (OffByAFrame, PLACES),
        (WrongRate, PLACES),
        (WrongStart, PLACES),
        (NormalisedOverTheBatch, {"batch_mates_change_nothing"}),
        (PaddedToTheLongest, {"batch_mates_change_nothing"}),
        (MixesUpTheOrder, {"batch_mates_change_nothing"}),
        (NaNOnSilence, {"silence_and_full_scale_are_finite"}),
        (Overflows, {"values_fit_their_kind"}),
        (NoDistribution, {"values_fit_their_kind", "the_spec_agrees_with_the_class"}),
        (Chance, {"a_clip_gives_the_same_twice"}),
        (ChangesItsInput, {"a_clip_gives_the_same_twice"}),
        (ReusesItsBuffer, {"frames_are_left_alone"}),
        (ScaledForFloat16, {"frames_may_be_cast_on_the_device"}),
        (CutsLongAudio, {"long_audio_is_heard_to_its_end"}),
        (TooLittleContext, {"windows_equal_a_single_pass", "windows_are_in_the_spec"}),
        (JoinsOffByTwo, {"windows_equal_a_single_pass", "frames_at_a_seam_lie_where_the_spec_says"}),
        (DoublePrecision, {"frames_cover_the_clip"}),
        (NeedsMoreThanItSays, {"the_shortest_clip_gives_a_frame"}),
    ],
)
def test_the_suite_finds(broken: type[Good], checks: set[str]) -> None:
    assert checks <= failed(broken())


@pytest.mark.parametrize("broken", [IgnoresItsCheckpoint, OneFingerprint])
def test_the_suite_finds_what_ignores_its_checkpoint(broken: type[Whisper], tmp_path: Path) -> None:
    options = Options(checkpoint=str(tiny.whisper(tmp_path)))
    for cls, held in ((Whisper, True), (broken, False)):
        expert = cls(options)
        expert.load("cpu")
        assert ("other_weights_give_other_targets" not in failed(expert)) is held


def test_mixed_batches_differ_in_length_and_level() -> None:
    lengths, levels = zip(*MIXED, strict=True)
    assert len(set(lengths)) == len(lengths)
    assert max(levels) / min(levels) > 10


SPEC = TargetSpec(
    expert="x", version=1, family="events", kind="scalars", dim=1, rate_hz=10, start_s=0.05, sample_rate=100,
    min_samples=1,
)  # fmt: skip


@pytest.mark.parametrize("shift", [-3, -1, 0, 2, 5])
def test_measures_find_an_event_where_it_is(shift: int) -> None:
    """The measures themselves, against differences made by hand."""
    peak = 21 + shift
    around = noise(5.0, 10, level=1e-3) ** 2
    struck, long, begun = around.astype(np.float64), around.astype(np.float64), around.astype(np.float64)
    struck[peak - 1 : peak + 2] += [0.6, 1.0, 0.6]
    long[peak - 3 : peak + 4] += [0.2, 0.9, 0.1, 1.0, 0.1, 0.9, 0.2]  # of what comes and goes within it
    begun[peak : peak + 8] += 1.0
    at = SPEC.times(50)[peak]
    assert differences.peak_time(struck, SPEC) == pytest.approx(at, abs=0.002)
    assert differences.stretch_time(long, SPEC, 0.5) == pytest.approx(at, abs=0.002)
    assert differences.segment_times(begun, SPEC) == pytest.approx((at - 0.05, at + 0.75))
    assert differences.first_time(begun, SPEC) == pytest.approx(at)


def test_a_glide_ends_in_the_phase_that_it_began_with() -> None:
    steady, glides = sounds.glide(32000, 16000, centre=15000, seconds=0.4)
    np.testing.assert_array_equal(steady[:11800], glides[:11800])
    np.testing.assert_allclose(steady[18200:], glides[18200:], atol=1e-5)
    assert np.abs(steady - glides)[12500:17500].max() > 0.1


def test_a_segment_differs_in_nothing_but_what_it_is() -> None:
    before, after = sounds.segment(noise(2.0, 16000, level=1e-3), 16000, 9000, 20000, level=0.3)
    np.testing.assert_array_equal(before[:9000], after[:9000])
    np.testing.assert_array_equal(before[20000:], after[20000:])
    assert np.std(before[9000:20000]) == pytest.approx(np.std(after[9000:20000]), rel=0.01)
