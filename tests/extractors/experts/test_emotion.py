import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForAudioClassification,
    HubertConfig,
    HubertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    Wav2Vec2PreTrainedModel,
    WavLMConfig,
    WavLMForSequenceClassification,
)

from coat.extractors import Options, create
from coat.manifests import InputError
from tests.extractors import tiny
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise, relative_error, tone

DIMENSIONS = ("arousal", "dominance", "valence")
CLASSES = ("neu", "hap", "ang", "sad")


class Head(nn.Module):
    """Of the model card of audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim, without its dropout."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.dense(states).tanh())


class Dimensional(Wav2Vec2PreTrainedModel):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.wav2vec2 = Wav2Vec2Model(config)
        self.classifier = Head(config)
        self.post_init()


def labels(*names: str) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def save(model: Any, folder: Path, normalise: bool = True) -> Path:
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return folder


def dimensional(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    config = Wav2Vec2Config(**tiny.SMALL, **tiny.LARGE, **labels(*DIMENSIONS), problem_type="regression")
    model = Dimensional(config)
    model.classifier.dense.weight.data *= 4  # into the tanh: a linear head would be another
    model.classifier.out_proj.weight.data *= 10
    model.config.pooling_mode = "mean"
    model.config.architectures = ["Wav2Vec2ForSpeechClassification"]
    return save(model, folder)


HEADED = {**labels(*CLASSES), "classifier_proj_size": 16}
KINDS = {
    "wav2vec2-weighted": lambda: Wav2Vec2ForSequenceClassification(
        Wav2Vec2Config(**tiny.SMALL, **tiny.BASE, **HEADED, use_weighted_layer_sum=True)
    ),
    "hubert-weighted": lambda: HubertForSequenceClassification(
        HubertConfig(**tiny.SMALL, **tiny.LARGE, **HEADED, use_weighted_layer_sum=True)
    ),
    "hubert": lambda: HubertForSequenceClassification(HubertConfig(**tiny.SMALL, **tiny.BASE, **HEADED)),
    "wavlm": lambda: WavLMForSequenceClassification(WavLMConfig(**tiny.SMALL, **tiny.LARGE, **HEADED)),
}


def categorical(folder: Path, seed: int = 0, kind: str = "wav2vec2-weighted") -> Path:
    torch.manual_seed(seed)
    model = KINDS[kind]()
    model.projector.weight.data *= 10
    model.classifier.weight.data *= 10
    if kind.endswith("weighted"):
        model.layer_weights.data = torch.randn(4)
    return save(model, folder, normalise=kind != "wav2vec2-weighted")


class TestDimensional(CheckpointConformance):
    name = "emotion"
    layers = 0
    build = staticmethod(dimensional)


class TestCategorical(CheckpointConformance):
    name = "emotion"
    layers = 0
    build = staticmethod(categorical)


CLIPS = [noise(1.0, 16000), noise(0.025, 16000, seed=1), tone(1.013, 16000), noise(1.0, 16000, seed=3)]


def inputs(folder: Path, samples_T: np.ndarray) -> torch.Tensor:
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    return features(samples_T, sampling_rate=16000, return_tensors="pt")["input_values"]


def test_dimensions_are_the_head_on_each_state(tmp_path: Path) -> None:
    folder = dimensional(tmp_path)
    model = Dimensional.from_pretrained(folder).eval()
    states = loaded("wav2vec2", checkpoint=str(folder)).extract(CLIPS)
    worst, apart = 0.0, 0.0
    for x, frames, states_ND in zip(
        CLIPS, loaded("emotion", checkpoint=str(folder)).extract(CLIPS), states, strict=True
    ):
        with torch.inference_mode():
            plain_BND = model.wav2vec2(inputs(folder, x)).last_hidden_state
            expected, utterance = model.classifier(plain_BND)[0].numpy(), model.classifier(plain_BND.mean(dim=1))[0]
            ours = model.classifier(torch.from_numpy(states_ND).mean(dim=0))
        worst = max(worst, relative_error(frames, expected))
        torch.testing.assert_close(ours, utterance, rtol=1e-5, atol=1e-5)
        apart = max(apart, float(np.abs(frames.mean(axis=0) - utterance.numpy()).max()))
    print(f"emotion: dimensional: largest relative error {worst:.1e}; mean of frames {apart:.3f} off the utterance")
    assert worst < 2e-5
    assert apart > 1e-3, "the head is not linear, and the mean of frames no value of the utterance"


@pytest.mark.parametrize("kind", KINDS)
def test_frames_add_up_to_the_utterance(tmp_path: Path, kind: str) -> None:
    """Mean log-probabilities are mean logits but for a constant, which softmax takes away."""
    folder = categorical(tmp_path, kind=kind)
    model = AutoModelForAudioClassification.from_pretrained(folder).eval()
    # The last state that is weighted is the normalised output, as in transformers 4 and in S3PRL, where SUPERB's
    # weights were learned. transformers 5 gives it where the configuration says so; without, pre-norm models differ.
    model.config.tie_last_hidden_states = True
    worst = 0.0
    for x, frames in zip(CLIPS, loaded("emotion", checkpoint=str(folder)).extract(CLIPS), strict=True):
        with torch.inference_mode():
            expected = model(inputs(folder, x)).logits[0].softmax(dim=-1).numpy()
        assert expected.std() > 0.01
        mean = np.exp(np.log(frames).mean(axis=0))
        worst = max(worst, relative_error(mean / mean.sum(), expected))
    print(f"emotion: {kind}: largest relative error of the utterance {worst:.1e}")
    assert worst < 2e-5


@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_is_the_head_on_its_state(tmp_path: Path, kind: str) -> None:
    folder = categorical(tmp_path, kind=kind)
    model = AutoModelForAudioClassification.from_pretrained(folder).eval()
    worst = 0.0
    for x, frames in zip(CLIPS, loaded("emotion", checkpoint=str(folder)).extract(CLIPS), strict=True):
        with torch.inference_mode():
            out = model.base_model(inputs(folder, x), output_hidden_states=True)
            states_ND = out.last_hidden_state[0]
            if kind.endswith("weighted"):
                several = torch.stack([*out.hidden_states[:-1], out.last_hidden_state])
                states_ND = torch.einsum("l,lnd->nd", model.layer_weights.softmax(dim=0), several[:, 0])
            expected = model.classifier(model.projector(states_ND)).softmax(dim=-1).numpy()
        worst = max(worst, relative_error(frames, expected))
    print(f"emotion: {kind}: largest relative error of a frame {worst:.1e}")
    assert worst < 2e-5


def test_what_a_frame_is_follows_the_checkpoint(tmp_path: Path) -> None:
    a = create("emotion", Options(checkpoint=str(dimensional(tmp_path / "a")))).spec
    assert (a.family, a.kind, a.channels, a.layer) == ("affect", "scalars", DIMENSIONS, "last")
    b = create("emotion", Options(checkpoint=str(categorical(tmp_path / "b")))).spec
    assert (b.family, b.kind, b.channels, b.layer) == ("affect", "distribution", CLASSES, "weighted")


def test_weights_as_the_hub_has_them(tmp_path: Path) -> None:
    """audeering's pytorch_model.bin, with weight norm under its old names."""
    folder = dimensional(tmp_path)
    (a,) = loaded("emotion", checkpoint=str(folder)).extract([CLIPS[0]])
    state = load_file(folder / "model.safetensors")
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for new, old in names.items():
        state = {key.replace(new, old): value for key, value in state.items()}
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    (b,) = loaded("emotion", checkpoint=str(folder)).extract([CLIPS[0]])
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"problem_type": "multi_label_classification"},
            "a head for multi_label_classification over the mean of states",
        ),
        ({"pooling_mode": "max"}, "a head for regression over the max of states"),
        ({"add_adapter": True}, "its head sits on an adapter"),
        ({"id2label": None}, "config.json has id2label = None; expected dict"),
        ({"id2label": {"0": "a", "1": "b"}}, "2 names in id2label for 3 outputs"),
        ({"model_type": "whisper"}, "model_type is 'whisper'"),
    ],
)
def test_checkpoints_that_do_not_fit(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    folder = dimensional(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changed}))
    with pytest.raises(InputError, match=f"--expert emotion: .*{said}"):
        create("emotion", Options(checkpoint=str(folder)))


def test_checkpoints_without_a_head(tmp_path: Path) -> None:
    folder = dimensional(tmp_path)
    path = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "out_proj" not in k or "encoder" in k}, path)
    with pytest.raises(
        InputError, match=r"--expert emotion: .*no head of an emotion model; expected classifier.weight or"
    ):
        create("emotion", Options(checkpoint=str(folder)))
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"--expert emotion: .*model.safetensors cannot be read"):
        create("emotion", Options(checkpoint=str(folder)))
