from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor, ASTForAudioClassification

from coat.extractors import extract_windows
from tests.extractors import tiny
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise


class TestAST(CheckpointConformance):
    name = "ast"
    build = staticmethod(tiny.ast)


def plain_loop(folder: Path, samples_T: np.ndarray, layer: int | None = None) -> np.ndarray:
    """`[25, D]` of one clip through transformers, mean over the two rows of patches."""
    features = ASTFeatureExtractor.from_pretrained(folder)
    model = ASTForAudioClassification.from_pretrained(folder).eval()
    inputs = features(samples_T.copy(), sampling_rate=16000, return_tensors="pt")["input_values"]
    with torch.inference_mode():
        out = model.audio_spectrogram_transformer(inputs, output_hidden_states=True)
    states = out.last_hidden_state if layer is None else out.hidden_states[layer]
    return states[0, 2:].reshape(2, 25, -1).mean(0).numpy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.ast(tmp_path_factory.mktemp("ast"))


@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize(("samples", "frames"), [(1401, 1), (3000, 1), (3001, 2), (16000, 10), (41000, 25)])
def test_equals_a_plain_loop(folder: Path, samples: int, frames: int, layer: int | None) -> None:
    x = noise(samples / 16000, 16000)
    (found,) = loaded("ast", checkpoint=str(folder), layer=str(layer or "last")).extract([x])
    assert len(found) == frames
    np.testing.assert_allclose(found, plain_loop(folder, x, layer)[:frames], atol=1e-5)


def test_long_audio_is_heard_window_by_window(folder: Path) -> None:
    x = noise(8.0, 16000)
    expert = loaded("ast", checkpoint=str(folder))
    (found,) = extract_windows(expert, [x])
    assert len(found) == 80
    # Windows of 25 frames: 1400 + 25 * 1600 samples, of which a tenth is kept clear on both sides: 4140, frames 2 to 22
    first, second, *_ = expert.windows(len(x))
    assert (first.stop, first.keep, second.start, second.skip) == (41400, 23, 21 * 1600, 2)
    np.testing.assert_allclose(found[:23], plain_loop(folder, x[:41400])[:23], atol=1e-5)
    np.testing.assert_allclose(found[23:40], plain_loop(folder, x[21 * 1600 :][:41400])[2:19], atol=1e-5)


def test_patches_are_laid_out_by_rows(folder: Path) -> None:
    """A burst moves the patches of its own time in every row: the pooling did not mix time and frequency."""
    expert = loaded("ast", checkpoint=str(folder), layer="1")
    quiet = noise(2.5, 16000, level=1e-3)
    struck = quiet.copy()
    struck[1600 * 10 + 1300 : 1600 * 10 + 1500] += 0.5
    a, b = expert.extract([quiet, struck])
    assert np.linalg.norm(a - b, axis=1).argmax() == 10
