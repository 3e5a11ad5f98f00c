import json

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from coat.extractors import Expert, Options, create
from coat.manifests import InputError
from tests.extractors.conformance.conformance import ExpertConformance, loaded, noise


class TestMel(ExpertConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("mel")


@pytest.mark.parametrize("samples", [201, 16000, 16159, 47000])
def test_equals_whisper_features_of_the_unpadded_clip(samples: int) -> None:
    """Against the numpy route of transformers, which shares no code with the torch route that is used."""
    x = noise(samples / 16000, 16000)
    reference = WhisperFeatureExtractor(feature_size=128)._np_extract_fbank_features(x[None], "cpu")[0].T
    (frames,) = loaded("mel").extract([x])
    assert frames.shape == (samples // 160, 128)
    np.testing.assert_allclose(frames, reference, atol=1e-4)


def test_equals_what_a_student_hears_of_a_padded_clip() -> None:
    x = noise(3.3, 16000)
    padded = WhisperFeatureExtractor(feature_size=128)(x, sampling_rate=16000, return_tensors="np")["input_features"][0]
    (frames,) = loaded("mel").extract([x])
    # The last two frames reach over the end, where the student hears zeros and this a reflection.
    np.testing.assert_allclose(frames[:-2], padded.T[: len(frames) - 2], atol=1e-4)


def test_parameters_of_a_checkpoint(tmp_path) -> None:
    WhisperFeatureExtractor(feature_size=80, hop_length=320).save_pretrained(tmp_path)
    expert = create("mel", Options(checkpoint=str(tmp_path)))
    assert (expert.spec.dim, expert.spec.rate_hz) == (80, 50.0)
    assert expert.spec.fingerprint != create("mel", Options()).spec.fingerprint


def test_parameters_of_a_processor_as_transformers_5_saves_it(tmp_path) -> None:
    nested = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 96, "hop_length": 320}
    (tmp_path / "processor_config.json").write_text(json.dumps({"feature_extractor": nested}))
    assert create("mel", Options(checkpoint=str(tmp_path))).spec.dim == 96
    assert WhisperFeatureExtractor.from_pretrained(tmp_path).feature_size == 96


def test_features_of_another_kind_are_refused(tmp_path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"feature_extractor_type": "ASTFeatureExtractor"}')
    with pytest.raises(InputError, match=r"--expert mel: .*ASTFeatureExtractor"):
        create("mel", Options(checkpoint=str(tmp_path)))
