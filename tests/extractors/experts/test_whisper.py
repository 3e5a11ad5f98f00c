import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor, WhisperModel

from coat.extractors import Expert, Options, Waveform, create, extract_windows
from coat.manifests import InputError
from tests.extractors import tiny
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise


class TestWhisper(CheckpointConformance):
    name = "whisper"
    build = staticmethod(tiny.whisper)


@functools.cache
def pretrained(folder: Path) -> tuple[WhisperFeatureExtractor, WhisperModel]:
    return WhisperFeatureExtractor.from_pretrained(folder), WhisperModel.from_pretrained(folder).eval()


def plain_loop(folder: Path, samples_T: Waveform, layer: int | None = None) -> np.ndarray:
    """One clip of at most a window through transformers."""
    features, model = pretrained(folder)
    inputs = features(samples_T, sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        out = model.encoder(inputs.input_features, output_hidden_states=True)
    states = out.last_hidden_state if layer is None else out.hidden_states[layer]
    return states[0, : -(-len(samples_T) // 320)].numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.whisper(tmp_path_factory.mktemp("whisper"))


@pytest.mark.parametrize("layer", [None, 1, 2])
@pytest.mark.parametrize("samples", [400, 16000, 16001, 48000])
def test_equals_a_plain_loop(folder: Path, samples: int, layer: int | None) -> None:
    x = noise(samples / 16000, 16000)
    (frames,) = loaded("whisper", checkpoint=str(folder), layer=str(layer or "last")).extract([x])
    reference = plain_loop(folder, x, layer)
    assert frames.shape == reference.shape
    np.testing.assert_allclose(frames, reference, atol=1e-5)


def test_long_audio_is_heard_window_by_window(folder: Path) -> None:
    """10 s in windows of 150 frames, 25 of which overlap."""
    expert = loaded("whisper", checkpoint=str(folder))
    x = noise(10.0, 16000)
    (frames,) = extract_windows(expert, [x])
    assert len(frames) == 500
    # A frame is kept with 0.25 s (12.5 frames) on both sides: 13 to 137 of a window's 150.
    np.testing.assert_allclose(frames[:138], plain_loop(folder, x[:48000])[:138], atol=1e-5)
    np.testing.assert_allclose(frames[138:263], plain_loop(folder, x[125 * 320 :][:48000])[13:138], atol=1e-5)
    last = plain_loop(folder, x[350 * 320 :])
    np.testing.assert_allclose(frames[-100:], last[-100:], atol=1e-5)
    assert len(expert.windows(len(x))) == 4
    assert expert.padded_samples(400) == expert.padded_samples(48000) == 48000


def test_long_audio_does_not_depend_on_the_batch_budget(folder: Path) -> None:
    expert = loaded("whisper", checkpoint=str(folder))
    clips = [noise(s, 16000, seed=i) for i, s in enumerate((7.0, 1.0, 10.0))]
    many = extract_windows(expert, clips)
    expert.batch_seconds = 1.0  # less than a window: one at a time
    for a, b in zip(many, extract_windows(expert, clips), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_margin_pads_to_whole_seconds(folder: Path) -> None:
    exact, short = (loaded("whisper", checkpoint=str(folder), pad_margin=m) for m in (None, 0.5))
    assert [short.padded_samples(s) for s in (400, 8000, 8001, 40000, 48000)] == [16000, 16000, 32000, 48000, 48000]
    assert short.spec.settings["pad_margin_s"] == 0.5
    assert len({exact.spec.fingerprint, short.spec.fingerprint, spec_with(folder, 1.0)}) == 3
    clips = [noise(s, 16000, seed=i) for i, s in enumerate((0.4, 2.6, 1.3, 0.45))]
    for x, a, b in zip(clips, exact.extract(clips), short.extract(clips), strict=True):
        assert a.shape == b.shape
        if len(x) > 40000:  # its margin reaches the window's end: nothing is cut
            np.testing.assert_allclose(a, b, atol=1e-5)
        else:
            assert not np.allclose(a, b, atol=1e-4)
    assert spec_with(folder, None) == exact.spec.fingerprint


def spec_with(folder: Path, margin: float | None) -> str:
    return create("whisper", Options(checkpoint=str(folder), pad_margin=margin)).spec.fingerprint


class TestShortPadding(CheckpointConformance):
    """Inexact, and yet an expert: frames in their places, no dependence on batch mates."""

    name = "whisper"
    build = staticmethod(tiny.whisper)

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls, folder: Path) -> Expert:
        return loaded("whisper", checkpoint=str(folder), pad_margin=0.5)


@pytest.mark.parametrize("margin", [-1.0, math.inf, math.nan])
def test_margins_that_are_no_time(margin: float) -> None:
    with pytest.raises(InputError, match=r"--pad-margin .*: expected seconds"):
        Options(pad_margin=margin)


def test_the_decoder_is_not_loaded(folder: Path) -> None:
    expert = loaded("whisper", checkpoint=str(folder), layer="1")
    names = [name for name, _ in expert.model.named_parameters()]  # pyright: ignore[reportAttributeAccessIssue]
    assert not [name for name in names if "decoder" in name or name.startswith("layers.1")]


def broken(folder: Path, copy: Path, **config: object) -> Path:
    """A copy of a checkpoint with other values in its config.json."""
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    found = json.loads((folder / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(found | config))
    return copy


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as e:
        loaded("whisper", checkpoint=str(folder))
    assert "\n" not in str(e.value)


def test_checkpoints_with_a_fault(folder: Path, tmp_path: Path) -> None:
    refused(broken(folder, tmp_path / "a", model_type="bert"), "model_type is 'bert'; expected one of whisper")
    refused(broken(folder, tmp_path / "b", num_mel_bins=80), "differ in mel bins")
    refused(broken(folder, tmp_path / "c", d_model="wide"), "d_model = 'wide'; expected int")
    refused(broken(folder, tmp_path / "d", encoder_layers=5), "weights are missing, the first is layers.3")
    refused(broken(folder, tmp_path / "e", d_model=64), "the weights cannot be loaded")
    for name, message in {
        "model.safetensors": "no weights; expected model.safetensors",
        "preprocessor_config.json": "no preprocessor_config.json",
        "config.json": "no config.json",
    }.items():
        copy = broken(folder, tmp_path / name)
        (copy / name).unlink()
        refused(copy, message)
    truncated = broken(folder, tmp_path / "f")
    (truncated / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    refused(truncated, "the weights cannot be loaded")


def test_pickled_weights_cannot_run_code(folder: Path, tmp_path: Path) -> None:
    copy = broken(folder, tmp_path / "evil")
    (copy / "model.safetensors").unlink()
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    torch.save({"model.encoder.conv1.weight": Evil()}, copy / "pytorch_model.bin")
    refused(copy, "the weights cannot be loaded")
    assert not marker.exists()


def test_torch_weights_load_as_safetensors_do(folder: Path, tmp_path: Path) -> None:
    copy = broken(folder, tmp_path / "bin")
    (copy / "model.safetensors").unlink()
    torch.save(WhisperModel.from_pretrained(folder).state_dict(), copy / "pytorch_model.bin")
    x = noise(1.0, 16000)
    a, b = (loaded("whisper", checkpoint=str(f)).extract([x])[0] for f in (folder, copy))
    np.testing.assert_array_equal(a, b)


def test_a_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"--expert whisper: nobody/nothing: .* the hub does not give it") as e:
        create("whisper", Options(checkpoint="nobody/nothing"))
    assert "\n" not in str(e.value)
