"""What every expert must hold. Subclass `ExpertConformance` and give it a loaded expert:

    class TestPitch(ExpertConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def expert(cls): return loaded("pitch")

T samples, N frames, D dim.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from coat.extractors import Expert, Frames, Options, Waveform, create, extract_windows
from coat.manifests import InputError, TargetSpec

BATCH_TOLERANCE = 1e-4  # of the largest value of a clip


def loaded(name: str, **options: Any) -> Expert:
    expert = create(name, Options(**options))
    expert.load("cpu")
    return expert


def noise(seconds: float, rate: int, seed: int = 0, level: float = 0.1) -> Waveform:
    """White noise; read-only, since a worker may lend the same samples to several experts."""
    samples_T = np.random.default_rng(seed).normal(scale=level, size=round(seconds * rate)).astype(np.float32)
    samples_T.flags.writeable = False
    return samples_T


def tone(seconds: float, rate: int, hz: float = 220.0) -> Waveform:
    """A voice-like harmonic tone."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.1 * np.sum([np.sin(2 * np.pi * hz * k * t) / k for k in range(1, 8)], axis=0)).astype(np.float32)


def channel_error(a: Frames, b: Frames) -> float:
    """Largest difference, each channel relative to its own largest value."""
    assert a.shape == b.shape, f"{a.shape} and {b.shape}"
    return float((np.abs(a - b).max(axis=0) / np.maximum(np.abs(a).max(axis=0), 1e-12)).max())


def relative_error(a: Frames, b: Frames) -> float:
    assert a.shape == b.shape, f"{a.shape} and {b.shape}"
    return float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12))


