"""Against NeMo's own forward, on a tiny random MarbleNet that NeMo saved."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from coat.extractors import Options, create
from coat.extractors.conformance.check import NotApplicable
from coat.extractors.conformance.suite import CHECKS
from coat.manifests import InputError
from tests.extractors import tiny_nemo
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, relative_error
from tests.extractors.tiny_nemo import CLIPS, edited, encoder_of, save

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # NeMo's own, in dozens


class TestMarbleNet(CheckpointConformance):
    name = "marblenet"
    layers = 0

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return save(folder / "tiny.nemo", tiny_nemo.marblenet, seed).parent


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("nemo") / "tiny.nemo", tiny_nemo.marblenet)


@pytest.mark.parametrize("normalize", ["None", "per_feature"])
def test_equals_nemo(normalize: str, tmp_path: Path) -> None:
    path = save(tmp_path / "tiny.nemo", partial(tiny_nemo.marblenet, normalize=normalize))
    expert, worst = loaded("marblenet", checkpoint=str(path)), 0.0
    assert (expert.spec.rate_hz, expert.spec.start_s, expert.spec.dim) == (50.0, 0.0, 2)
    for x, frames, (states, logits) in zip(CLIPS, expert.extract(CLIPS), tiny_nemo.reference(path), strict=True):
        assert len(states) == len(frames) == encoder_of(expert).frames_of(len(x)) == -(-(len(x) // 160) // 2)
        worst = max(worst, relative_error(logits.softmax(dim=-1)[0, : len(frames)].numpy(), frames))
    print(f"marblenet: {normalize}: largest relative error {worst:.1e}")
    assert worst < 1e-5


@pytest.mark.parametrize("event", ["a_burst_shows", "a_glide_shows", "frames_at_a_seam_lie"])
def test_what_comes_and_goes_shows_to_a_quarter_of_a_frame(path: Path, event: str) -> None:
    expert = loaded("marblenet", checkpoint=str(path))
    expert.trial = replace(expert.trial, frames_off=0.25)
    CHECKS[f"{event}_where_the_spec_says"](expert)


def test_reach_is_that_of_its_convolutions(path: Path) -> None:
    expert = create("marblenet", Options(checkpoint=str(path)))
    # Half kernels in mel frames: of the first, then (of 2 each) those of two repetitions and of a dilated one.
    assert expert.context_s == pytest.approx(((5 + 2 * (2 * (1 + 2 + 3) + 8)) * 160 + 200 + 1) / 16000)


def test_a_model_that_normalises_clips_has_other_windows(tmp_path: Path) -> None:
    expert = loaded(
        "marblenet", checkpoint=str(save(tmp_path / "a.nemo", partial(tiny_nemo.marblenet, normalize="per_feature")))
    )
    with pytest.raises(NotApplicable):
        CHECKS["windows_equal_a_single_pass"](expert)


def test_channels_are_labels(path: Path, tmp_path: Path) -> None:
    def channels(file: Path) -> tuple[str, ...]:
        return create("marblenet", Options(checkpoint=str(file))).spec.channels

    assert channels(path) == ("non-speech", "speech")
    assert channels(save(tmp_path / "a.nemo", partial(tiny_nemo.marblenet, labels=("a", "b", "c")))) == ("a", "b", "c")


def test_files_with_a_fault(path: Path, tmp_path: Path) -> None:
    def refused(file: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            create("marblenet", Options(checkpoint=str(file)))

    refused(
        edited(path, tmp_path / "a.nemo", "activation: relu\n  log_softmax", "activation: load\n  log_softmax"),
        "'load'",
    )
    refused(edited(path, tmp_path / "b.nemo", "labels:\n- '0'\n- '1'\n", ""), "no labels")
    refused(edited(path, tmp_path / "c.nemo", "MultiLayerPerceptron", "LSTMDecoder"), "its decoder is a LSTMDecoder")
    names = ("decoder.layer0.weight", "decoder.layer2.bias", "encoder.encoder.4.mconv.0.conv.weight")
    tiny_nemo.assert_faults_are_found("marblenet", path, tmp_path, names)
