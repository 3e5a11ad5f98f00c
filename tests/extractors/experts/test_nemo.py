"""Against NeMo's own forward, on tiny random models of its own classes that it saved itself."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coat.extractors import Expert, Options, create
from coat.manifests import InputError
from tests.extractors import nemo_archives, tiny_nemo
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise, relative_error
from tests.extractors.nemo_archives import CLIPS, edited, encoder_of
from tests.extractors.tiny_nemo import save

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # NeMo's own, in dozens


class TestNemo(CheckpointConformance):
    name = "nemo"

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return save(folder / "tiny.nemo", tiny_nemo.ctc, seed).parent


class TestNemoUnnormalised(CheckpointConformance):
    """As streaming models are, with `normalize: NA`: here a tone that begins can be placed."""

    name = "nemo"

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return save(folder / "tiny.nemo", tiny_nemo.ctc, seed, normalize="NA").parent


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("nemo") / "tiny.nemo", tiny_nemo.ctc)


MODELS = {
    "ctc": tiny_nemo.ctc,
    "ctc, striding by 4": partial(tiny_nemo.ctc, subsampling="striding", subsampling_factor=4),
    "ctc, causal": partial(tiny_nemo.ctc, causal_downsampling=True),
    "ctc, projected": partial(tiny_nemo.ctc, feat_out=32, d_model=24),
    "rnnt": tiny_nemo.rnnt,
    "tdt": tiny_nemo.tdt,
    "hybrid": tiny_nemo.hybrid,
    "canary": tiny_nemo.canary,
    "nest": tiny_nemo.nest,
    "nest, masked after convolutions": partial(tiny_nemo.nest, mask_position="post_conv"),
}


@pytest.mark.parametrize("model", MODELS)
def test_equals_nemo(model: str, tmp_path: Path) -> None:
    file = save(tmp_path / "tiny.nemo", MODELS[model])
    expert, worst = loaded("nemo", checkpoint=str(file)), 0.0
    for x, frames, (states, _) in zip(CLIPS, expert.extract(CLIPS), nemo_archives.reference(file), strict=True):
        assert len(states) == encoder_of(expert).frames_of(len(x))
        worst = max(worst, relative_error(states, frames))
    print(f"nemo: {model}: largest relative error {worst:.1e}")
    assert worst < 1e-5


def test_norms_over_time_are_not_padded(tmp_path: Path) -> None:
    expert = loaded("nemo", checkpoint=str(save(tmp_path / "a.nemo", tiny_nemo.ctc, conv_norm_type="group_norm4")))
    assert not expert.pads
    for x, in_one_batch in zip(CLIPS, expert.extract(CLIPS), strict=True):
        assert relative_error(expert.extract([x])[0], in_one_batch) < 1e-5


def test_a_causal_model_hears_the_past(tmp_path: Path) -> None:
    file = save(tmp_path / "causal.nemo", tiny_nemo.ctc, causal_downsampling=True)
    expert = loaded("nemo", checkpoint=str(file))
    assert expert.spec.start_s == pytest.approx(-0.07)
    first_changed(expert)


def first_changed(expert: Expert) -> None:
    """A click at 1.0 s reaches the frame whose 15 mel frames hold it; seen before attention mixes frames."""
    encoder_of(expert).model.layers = torch.nn.ModuleList()
    x = noise(2.0, 16000)
    y = x.copy()
    y[15984:16016] += 1.0
    a, b = expert.extract([x, y])
    difference = np.linalg.norm(a - b, axis=1)
    found = expert.spec.times(len(a))[difference.argmax()]
    assert found == pytest.approx(1.0, abs=1 / expert.spec.rate_hz)


def test_reading_a_spec_does_not_import_nemo(path: Path) -> None:
    code = (
        "import sys; from coat.extractors import create, Options; "
        f"s = create('nemo', Options(checkpoint={str(path)!r})).spec; "
        "print(s.rate_hz, s.dim, 'nemo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["12.5", "32", "False"]


def refused(file: Path, message: str, **options: Any) -> None:
    with pytest.raises(InputError, match=message) as e:
        create("nemo", Options(checkpoint=str(file), **options))
    assert "\n" not in str(e.value)


def test_files_with_a_fault(path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.nemo").write_bytes(b"no tar")
    refused(tmp_path / "a.nemo", "not a .nemo file")
    refused(
        nemo_archives.write(tmp_path / "b.nemo", {"readme": b""}), "no model_config.yaml or model_weights.ckpt in it"
    )
    refused(tmp_path / "absent.nemo", "no such file")
    broken = {**nemo_archives.contents(path), "model_weights.ckpt": b"broken"}
    refused(nemo_archives.write(tmp_path / "c.nemo", broken), "model_weights.ckpt cannot be loaded")
    for old, new, message in [
        (
            "ConformerEncoder",
            "SqueezeformerEncoder",
            "its encoder is a SqueezeformerEncoder; expected ConformerEncoder",
        ),
        ("dw_striding", "stacking", "subsampling 'stacking'"),
        ("n_layers", "layers", "does not describe"),
        ("encoder:", "coder:", "describes no encoder"),
        ("n_layers: 3", "n_layers: 4", "weights are missing, the first is encoder.layers.3."),
        ("d_model: 32", "d_model: ${absent}", "encoder of model_config.yaml cannot be read"),
    ]:
        refused(edited(path, tmp_path / f"{new[:9].strip(':')}.nemo", old, new), message)


def test_weights_with_a_fault(path: Path, tmp_path: Path) -> None:
    names = (
        "encoder.pre_encode.conv.5.weight",
        "encoder.pre_encode.out.bias",
        "encoder.layers.1.conv.batch_norm.running_var",
    )
    nemo_archives.assert_faults_are_found("nemo", path, tmp_path, names)
    other = nemo_archives.reweighted(path, tmp_path / "nan.nemo", lambda weights: [
        weights[name].fill_(np.nan) for name in ("encoder.layers.2.norm_out.weight", "decoder.decoder_layers.0.bias")
    ])  # fmt: skip
    refused(other, "NaN or infinite values in encoder.layers.2.norm_out.weight")
    create("nemo", Options(checkpoint=str(other), layer="2"))  # which uses neither


ENCODERS = {
    "nemo": tiny_nemo.ctc,
    "nemo-ctc": tiny_nemo.quartznet,
    "titanet": tiny_nemo.titanet,
    "marblenet": tiny_nemo.marblenet,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_weight_is_asked_for(name: str, tmp_path: Path) -> None:
    """What is named by reading the configuration is what NeMo builds of it; counters of norms are not used."""
    expert = loaded(name, checkpoint=str(save(tmp_path / "a.nemo", ENCODERS[name])))
    own = {f"encoder.{weight}" for weight in encoder_of(expert).model.state_dict()}
    counters = {weight for weight in own if weight.endswith("num_batches_tracked")}
    assert {*encoder_of(expert).names} - counters == own - counters


def test_weights_of_another_shape(path: Path, tmp_path: Path) -> None:
    expert = create("nemo", Options(checkpoint=str(edited(path, tmp_path / "a.nemo", "d_model: 32", "d_model: 16"))))
    with pytest.raises(InputError, match="the weights do not fit"):
        expert.load("cpu")


def test_a_rewritten_file_is_read_again(path: Path, tmp_path: Path) -> None:
    copy = nemo_archives.write(tmp_path / "a.nemo", nemo_archives.contents(path))
    first = create("nemo", Options(checkpoint=str(copy))).spec
    nemo_archives.reweighted(path, copy, lambda weights: weights["encoder.pre_encode.out.bias"].add_(1))
    assert create("nemo", Options(checkpoint=str(copy))).spec.fingerprint != first.fingerprint


def test_a_compressed_file_is_the_same(path: Path, tmp_path: Path) -> None:
    """As NeMo wrote them until 2022."""
    packed = loaded(
        "nemo", checkpoint=str(nemo_archives.write(tmp_path / "a.nemo", nemo_archives.contents(path), "w:gz"))
    )
    plain = loaded("nemo", checkpoint=str(path))
    assert packed.spec.fingerprint == plain.spec.fingerprint
    np.testing.assert_array_equal(packed.extract(CLIPS[:1])[0], plain.extract(CLIPS[:1])[0])


def test_a_class_that_a_file_names_is_not_imported(path: Path, tmp_path: Path) -> None:
    evil = edited(path, tmp_path / "evil.nemo", "nemo.collections.asr.modules.ConformerEncoder", "os.system")
    refused(evil, "its encoder is a system; expected ConformerEncoder")


def test_a_pickle_is_not_run(path: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # pyright: ignore[reportReturnType]

    import io

    stream = io.BytesIO()
    torch.save({"encoder.x": Evil()}, stream)
    files = {**nemo_archives.contents(path), "model_weights.ckpt": stream.getvalue()}
    refused(nemo_archives.write(tmp_path / "evil.nemo", files), "model_weights.ckpt cannot be loaded")
    assert not (tmp_path / "ran").exists()