class ExpertConformance:
    time_tolerance = 0.75  # frames by which a burst may seem to lie elsewhere
    burst_s = 0.02
    levels = (1e-3, 0.5)  # of the noise before and in the burst
    # What windows may change, of the largest value of a channel. None: a single pass hears more, so it gives others.
    whole_tolerance: float | None = None

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        raise NotImplementedError

    def view(self, frames: Frames) -> Frames:
        """The channels in which a burst of noise shows where it is."""
        return frames

    def burst_time(self, before: Frames, after: Frames, spec: TargetSpec) -> float:
        return burst_time(before, after, spec)

    def noise(self, expert: Expert, seconds: float, seed: int = 0, level: float = 0.1) -> Waveform:
        return noise(seconds, expert.spec.sample_rate, seed, level)

    def seconds(self, expert: Expert) -> float:
        """Long enough for frames to be counted and placed."""
        return max(2.0, 16 / expert.spec.rate_hz)

    def test_spec_survives_json(self, expert: Expert) -> None:
        again = TargetSpec.from_dict(json.loads(json.dumps(expert.spec.to_dict())))
        assert again.fingerprint == expert.spec.fingerprint
        assert again.to_dict() == json.loads(json.dumps(expert.spec.to_dict()))

    def test_card_agrees_with_the_spec(self, expert: Expert) -> None:
        assert expert.card.family == expert.spec.family
        assert expert.card.kind == expert.spec.kind

    @pytest.mark.parametrize("seconds", [1.0, 1.3701, 2.6])
    def test_frames_cover_the_clip(self, expert: Expert, seconds: float) -> None:
        x = self.noise(expert, seconds)
        (frames,) = extract_windows(expert, [x])
        assert frames.dtype == np.float32
        assert frames.ndim == 2
        assert frames.shape[1] == expert.spec.dim
        times = expert.spec.times(len(frames))
        duration = len(x) / expert.spec.sample_rate
        assert times[0] >= 0
        assert times[-1] <= duration + 0.5 / expert.spec.rate_hz, "a frame is centred beyond the clip"
        assert duration - times[-1] <= expert.spec.start_s + 2 / expert.spec.rate_hz, "frames end before the clip"

    def test_values_fit_their_kind(self, expert: Expert) -> None:
        (frames,) = extract_windows(expert, [self.noise(expert, 1.0)])
        if expert.spec.kind == "probabilities":
            assert frames.min() >= 0
            assert frames.max() <= 1
        assert np.abs(frames).max() < np.finfo(expert.spec.dtype).max

    def check_burst(self, expert: Expert, quiet: Waveform, centre: int) -> None:
        """The same clip with and without a burst around sample `centre` differs most there."""
        rate, half = expert.spec.sample_rate, round(self.burst_s * expert.spec.sample_rate / 2)
        struck = quiet.copy()
        struck[centre - half : centre + half] += self.noise(expert, 2 * half / rate, seed=1, level=self.levels[1])
        before, after = (self.view(f) for f in extract_windows(expert, [quiet, struck]))
        found = self.burst_time(before, after, expert.spec)
        error = (found - centre / rate) * expert.spec.rate_hz
        assert abs(error) <= self.time_tolerance, f"a burst at {centre / rate:.4f} s shows at {found:.4f} s"

    @pytest.mark.parametrize("where", [0.3, 0.52, 0.71])
    def test_frames_lie_where_the_spec_says(self, expert: Expert, where: float) -> None:
        quiet = self.noise(expert, self.seconds(expert), level=self.levels[0])
        self.check_burst(expert, quiet, round(where * len(quiet)))

    def test_silence_and_full_scale_are_finite(self, expert: Expert) -> None:
        seconds = self.seconds(expert)
        zeros = np.zeros(round(seconds * expert.spec.sample_rate), dtype=np.float32)
        loud = np.sign(self.noise(expert, seconds)).astype(np.float32)
        for frames in extract_windows(expert, [zeros, zeros + 0.5, loud]):
            assert np.isfinite(frames).all()
            assert np.isfinite(frames.astype(expert.spec.dtype)).all()

    def test_deterministic(self, expert: Expert) -> None:
        x = self.noise(expert, 1.5)
        (first,), (second,) = expert.extract([x]), expert.extract([x])
        np.testing.assert_array_equal(first, second)

    def test_no_dependence_on_batch_mates(self, expert: Expert) -> None:
        clips = [self.noise(expert, s, seed=i, level=v) for i, (s, v) in enumerate(MIXED)]
        clips.append(tone(1.7, expert.spec.sample_rate))
        alone = [extract_windows(expert, [x])[0] for x in clips]
        for order in (range(len(clips)), [3, 0, 4, 2, 1]):
            together = extract_windows(expert, [clips[i] for i in order])
            assert len(together) == len(clips)
            for i, frames in zip(order, together, strict=True):
                assert relative_error(alone[i], frames) <= BATCH_TOLERANCE, f"clip {i} depends on its batch"

    def test_equal_lengths_do_not_mix(self, expert: Expert) -> None:
        clips = [self.noise(expert, 1.2, seed=i, level=v) for i, v in enumerate((0.01, 0.3, 0.1))]
        alone = [extract_windows(expert, [x])[0] for x in clips]
        for a, b in zip(alone, expert.extract(clips), strict=True):
            assert relative_error(a, b) <= BATCH_TOLERANCE

    def test_shortest_clip(self, expert: Expert) -> None:
        shortest = self.noise(expert, expert.spec.min_samples / expert.spec.sample_rate)
        assert len(shortest) == expert.spec.min_samples
        alone = expert.extract([shortest])[0]
        assert alone.shape[0] >= 1
        assert alone.shape[1] == expert.spec.dim
        assert np.isfinite(alone).all()
        assert relative_error(alone, expert.extract([self.noise(expert, 1.1, seed=2), shortest])[1]) <= BATCH_TOLERANCE

    def test_no_clips(self, expert: Expert) -> None:
        assert expert.extract([]) == []

    def test_windows_are_in_the_fingerprint(self, expert: Expert) -> None:
        settings = expert.spec.settings
        assert (settings["window_s"], settings["context_s"]) == (expert.window_s, expert.context_s)

    def long_clip(self, expert: Expert, windows: float, level: float = 0.1) -> Waveform:
        return self.noise(expert, windows * expert.window_s + 0.013, level=level)

    def test_long_audio_is_heard_to_its_end(self, expert: Expert) -> None:
        x = self.long_clip(expert, 2.4)
        assert len(expert.windows(len(x))) > 2
        (frames,) = extract_windows(expert, [x])
        duration, times = len(x) / expert.spec.sample_rate, expert.spec.times(len(frames))
        assert np.isfinite(frames).all()
        assert times[-1] <= duration + 0.5 / expert.spec.rate_hz
        assert duration - times[-1] <= expert.spec.start_s + 2 / expert.spec.rate_hz

    @pytest.mark.parametrize("seam", [1, 2])
    def test_frames_at_a_seam_lie_where_the_spec_says(self, expert: Expert, seam: int) -> None:
        """A burst where one window's frames end and the next one's begin."""
        rate = expert.spec.sample_rate
        quiet = self.long_clip(expert, 2.4, level=self.levels[0])
        window = expert.windows(len(quiet))[seam]
        centre = window.start + round((expert.spec.start_s + window.skip / expert.spec.rate_hz) * rate)
        self.check_burst(expert, quiet, centre)

    def test_windows_equal_a_single_pass(self, expert: Expert) -> None:
        if self.whole_tolerance is None:
            pytest.skip("each frame hears the whole window")
        rate = expert.spec.sample_rate
        x = self.long_clip(expert, 2.4).copy()
        x += tone(len(x) / rate + 1, rate, hz=160)[: len(x)] * np.sin(np.arange(len(x)) / rate)  # comes and goes
        (whole,), (joined,) = expert.extract([x]), extract_windows(expert, [x])
        assert channel_error(whole, joined) <= self.whole_tolerance

    def test_padded_samples_grow_with_the_clip(self, expert: Expert) -> None:
        rate, longest = expert.spec.sample_rate, round(expert.window_s * expert.spec.sample_rate)
        lengths = [expert.spec.min_samples, rate, longest]
        costs = [expert.padded_samples(n) for n in lengths]
        assert costs == sorted(costs)
        assert all(cost >= n * 0.99 for cost, n in zip(costs, lengths, strict=True))


