"""Against the encoder inside NeMo's own forward, on a tiny random TitaNet that NeMo saved."""

from pathlib import Path

import pytest

from coat.extractors import Options, create
from coat.manifests import InputError
from tests.extractors import nemo_archives, tiny_nemo
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, relative_error
from tests.extractors.nemo_archives import CLIPS, edited, encoder_of
from tests.extractors.tiny_nemo import save

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # NeMo's own, in dozens


class TestTitaNet(CheckpointConformance):
    name = "titanet"
    layers = 5

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return save(folder / "tiny.nemo", tiny_nemo.titanet, seed).parent


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("nemo") / "tiny.nemo", tiny_nemo.titanet)


def test_equals_nemo(path: Path) -> None:
    expert, worst = loaded("titanet", checkpoint=str(path)), 0.0
    assert (expert.spec.rate_hz, expert.spec.start_s, expert.spec.dim) == (100.0, 0.0, 40)
    assert encoder_of(expert).reach_s == pytest.approx((46 * 160 + 200 + 1) / 16000)  # 1 + 3 * (3 + 5 + 7) mel frames
    for x, frames, (states, _) in zip(CLIPS, expert.extract(CLIPS), nemo_archives.reference(path), strict=True):
        assert len(states) == encoder_of(expert).frames_of(len(x)) == len(x) // 160
        worst = max(worst, relative_error(states, frames))
    print(f"titanet: largest relative error {worst:.1e}")
    assert worst < 1e-5


def test_a_layer_is_what_its_block_gives(path: Path) -> None:
    model = nemo_archives.restored(path)
    seen = []
    model.encoder.encoder[1].register_forward_hook(lambda _, __, output: seen.append(output[0][-1][0].T.numpy()))
    expert = loaded("titanet", checkpoint=str(path), layer="2")
    assert expert.spec.dim == 24
    with tiny_nemo.torch.inference_mode():
        model.forward(**nemo_archives.signals(CLIPS[0]))
    (frames,) = expert.extract(CLIPS[:1])
    assert relative_error(seen[0][: len(frames)], frames) < 1e-5


def test_files_with_a_fault(path: Path, tmp_path: Path) -> None:
    def refused(file: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            create("titanet", Options(checkpoint=str(file)))

    refused(edited(path, tmp_path / "a.nemo", "SpeakerDecoder", "ConvASRDecoder"), "its decoder is a ConvASRDecoder")
    refused(edited(path, tmp_path / "b.nemo", "ConvASREncoder", "ECAPAEncoder"), "its encoder is a ECAPAEncoder")
    refused(
        edited(path, tmp_path / "c.nemo", "    repeat: 1\n", "    repeat: 1\n    future_context: 1\n"), "future_context"
    )
    refused(edited(path, tmp_path / "d.nemo", "  jasper:", "  blocks:"), "does not describe a ConvASREncoder")
    names = ("encoder.encoder.1.mconv.13.fc.0.weight", "encoder.encoder.4.mconv.2.running_mean")
    nemo_archives.assert_faults_are_found("titanet", path, tmp_path, names)
