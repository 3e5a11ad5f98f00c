import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCTC,
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    HubertConfig,
    HubertForCTC,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WavLMConfig,
    WavLMForCTC,
)

from coat.extractors import Options, create
from coat.manifests import InputError
from tests.extractors import tiny
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise, relative_error, tone

SYMBOLS = ("<pad>", "<s>", "</s>", "<unk>", "n", "s", "ʃ", "t", "ə", "iː", "ai", "ɔ")
DATA2VEC = {**tiny.SMALL, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
KINDS = {
    "wav2vec2-layer": lambda **own: Wav2Vec2ForCTC(Wav2Vec2Config(**tiny.SMALL, **tiny.LARGE, **own)),
    "wav2vec2-group": lambda **own: Wav2Vec2ForCTC(Wav2Vec2Config(**tiny.SMALL, **tiny.BASE, **own)),
    "hubert": lambda **own: HubertForCTC(HubertConfig(**tiny.SMALL, **tiny.LARGE, **own)),
    "wavlm": lambda **own: WavLMForCTC(WavLMConfig(**tiny.SMALL, **tiny.LARGE, **own)),
    "data2vec": lambda **own: Data2VecAudioForCTC(Data2VecAudioConfig(**DATA2VEC, **own)),
}


def build(folder: Path, seed: int = 0, kind: str = "wav2vec2-layer") -> Path:
    """With ids out of order in vocab.json, and a head of enough weight to prefer some symbols."""
    torch.manual_seed(seed)
    model = KINDS[kind](vocab_size=len(SYMBOLS), pad_token_id=0)
    model.lm_head.weight.data *= 10
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    vocabulary = dict(reversed([(symbol, i) for i, symbol in enumerate(SYMBOLS)]))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return folder


class TestLayerNorm(CheckpointConformance):
    seam_window_s = 10.0
    name = "phonemes"
    layers = 0
    build = staticmethod(build)


class TestGroupNorm(CheckpointConformance):
    seam_window_s = 10.0
    name = "phonemes"
    layers = 0

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return build(folder, seed, kind="wav2vec2-group")


def reference(folder: Path, samples_T: np.ndarray) -> np.ndarray:
    features = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    model = AutoModelForCTC.from_pretrained(folder).eval()
    inputs = features(samples_T, sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        return model(inputs).logits[0].softmax(dim=-1).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_ctc_model_on_one_clip_at_a_time(tmp_path: Path, kind: str) -> None:
    folder = build(tmp_path, kind=kind)
    clips = [noise(1.0, 16000), noise(0.025, 16000, seed=1), tone(1.013, 16000), noise(1.0, 16000, seed=3)]
    worst = 0.0
    for x, frames in zip(clips, loaded("phonemes", checkpoint=str(folder)).extract(clips), strict=True):
        expected = reference(folder, x)
        assert expected.std() > 0.01, "a head that prefers nothing would be equal to any other"
        worst = max(worst, relative_error(frames, expected))
    print(f"phonemes: {kind}: largest relative error {worst:.1e}")
    assert worst < 2e-5


def test_channels_are_the_symbols_by_id(tmp_path: Path) -> None:
    spec = create("phonemes", Options(checkpoint=str(build(tmp_path)))).spec
    assert spec.channels == SYMBOLS
    assert (spec.family, spec.kind, spec.dim, spec.rate_hz, spec.start_s) == (
        "speech", "distribution", 12, 50.0, 399 / 2 / 16000,
    )  # fmt: skip


def test_symbols_that_were_added_to_the_vocabulary(tmp_path: Path) -> None:
    folder = build(tmp_path)
    ids = json.loads((folder / "vocab.json").read_text())
    added = {symbol: ids.pop(symbol) for symbol in ("<s>", "</s>")}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "added_tokens.json").write_text(json.dumps(added))
    assert create("phonemes", Options(checkpoint=str(folder))).spec.channels == SYMBOLS


@pytest.mark.parametrize(
    ("vocabulary", "said"),
    [
        (None, "no vocab.json"),
        ({"a": 0, "b": 1}, "vocab.json has 2 symbols with 2 ids; config.json has vocab_size 12"),
        ({s: min(i, 10) for i, s in enumerate(SYMBOLS)}, "vocab.json has 12 symbols with 11 ids"),
        ({"eng": {"a": 0}}, "vocab.json gives no id to each symbol: one vocabulary is expected, not one per language"),
    ],
)
def test_vocabularies_that_do_not_fit(tmp_path: Path, vocabulary: dict | None, said: str) -> None:
    path = build(tmp_path) / "vocab.json"
    path.unlink()
    if vocabulary is not None:
        path.write_text(json.dumps(vocabulary))
    with pytest.raises(InputError, match=f"--expert phonemes: .*{said}"):
        create("phonemes", Options(checkpoint=str(tmp_path)))


def test_checkpoints_without_a_ctc_head(tmp_path: Path) -> None:
    folder = tiny.wav2vec2(tmp_path)
    with pytest.raises(InputError, match=r"--expert phonemes: .*no CTC head .lm_head.weight."):
        create("phonemes", Options(checkpoint=str(folder)))
    config = json.loads((build(folder) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "add_adapter": True}))
    with pytest.raises(InputError, match=r"--expert phonemes: .*its head sits on an adapter"):
        create("phonemes", Options(checkpoint=str(folder)))
