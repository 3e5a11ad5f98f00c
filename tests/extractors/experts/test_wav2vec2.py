import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForXVector,
)

from coat.extractors import Expert, Options, create, extract_windows
from coat.extractors.experts.wav2vec2 import Wav2Vec2
from coat.manifests import InputError
from tests.extractors import tiny
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise, relative_error

KINDS = ("wav2vec2-group", "wav2vec2-layer", "hubert", "wavlm", "data2vec")


class TestGroupNorm(CheckpointConformance):
    seam_window_s = 10.0
    name = "wav2vec2"
    build = staticmethod(tiny.wav2vec2)


class TestLayerNorm(CheckpointConformance):
    seam_window_s = 10.0
    name = "wav2vec2"

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return tiny.wav2vec2(folder, seed, kind="wav2vec2-layer")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny.wav2vec2(tmp_path_factory.mktemp(kind), kind=kind) for kind in KINDS}


def plain_loop(folder: Path, samples_T: np.ndarray, layer: int | None = None) -> np.ndarray:
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    inputs = features(samples_T, sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        out = model(inputs, output_hidden_states=True)
    return (out.last_hidden_state if layer is None else out.hidden_states[layer])[0].numpy()


@pytest.mark.parametrize("layer", [None, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_plain_loop(folders: dict[str, Path], kind: str, layer: int | None) -> None:
    expert = loaded("wav2vec2", checkpoint=str(folders[kind]), layer=str(layer or "last"))
    clips = [noise(s, 16000, seed=i) for i, s in enumerate((1.0, 0.025, 1.013, 1.0))]
    for x, frames in zip(clips, expert.extract(clips), strict=True):
        reference = plain_loop(folders[kind], x, layer)
        assert frames.shape == reference.shape
        np.testing.assert_allclose(frames, reference, atol=2e-5)


def test_a_mean_of_layers(folders: dict[str, Path]) -> None:
    x, worst = noise(1.013, 16000), 0.0
    for folder in folders.values():
        expert = loaded("wav2vec2", checkpoint=str(folder), layer="mean:3,1")
        expected = np.stack([plain_loop(folder, x, n) for n in (1, 3)]).mean(axis=0, dtype=np.float32)
        worst = max(worst, relative_error(expert.extract([x])[0], expected))
        assert expert.spec.layer == "mean:1,3"
    print(f"wav2vec2: mean:1,3: largest relative error {worst:.1e}")
    assert worst < 2e-5


def test_one_layer_is_its_own_mean(folders: dict[str, Path]) -> None:
    specs = [
        create("wav2vec2", Options(checkpoint=str(folders["wavlm"]), layer=n)).spec for n in ("2", "mean:2", "mean:2,2")
    ]
    assert len({spec.fingerprint for spec in specs}) == 1


@pytest.mark.parametrize("layer", ["mean:", "mean:1,4", "mean:0,1", "mean:1,last", "mean:1;2"])
def test_means_that_there_are_not(folders: dict[str, Path], layer: str) -> None:
    with pytest.raises(InputError, match="expected 1 to 3, or last, mean:A,B of these, or weighted"):
        create("wav2vec2", Options(checkpoint=str(folders["wavlm"]), layer=layer))


@pytest.mark.parametrize("cls", [Wav2Vec2ForSequenceClassification, Wav2Vec2ForXVector])
@pytest.mark.parametrize("kind", [tiny.BASE, tiny.LARGE])
def test_learned_weights_of_layers(tmp_path: Path, cls: Any, kind: dict[str, Any]) -> None:
    """The last state that is weighted is the model's output: in training it was, also where a norm comes before it."""
    torch.manual_seed(0)
    model = cls(Wav2Vec2Config(**tiny.SMALL, **kind, use_weighted_layer_sum=True, tdnn_dim=(32,) * 5)).eval()
    model.layer_weights.data = torch.randn(4)
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    x = noise(1.013, 16000)
    with torch.inference_mode():
        out = model.wav2vec2(torch.from_numpy(x.copy())[None], output_hidden_states=True)
        states_LND = torch.stack([*out.hidden_states[:-1], out.last_hidden_state])[:, 0]
        expected = (model.layer_weights.softmax(dim=-1)[:, None, None] * states_LND).sum(dim=0).numpy()
    expert = loaded("wav2vec2", checkpoint=str(tmp_path), layer="weighted")
    worst = relative_error(expert.extract([x])[0], expected)
    print(f"wav2vec2: weighted: largest relative error {worst:.1e}")
    assert worst < 2e-5
    assert expert.spec.layer == "weighted"


def test_checkpoints_that_have_learned_no_weights(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"--layer weighted: the checkpoint has no layer_weights for 3 layers"):
        create("wav2vec2", Options(checkpoint=str(folders["wavlm"]), layer="weighted"))


@pytest.mark.parametrize(("kind", "pads"), [*zip(KINDS, (False, True, True, True, False), strict=True)])
def test_only_what_masks_cleanly_is_padded(folders: dict[str, Path], kind: str, pads: bool) -> None:
    expert = make(folders[kind])
    assert expert.pads is pads
    batches = expert.batches([100, 200, 100])
    assert batches == ([[0, 1, 2]] if pads else [[0, 2], [1]])


def make(folder: Path) -> Wav2Vec2:
    expert: Expert = loaded("wav2vec2", checkpoint=str(folder))
    assert isinstance(expert, Wav2Vec2)
    return expert


def test_time_base_follows_the_convolutions(folders: dict[str, Path]) -> None:
    spec = make(folders["wav2vec2-group"]).spec
    assert (spec.rate_hz, spec.start_s, spec.min_samples) == (50.0, 399 / 2 / 16000, 400)


def test_long_audio_is_heard_window_by_window(folders: dict[str, Path]) -> None:
    expert = make(folders["hubert"])  # the one that is not normalised by its clip
    expert.window_s, expert.context_s = 2.0, 0.2
    x = noise(5.011, 16000)
    (frames,) = extract_windows(expert, [x])
    assert len(frames) == expert.frames_of(len(x))
    # Frame i is centred at 320 * i + 199.5: 10 to 89 of a window of 32000 samples have 3200 on both sides.
    first = plain_loop(folders["hubert"], x[:32000])
    second = plain_loop(folders["hubert"], x[80 * 320 :][:32000])
    np.testing.assert_allclose(frames[:90], first[:90], atol=2e-5)
    np.testing.assert_allclose(frames[90:160], second[10:80], atol=2e-5)


def test_weights_as_the_hub_has_them(folders: dict[str, Path], tmp_path: Path) -> None:
    """wavlm-large on the hub: pytorch_model.bin, with weight norm under its old names."""
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = load_file(folders["wavlm"] / "model.safetensors")
    for new, old in names.items():
        state = {key.replace(new, old): value for key, value in state.items()}
    assert [key for key in state if key.endswith("weight_g")]
    for path in folders["wavlm"].glob("*.json"):
        shutil.copy(path, tmp_path)
    torch.save(state, tmp_path / "pytorch_model.bin")
    x = noise(1.0, 16000)
    (a,), (b,) = make(folders["wavlm"]).extract([x]), make(tmp_path).extract([x])
    np.testing.assert_array_equal(a, b)
