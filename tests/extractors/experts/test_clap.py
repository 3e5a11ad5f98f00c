import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from coat.extractors import Options, Waveform, create, extract_windows
from coat.extractors.conformance.differences import relative_error
from coat.extractors.experts.clap import CLAP
from coat.manifests import InputError
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise

RATE = 48000
SECONDS = 2


def build(folder: Path, seed: int = 0, *, fused: bool = False) -> Path:
    """Windows of 2 s: 201 mel frames of 16 bands, stretched to 256, as 1001 of 64 to 1024; 16 columns, d 32."""
    torch.manual_seed(seed)
    fusion = {"enable_fusion": True, "fusion_type": "aff_2d"} if fused else {}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "vocab_size": 50, "max_position_embeddings": 20}  # fmt: skip
    audio = {"num_mel_bins": 16, "spec_size": 64, "patch_embeds_hidden_size": 8, "depths": [2, 2, 2],
             "num_attention_heads": [2, 2, 4], "window_size": 4, "hidden_size": 32, **fusion}  # fmt: skip
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=8))
    norm: Any = model.audio_model.audio_encoder.batch_norm
    torch.nn.init.normal_(norm.running_mean, mean=-30.0, std=5.0)
    torch.nn.init.uniform_(norm.running_var, 50.0, 200.0)
    model.save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16, max_length_s=SECONDS, truncation="fusion" if fused else "rand_trunc"
    ).save_pretrained(folder)
    return folder


class TestUnfused(CheckpointConformance):
    name, layers, build = "clap", 0, staticmethod(build)


class TestFused(CheckpointConformance):
    name, layers = "clap", 0

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return build(folder, seed, fused=True)


def plain_loop(folder: Path, samples_T: Waveform) -> np.ndarray:
    """`[16, D]` of one clip of a whole window through transformers, mean over frequency."""
    features = ClapFeatureExtractor.from_pretrained(folder)
    model = ClapModel.from_pretrained(folder).eval()
    inputs = features(samples_T, sampling_rate=RATE, return_tensors="pt")["input_features"]
    with torch.inference_mode():
        out = model.audio_model(inputs.float(), is_longer=torch.zeros(1, 1))  # by chance it would be one
    return out.last_hidden_state[0].mean(1).T.numpy()


