from typing import Any

import numpy as np
import pytest
import torch
import torchcrepe

from coat.extractors import Expert, Options, create, extract_windows
from coat.manifests import InputError
from tests.extractors.conformance.conformance import ExpertConformance, channel_error, loaded, noise, tone


class TestCrepe(ExpertConformance):
    seam_window_s = 1.0

    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("crepe", checkpoint="tiny")


@pytest.fixture(scope="module")
def tiny() -> Expert:
    return loaded("crepe", checkpoint="tiny")


def clip(seconds: float) -> np.ndarray:
    """Half noise, half a voice-like tone."""
    half = seconds / 2
    return np.concatenate([noise(half, 16000, level=0.05), tone(half, 16000, hz=183.0)])


@pytest.fixture
def undithered(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchcrepe adds random cents to every f0, and once to the scale that weighted_argmax keeps."""
    monkeypatch.setattr(torchcrepe.convert, "dither", lambda cents: cents)
    monkeypatch.delattr(torchcrepe.decode.weighted_argmax, "weights", raising=False)


@pytest.mark.usefixtures("undithered")
@pytest.mark.parametrize(("capacity", "seconds"), [("tiny", 1.5037), ("full", 0.16)])
def test_equals_torchcrepe(capacity: str, seconds: float) -> None:
    expert, x = loaded("crepe", checkpoint=capacity), clip(seconds)
    (frames,) = expert.extract([x])
    audio = torch.from_numpy(x)[None]
    with torch.inference_mode():
        (prepared,) = torchcrepe.preprocess(audio, 16000)
        activations = torchcrepe.infer(prepared, capacity).clone()
    assert frames.shape == (1 + len(x) // 160, 362)
    error = channel_error(activations.numpy(), frames[:, 2:])
    print(f"crepe {capacity}: activations differ by {error:.1e} of a channel")
    assert error < 1e-4

    # Its weighted_argmax takes logits, but is handed activations; given logits it does what CREPE's authors do.
    scores = torch.logit(activations.T[None].double())
    scores[:, :39] = -float("inf")
    _, hz = torchcrepe.decode.weighted_argmax(scores)
    np.testing.assert_allclose(frames[:, 0], np.log2(hz[0].numpy()), atol=1e-5)

    hz, periodicity = torchcrepe.predict(
        audio, 16000, model=capacity, decoder=torchcrepe.decode.argmax, return_periodicity=True
    )
    np.testing.assert_allclose(frames[:, 1], periodicity[0].numpy(), atol=1e-5)
    cents = 1200 * np.abs(frames[:, 0] - np.log2(hz[0].numpy()))
    assert cents.max() < 4 * 20, "the mean of nine bins lies within four of the highest"
    assert np.median(cents[len(cents) // 2 + 5 :]) <= 10, "where there is a tone it is that bin, or between two"


@pytest.mark.parametrize("hz", [87.3, 220.0, 222.5, 587.0, 1200.0])
def test_f0_is_that_of_the_tone(tiny: Expert, hz: float) -> None:
    (frames,) = tiny.extract([tone(0.6, 16000, hz=hz)])
    inside = frames[5:-5]
    assert inside[:, 1].min() > 0.5
    assert 1200 * abs(np.median(inside[:, 0]) - np.log2(hz)) < 15


def test_more_frames_than_one_pass_takes(tiny: Expert) -> None:
    """513 frames: three passes."""
    x = noise(512 * 160 / 16000, 16000)
    (frames,) = tiny.extract([x])
    assert len(frames) == 513
    np.testing.assert_allclose(frames[300:400], tiny.extract([x[250 * 160 :]])[0][50:150], atol=1e-5)


def test_long_audio_equals_torchcrepe(tiny: Expert) -> None:
    x = noise(6.003, 16000)
    assert len(tiny.windows(len(x))) == 2
    (frames,) = extract_windows(tiny, [x])
    with torch.inference_mode():
        parts = [torchcrepe.infer(p, "tiny") for p in torchcrepe.preprocess(torch.tensor(x)[None], 16000, None, 256)]
    assert channel_error(torch.cat(parts).numpy(), frames[:, 2:]) < 1e-4


def test_capacities_differ_in_weights_and_fingerprint() -> None:
    tiny, full = (create("crepe", Options(checkpoint=c)).spec for c in ("tiny", "full"))
    assert tiny.weights != full.weights
    assert tiny.fingerprint != full.fingerprint
    assert create("crepe", Options()).spec.fingerprint == full.fingerprint


def test_lower_precision_is_near(tiny: Expert) -> None:
    near = loaded("crepe", checkpoint="tiny", precision="bfloat16")
    (a,), (b,) = tiny.extract([clip(1.0)]), near.extract([clip(1.0)])
    assert 0 < np.abs(a[:, 2:] - b[:, 2:]).max() < 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint": "medium"}, "--checkpoint medium: expected full or tiny"),
        ({"layer": "2"}, "takes no --layer"),
        ({"pad_margin": 1.0}, "takes no --pad-margin"),
    ],
)
def test_what_it_does_not_take(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"--expert crepe: {said}"):
        create("crepe", Options(**options))
