from typing import Any

import numpy as np
import pytest
import torch

from coat.extractors import Expert
from tests.extractors.conformance.conformance import ExpertConformance, loaded, noise, tone


class TestVAD(ExpertConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def expert(cls) -> Expert:
        return loaded("vad")


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:FutureWarning")  # silero's own
@pytest.mark.parametrize("route", ["onnx", "jit"])
def test_equals_the_streaming_model(route: str) -> None:
    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad

    torch.set_num_threads(threads)  # importing silero_vad sets it to 1, which is why the expert does not
    x = np.concatenate([noise(0.7, 16000, level=0.02), tone(20.0, 16000, hz=140), noise(0.31, 16000)])
    model: Any = load_silero_vad(onnx=route == "onnx")
    model.reset_states()
    reference = model.audio_forward(torch.from_numpy(x)[None], 16000).numpy()[0]
    (frames,) = loaded("vad").extract([x])
    assert len(frames) == -(-len(x) // 512)
    np.testing.assert_allclose(frames[:, 0], reference, atol=2e-4)