@pytest.fixture(scope="module", params=["unfused", "fused"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp(request.param), fused=request.param == "fused")


def test_equals_a_plain_loop(folder: Path) -> None:
    x = noise(SECONDS, RATE)
    expert = loaded("clap", checkpoint=str(folder))
    for clip in (x, noise(SECONDS, RATE, level=1e-4), np.zeros_like(x)):
        error = relative_error(plain_loop(folder, clip), expert.extract([clip])[0])
        print(f"clap: largest relative error {error:.1e}")
        assert error < 1e-5


@pytest.mark.parametrize("seconds", [0.2, 1.3])
def test_short_clips_are_followed_by_zeros(folder: Path, seconds: float) -> None:
    x = noise(seconds, RATE)
    expert = loaded("clap", checkpoint=str(folder))
    (frames,) = expert.extract([x])
    whole = plain_loop(folder, np.pad(x, (0, SECONDS * RATE - len(x))))
    assert len(frames) == int((expert.spec.times(16) < seconds).sum())
    assert relative_error(whole[: len(frames)], frames) < 1e-5


def test_columns_lie_in_time_as_the_spec_says(folder: Path) -> None:
    """By what a sample moves in the stretched spectrogram before any patch of the model."""
    expert = loaded("clap", checkpoint=str(folder))
    assert isinstance(expert, CLAP)
    encoder = expert.model.audio_encoder
    quiet = np.zeros(SECONDS * RATE, dtype=np.float32)
    for column in (1, 6, 13):
        struck = quiet.copy()
        centre = round(expert.spec.times(16)[column] * RATE)
        struck[centre - 20 : centre + 20] = 0.5
        images = [
            encoder.reshape_mel2img(expert.mel(torch.from_numpy(clip)[None])[:, None]) for clip in (quiet, struck)
        ]
        moved = (images[1] - images[0])[0, 0].clamp(min=0).double()  # [4 parts * 16 bands, 64 mel frames]
        moved = moved.view(4, 16, 64).sum(1).flatten()  # [256]
        at = float((moved * torch.arange(256)).sum() / moved.sum())
        assert abs(at - (16 * column + 7.5)) < 0.6  # half a mel frame, between which a click may fall: 1/25 of a column


def test_last_grid_is_laid_out_by_time(folder: Path) -> None:
    expert = loaded("clap", checkpoint=str(folder))
    quiet = noise(SECONDS, RATE, level=1e-3)
    for column in (2, 5, 9, 14):
        struck = quiet.copy()
        centre = round(expert.spec.times(16)[column] * RATE)
        struck[centre - 500 : centre + 500] += noise(1000 / RATE, RATE, seed=1, level=0.5)
        a, b = expert.extract([quiet, struck])
        assert np.linalg.norm(a - b, axis=1).argmax() == column


def test_long_audio_is_heard_window_by_window(folder: Path) -> None:
    expert = loaded("clap", checkpoint=str(folder))
    x = noise(6.3, RATE)
    (frames,) = extract_windows(expert, [x])
    assert len(frames) == int((expert.spec.times(200) < 6.3).sum())
    plan, at = expert.windows(len(x)), 0
    for window in plan:
        frame = at - window.skip  # that the window begins at, to the nearest sample
        assert abs(window.start - frame * RATE / expert.spec.rate_hz) <= 0.5
        heard = x[window.start : window.stop]
        frames_heard = int((expert.spec.times(16) < len(heard) / RATE).sum())  # the last is a little short
        kept = window.kept(plain_loop(folder, heard)[:frames_heard])
        np.testing.assert_allclose(frames[at : at + len(kept)], kept, atol=1e-4)
        at += len(kept)
    assert at == len(frames)


def test_the_text_tower_is_not_loaded(folder: Path) -> None:
    expert = loaded("clap", checkpoint=str(folder))
    assert isinstance(expert, CLAP)
    assert not [name for name, _ in expert.model.named_parameters() if "text" in name or "projection" in name]


def test_real_geometry(tmp_path: Path, folder: Path) -> None:
    """laion/clap-htsat-unfused: 32 columns of 0.3128 s."""
    shutil.copytree(folder, tmp_path / "real")
    for name, changes in (
        ("config.json", {"num_mel_bins": 64, "spec_size": 256, "depths": [2, 2, 6, 2], "patch_embeds_hidden_size": 96}),
        ("preprocessor_config.json", {"feature_size": 64, "max_length_s": 10}),
    ):
        path = tmp_path / "real" / name
        values = json.loads(path.read_text())
        (values["audio_config"] if name == "config.json" else values).update(changes)
        path.write_text(json.dumps(values))
    expert = create("clap", Options(checkpoint=str(tmp_path / "real")))
    assert expert.spec.rate_hz == CLAP.card.rate_hz == 3.196875
    assert expert.spec.start_s == pytest.approx(15.5 * 0.01 * 1000 / 1023, abs=1e-12)
    assert expert.spec.dim == 768
    first, second, *_ = expert.windows(25 * RATE)
    assert first.stop == 480000
    assert second.start == round((first.skip + (first.keep or 0) - second.skip) * RATE / 3.196875)


def test_what_does_not_fit(folder: Path, tmp_path: Path) -> None:
    def refused(name: str, message: str, **changes: object) -> None:
        copy = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folder, copy)
        path = copy / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        with pytest.raises(InputError, match=message):
            loaded("clap", checkpoint=str(copy))

    refused("config.json", "model_type is 'bert'", model_type="bert")
    refused("config.json", "audio_config = None; expected dict", audio_config=None)
    refused("preprocessor_config.json", "gives 64 x 201 mel frames; the model takes 16 x at most 256", feature_size=64)
    refused("preprocessor_config.json", "gives 16 x 401 mel frames", max_length_s=4)
