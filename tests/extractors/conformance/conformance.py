"""What every expert must hold, as tests. Subclass `ExpertConformance` and give it a loaded expert:

    class TestPitch(ExpertConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def expert(cls): return loaded("pitch")

The checks themselves are coat.extractors.conformance.suite, which `coat experts --check` runs too.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from coat.extractors import Expert, Options, create
from coat.extractors.conformance.check import NotApplicable
from coat.extractors.conformance.differences import channel_error, relative_error
from coat.extractors.conformance.sounds import noise, tone
from coat.extractors.conformance.suite import CHECKS
from coat.manifests import InputError, TargetSpec

__all__ = ["CheckpointConformance", "ExpertConformance", "channel_error", "loaded", "noise", "relative_error", "tone"]


def loaded(name: str, **options: Any) -> Expert:
    expert = create(name, Options(**options))
    expert.load("cpu")
    return expert


SEAM = "frames_at_a_seam_lie_where_the_spec_says"


class ExpertConformance:
    # What one window's frames and the next one's meet in is the same in shorter windows, and found in a fraction of the
    # time. `long_audio_...` and `windows_equal_...` have the expert's own. None: for this, too.
    seam_window_s: float | None = None

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        raise NotImplementedError

    @pytest.mark.parametrize("check", CHECKS)
    def test_holds(self, expert: Expert, check: str) -> None:
        if check == SEAM and self.seam_window_s is not None:
            assert self.seam_window_s < expert.window_s
            expert = copy.copy(expert)
            expert.window_s = self.seam_window_s
        try:
            print(f"{expert.name}: {check}: {CHECKS[check](expert)}")
        except NotApplicable as e:
            pytest.skip(str(e))


class CheckpointConformance(ExpertConformance):
    """For experts that load a checkpoint folder: name it, and say how a tiny one is built."""

    name = ""
    layers = 3  # of the tiny checkpoint; 0 where the expert takes no layer

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

    def test_targets_follow_the_weights(self, expert: Expert, folder: Path, tmp_path: Path) -> None:
        first = self.spec(folder)
        assert first.weights.startswith("xxh3:")
        other = loaded(self.name, checkpoint=str(self.build(tmp_path / "other", seed=1)))
        assert other.spec.fingerprint != first.fingerprint
        x = noise(1.0, first.sample_rate)
        assert relative_error(expert.extract([x])[0], other.extract([x])[0]) > 1e-3
        moved = self.spec(Path(shutil.copytree(folder, tmp_path / "moved")))
        assert moved.checkpoint != first.checkpoint
        assert moved.fingerprint == first.fingerprint

    def test_fingerprint_follows_the_options(self, folder: Path) -> None:
        specs = [{}, {"precision": "bfloat16"}, {"dtype": "float32"}, {"compile": True}]
        specs += [{"layer": "2"}] if self.layers else []
        assert len({self.spec(folder, **options).fingerprint for options in specs}) == len(specs)
        if self.layers:
            assert self.spec(folder, layer="last").fingerprint == self.spec(folder).fingerprint

    @pytest.mark.parametrize("layer", ["0", "above", "-1", "2.0", "middle"])
    def test_layers_that_it_has_not(self, folder: Path, layer: str) -> None:
        layer = str(self.layers + 1) if layer == "above" else layer
        wrong = rf".*--layer {layer}: expected 1 to {self.layers}, or last" if self.layers else "takes no --layer"
        with pytest.raises(InputError, match=rf"--expert {self.name}: {wrong}"):
            self.spec(folder, layer=layer)

    def test_what_is_no_checkpoint(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=f"--expert {self.name}: absent: .*not a hub id"):
            self.spec(Path("absent"))
        with pytest.raises(InputError, match=f"--expert {self.name}: "):
            self.spec(tmp_path)

    def test_lower_precision_is_near(self, expert: Expert, folder: Path) -> None:
        x = noise(1.0, expert.spec.sample_rate)
        exact, near = expert.extract([x])[0], loaded(self.name, checkpoint=str(folder), precision="bfloat16")
        assert 0 < relative_error(exact, near.extract([x])[0]) < 0.05

    @pytest.mark.gpu
    def test_gpu_equals_cpu(self, expert: Expert, folder: Path) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        clips = [noise(s, expert.spec.sample_rate, seed=i) for i, s in enumerate((1.0, 2.3))]
        there = create(self.name, Options(checkpoint=str(folder)))
        there.load("cuda:0")
        for a, b in zip(expert.extract(clips), there.extract(clips), strict=True):
            assert relative_error(a, b) < 0.01  # TF32 and other orders of summation
