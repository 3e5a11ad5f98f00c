"""`--compile`: the same frames from a compiled model, and a fingerprint of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.extractors import tiny
from tests.extractors.conformance.conformance import loaded, noise, relative_error

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # torch's own compiler warns of its parts
]


def wav2vec2(folder: Path) -> Path:
    """With three convolutions in place of seven: each is C++ of its own, compiled for a second, twice."""
    return tiny.wav2vec2(folder, conv_dim=(16,) * 3, conv_stride=(5, 8, 8), conv_kernel=(10, 8, 8))


@pytest.mark.parametrize(("name", "build"), [("whisper", tiny.whisper), ("wav2vec2", wav2vec2)])
def test_a_compiled_model_gives_the_same_frames(name: str, build: Callable[[Path], Path], tmp_path: Path) -> None:
    import torch

    folder = str(build(tmp_path))
    plain, compiled = (
        loaded(name, checkpoint=folder, layer="1"),
        loaded(name, checkpoint=folder, layer="1", compile=True),
    )
    assert compiled.spec.fingerprint != plain.spec.fingerprint
    assert compiled.spec.settings["compiled"] is True
    torch._dynamo.utils.counters.clear()
    for seconds in (1.0, 1.7, 2.4):  # a length that is new must not be compiled anew
        x = noise(seconds, 16000)
        assert relative_error(plain.extract([x])[0], compiled.extract([x])[0]) < 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
