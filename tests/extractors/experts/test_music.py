import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from coat.extractors import Options, create, extract_windows
from coat.manifests import InputError
from tests.extractors import tiny
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise, relative_error, tone

RATE = 24000
KINDS = {"base": tiny.BASE, "large": tiny.LARGE}
OLD = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def build(folder: Path, seed: int = 0, kind: str = "base") -> Path:
    """As m-a-p/MERT-v1-95M lies on the hub: its configuration's keys, pytorch_model.bin without a prefix, old names."""
    torch.manual_seed(seed)
    config = HubertConfig(**tiny.SMALL, **KINDS[kind])
    state = {}
    for key, value in HubertModel(config).state_dict().items():
        for new, old in OLD.items():
            key = key.replace(new, old)
        state[key] = value
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "pytorch_model.bin")
    own = {
        "model_type": "mert_model", "architectures": ["MERTModel"], "attention_relax": -1.0, "deepnorm": False,
        "feature_extractor_cqt": False, "feature_extractor_cqt_bins": 336, "sample_rate": RATE,
        "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"},
        "torch_dtype": "float32", "transformers_version": "4.24.0",
    }  # fmt: skip
    plain = {k: v for k, v in config.to_dict().items() if k not in ("dtype", "conv_pos_batch_norm")}
    (folder / "config.json").write_text(json.dumps({**plain, **own}))
    Wav2Vec2FeatureExtractor(sampling_rate=RATE, do_normalize=True).save_pretrained(folder)
    return folder


class TestBase(CheckpointConformance):
    name = "music"
    build = staticmethod(build)


class TestLarge(CheckpointConformance):
    name = "music"

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return build(folder, seed, kind="large")


def reference(folder: Path, kind: str, samples_T: np.ndarray, layer: int | None = None) -> np.ndarray:
    """HuBERT by hand: every weight of the file has its place in it, and none is left over."""
    model = HubertModel(HubertConfig(**tiny.SMALL, **KINDS[kind])).eval()
    model.load_state_dict(torch.load(folder / "pytorch_model.bin", weights_only=True), strict=True)
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    inputs = features(samples_T, sampling_rate=RATE, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        out = model(inputs, output_hidden_states=True)
    return (out.last_hidden_state if layer is None else out.hidden_states[layer])[0].numpy()


@pytest.mark.parametrize("layer", [None, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_hubert_on_one_clip_at_a_time(tmp_path: Path, kind: str, layer: int | None) -> None:
    folder = build(tmp_path, kind=kind)
    clips = [noise(1.0, RATE), noise(0.02, RATE, seed=1), tone(1.013, RATE), noise(1.0, RATE, seed=3)]
    expert = loaded("music", checkpoint=str(folder), layer=str(layer or "last"))
    errors = [
        relative_error(frames, reference(folder, kind, x, layer))
        for x, frames in zip(clips, expert.extract(clips), strict=True)
    ]
    print(f"music: {kind}, layer {layer or 'last'}: largest relative error {max(errors):.1e}")
    assert max(errors) < 2e-5


def test_attention_is_relaxed_in_name_only(tmp_path: Path) -> None:
    a, b = (build(tmp_path / name) for name in "ab")
    config = json.loads((b / "config.json").read_text())
    (b / "config.json").write_text(json.dumps({**config, "attention_relax": 32.0}))
    x = noise(1.0, RATE)
    (one,), (two,) = (loaded("music", checkpoint=str(folder)).extract([x]) for folder in (a, b))
    np.testing.assert_array_equal(one, two)
    # What MERT's deepnorm layers make of scores by it, which no other layer does: the same attention.
    scores = torch.randn(4, 9, 9, dtype=torch.float64)
    relaxed = (scores / 32 - (scores / 32).amax(dim=-1, keepdim=True)) * 32
    torch.testing.assert_close(relaxed.softmax(dim=-1), scores.softmax(dim=-1))


def test_time_base_is_that_of_24_khz(tmp_path: Path) -> None:
    expert = create("music", Options(checkpoint=str(build(tmp_path))))
    spec = expert.spec
    assert (spec.family, spec.kind, spec.dim) == ("music", "representation", 32)
    assert (spec.sample_rate, spec.rate_hz, spec.start_s, spec.min_samples) == (24000, 75.0, 399 / 2 / 24000, 400)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"feature_extractor_cqt": True},
            "feature_extractor_cqt is set: a constant-Q transform beside its convolutions",
        ),
        ({"deepnorm": True}, "deepnorm is set: scaled residuals"),
        ({"sample_rate": 16000}, "preprocessor_config.json and config.json differ in the sample rate"),
        ({"model_type": "hubert"}, "model_type is 'hubert'; expected one of mert_model"),
    ],
)
def test_checkpoints_that_are_not_hubert_underneath(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    folder = build(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))
    with pytest.raises(InputError, match=f"--expert music: .*{said}"):
        create("music", Options(checkpoint=str(folder)))


def test_a_long_clip_is_heard_in_windows_of_30_s(tmp_path: Path) -> None:
    expert = loaded("music", checkpoint=str(build(tmp_path, kind="large")), layer="1")
    x = noise(33.0, RATE)
    (frames,) = extract_windows(expert, [x])
    assert len(frames) == (len(x) - 400) // 320 + 1
    first, second = expert.windows(len(x))
    np.testing.assert_allclose(frames[:100], expert.extract([x[: first.stop]])[0][:100], atol=1e-5)
    np.testing.assert_allclose(frames[-100:], expert.extract([x[second.start :]])[0][-100:], atol=1e-5)