class CheckpointConformance(ExpertConformance):
    """For experts that load a checkpoint folder: name it, and say how a tiny one is built."""

    name = ""

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return cls.build(tmp_path_factory.mktemp(cls.name))

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls, folder: Path) -> Expert:
        return loaded(cls.name, checkpoint=str(folder))

    def spec(self, folder: Path, **options: Any) -> TargetSpec:
        return create(self.name, Options(checkpoint=str(folder), **options)).spec

    def test_fingerprint_follows_the_weights(self, folder: Path, tmp_path: Path) -> None:
        first = self.spec(folder)
        assert first.weights.startswith("xxh3:")
        assert self.spec(self.build(tmp_path / "other", seed=1)).fingerprint != first.fingerprint
        moved = self.spec(Path(shutil.copytree(folder, tmp_path / "moved")))
        assert moved.checkpoint != first.checkpoint
        assert moved.fingerprint == first.fingerprint

    def test_fingerprint_follows_layer_and_precision(self, folder: Path) -> None:
        specs = [{}, {"layer": "2"}, {"precision": "bfloat16"}, {"dtype": "float32"}]
        assert len({self.spec(folder, **options).fingerprint for options in specs}) == len(specs)
        assert self.spec(folder, layer="last").fingerprint == self.spec(folder).fingerprint

    @pytest.mark.parametrize("layer", ["0", "4", "-1", "2.0", "middle"])
    def test_layers_that_it_has_not(self, folder: Path, layer: str) -> None:
        with pytest.raises(InputError, match=rf"--expert {self.name}: .*--layer {layer}: expected 1 to 3, or last"):
            self.spec(folder, layer=layer)

    def test_what_is_no_checkpoint(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=f"--expert {self.name}: absent: .*not a hub id"):
            self.spec(Path("absent"))
        with pytest.raises(InputError, match=f"--expert {self.name}: "):
            self.spec(tmp_path)

    def test_lower_precision_is_near(self, expert: Expert, folder: Path) -> None:
        x = self.noise(expert, 1.0)
        exact, near = expert.extract([x])[0], loaded(self.name, checkpoint=str(folder), precision="bfloat16")
        assert 0 < relative_error(exact, near.extract([x])[0]) < 0.05

    @pytest.mark.gpu
    def test_gpu_equals_cpu(self, expert: Expert, folder: Path) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        clips = [self.noise(expert, s, seed=i) for i, s in enumerate((1.0, 2.3))]
        there = create(self.name, Options(checkpoint=str(folder)))
        there.load("cuda:0")
        for a, b in zip(expert.extract(clips), there.extract(clips), strict=True):
            assert relative_error(a, b) < 0.01  # TF32 and other orders of summation


MIXED = ((1.0, 0.1), (3.1, 0.3), (0.63, 0.02), (2.05, 0.1))  # seconds and level of clips in one batch


def burst_time(before: Frames, after: Frames, spec: TargetSpec) -> float:
    """Seconds at which two clips differ most: centroid of the difference, where it exceeds half its peak."""
    difference_N: NDArray[np.float64] = np.linalg.norm((after - before).astype(np.float64), axis=1)
    peak = int(difference_N.argmax())
    low = high = peak
    while low > 0 and difference_N[low - 1] > difference_N[peak] / 2:
        low -= 1
    while high + 1 < len(difference_N) and difference_N[high + 1] > difference_N[peak] / 2:
        high += 1
    weights = difference_N[low : high + 1]
    return float((spec.times(len(difference_N))[low : high + 1] * weights).sum() / weights.sum())
