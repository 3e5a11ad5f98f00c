"""Against the log_probs of NeMo's own forward, on tiny random models of its own classes that it saved itself."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from coat.extractors import Options, create
from coat.manifests import InputError
from tests.extractors import nemo_archives, tiny_nemo
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, relative_error
from tests.extractors.nemo_archives import CLIPS, edited, encoder_of
from tests.extractors.tiny_nemo import save

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # NeMo's own, in dozens


class TestNemoCTC(CheckpointConformance):
    name = "nemo-ctc"
    layers = 0

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return save(folder / "tiny.nemo", tiny_nemo.ctc, seed).parent


class TestNemoCTCUnnormalised(CheckpointConformance):
    """As streaming models are, with `normalize: NA`: here a tone that begins can be placed."""

    name = "nemo-ctc"
    layers = 0

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return save(folder / "tiny.nemo", tiny_nemo.ctc, seed, normalize="NA").parent


class TestNemoCTCOfQuartzNet(CheckpointConformance):
    name = "nemo-ctc"
    layers = 0

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return save(folder / "tiny.nemo", tiny_nemo.quartznet, seed).parent


MODELS = {
    "FastConformer": (tiny_nemo.ctc, 12.5),
    "Conformer": (partial(tiny_nemo.ctc, subsampling="striding", subsampling_factor=4), 25.0),
    "hybrid": (tiny_nemo.hybrid, 12.5),
    "QuartzNet": (tiny_nemo.quartznet, 25.0),
    "Citrinet": (tiny_nemo.citrinet, 50.0),
}


@pytest.mark.parametrize("model", MODELS)
def test_equals_nemo(model: str, tmp_path: Path) -> None:
    build, rate_hz = MODELS[model]
    file = save(tmp_path / "tiny.nemo", build)
    expert, worst = loaded("nemo-ctc", checkpoint=str(file)), 0.0
    assert (expert.spec.rate_hz, expert.spec.start_s) == (rate_hz, 0.0)
    for x, frames, (states, returned) in zip(CLIPS, expert.extract(CLIPS), nemo_archives.reference(file), strict=True):
        assert len(states) == len(frames) == encoder_of(expert).frames_of(len(x))
        if model == "hybrid":  # whose forward ends at the encoder
            own = nemo_archives.restored(file).ctc_decoder(encoder_output=tiny_nemo.torch.tensor(states.T[None]))
        else:
            own, lengths, _ = returned
            assert int(lengths[0]) == len(frames)
        worst = max(worst, relative_error(own[0, : len(frames)].detach().exp().numpy(), frames))
    print(f"nemo-ctc: {model}: largest relative error {worst:.1e}")
    assert worst < 1e-5


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("nemo") / "tiny.nemo", tiny_nemo.ctc)


def test_channels_are_tokens(path: Path, tmp_path: Path) -> None:
    def channels(file: Path) -> tuple[str, ...]:
        return create("nemo-ctc", Options(checkpoint=str(file))).spec.channels

    assert channels(path) == (*tiny_nemo.LETTERS, "<blank>")
    unnamed = edited(path, tmp_path / "unnamed.nemo", "  vocabulary:\n", "  unused:\n")
    assert channels(unnamed) == (*(str(i) for i in range(27)), "<blank>")
    file = save(tmp_path / "hybrid.nemo", tiny_nemo.hybrid)
    tokenizer = nemo_archives.restored(file).tokenizer
    assert channels(file) == (*tokenizer.ids_to_tokens(range(tokenizer.vocab_size)), "<blank>")


def test_files_with_a_fault(path: Path, tmp_path: Path) -> None:
    def refused(file: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            create("nemo-ctc", Options(checkpoint=str(file)))

    refused(save(tmp_path / "rnnt.nemo", tiny_nemo.rnnt), "its decoder is a RNNTDecoder; expected ConvASRDecoder")
    refused(edited(path, tmp_path / "a.nemo", "num_classes: 27", "num_classes: 4"), "4 classes with 27 tokens")
    nemo_archives.assert_faults_are_found("nemo-ctc", path, tmp_path, ["decoder.decoder_layers.0.bias"])


def test_blocks_with_a_fault(tmp_path: Path) -> None:
    path = save(tmp_path / "quartznet.nemo", tiny_nemo.quartznet)
    names = (
        "0.mconv.1.conv.weight", "1.mconv.5.conv.weight", "1.mconv.7.running_var",
        "1.res.0.0.conv.weight", "1.res.0.1.bias", "3.mconv.0.conv.weight", "3.mconv.1.running_mean",
    )  # fmt: skip
    nemo_archives.assert_faults_are_found("nemo-ctc", path, tmp_path, [f"encoder.encoder.{name}" for name in names])


def test_without_masks_clips_are_not_padded(tmp_path: Path) -> None:
    file = edited(
        save(tmp_path / "a.nemo", tiny_nemo.citrinet), tmp_path / "b.nemo", "conv_mask: true", "conv_mask: false"
    )

    def unmask(weights: dict[str, tiny_nemo.torch.Tensor]) -> None:
        for name in [*weights]:
            weights[name.replace(".conv.", ".")] = weights.pop(name)

    file = nemo_archives.reweighted(file, file, unmask)
    expert = loaded("nemo-ctc", checkpoint=str(file))
    assert not expert.pads
    for x, in_one_batch in zip(CLIPS, expert.extract(CLIPS), strict=True):
        np.testing.assert_allclose(expert.extract([x])[0], in_one_batch, atol=1e-5)
