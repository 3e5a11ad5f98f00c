"""Against NeMo's own restore_from, on a tiny random FastConformer that NeMo saved. Importing NeMo: ten seconds."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coat.extractors import Expert, Options, create
from coat.manifests import InputError
from tests.extractors.conformance import CheckpointConformance, loaded, noise

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # NeMo's own, in dozens


def save_model(path: Path, seed: int = 0, **encoder: Any) -> Path:
    from nemo.collections.asr.models import EncDecCTCModel
    from omegaconf import OmegaConf

    torch.manual_seed(seed)
    modules = "nemo.collections.asr.modules."
    model = EncDecCTCModel(cfg=OmegaConf.create({
        "sample_rate": 16000,
        "preprocessor": {
            "_target_": modules + "AudioToMelSpectrogramPreprocessor", "sample_rate": 16000, "features": 20,
            "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01, "n_fft": 512, "dither": 1e-5,
        },
        "encoder": {
            "_target_": modules + "ConformerEncoder", "feat_in": 20, "n_layers": 3, "d_model": 32,
            "subsampling": "dw_striding", "subsampling_factor": 8, "subsampling_conv_channels": 16, "n_heads": 4,
            "conv_kernel_size": 9, "ff_expansion_factor": 2, **encoder,
        },
        "decoder": {
            "_target_": modules + "ConvASRDecoder", "feat_in": 32, "num_classes": 3, "vocabulary": ["a", "b", "c"],
        },
    }))  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_to(str(path))
    return path


class TestNemo(CheckpointConformance):
    name = "nemo"

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return save_model(folder / "tiny.nemo", seed).parent


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("nemo") / "tiny.nemo")


def test_equals_nemo(path: Path) -> None:
    from nemo.collections.asr.models import ASRModel

    model: Any = ASRModel.restore_from(str(path))
    model.eval()
    model.preprocessor.featurizer.dither, model.preprocessor.featurizer.pad_to = 0.0, 0
    clips = [noise(s, 16000, seed=i) for i, s in enumerate((1.0, 2.503, 0.333))]
    for x, frames in zip(clips, loaded("nemo", checkpoint=str(path)).extract(clips), strict=True):
        with torch.inference_mode():
            mel, length = model.preprocessor(input_signal=torch.tensor(x)[None], length=torch.tensor([len(x)]))
            states, length = model.encoder(audio_signal=mel, length=length)
        reference = states[0, :, : int(length[0])].T.numpy()
        assert frames.shape == reference.shape
        np.testing.assert_allclose(frames, reference, atol=1e-4)


def test_a_causal_model_hears_the_past(tmp_path: Path) -> None:
    expert = loaded("nemo", checkpoint=str(save_model(tmp_path / "causal.nemo", causal_downsampling=True)))
    assert expert.spec.start_s == pytest.approx(-0.07)
    first_changed(expert)


def first_changed(expert: Expert) -> None:
    """A click at 1.0 s reaches the frame whose 15 mel frames hold it; seen before attention mixes frames."""
    model: Any = expert.model  # pyright: ignore[reportAttributeAccessIssue]
    model.layers = torch.nn.ModuleList()
    x = noise(2.0, 16000)
    y = x.copy()
    y[15984:16016] += 1.0
    a, b = expert.extract([x, y])
    difference = np.linalg.norm(a - b, axis=1)
    found = expert.spec.times(len(a))[difference.argmax()]
    assert found == pytest.approx(1.0, abs=1 / expert.spec.rate_hz)


def test_reading_a_spec_does_not_import_nemo(path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from coat.extractors import create, Options; "
        f"s = create('nemo', Options(checkpoint={str(path)!r})).spec; "
        "print(s.rate_hz, s.dim, 'nemo' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["12.5", "32", "False", "False"]


def test_files_with_a_fault(path: Path, tmp_path: Path) -> None:
    def refused(file: Path, message: str) -> None:
        with pytest.raises(InputError, match=message) as e:
            create("nemo", Options(checkpoint=str(file)))
        assert "\n" not in str(e.value)

    (tmp_path / "a.nemo").write_bytes(b"no tar")
    refused(tmp_path / "a.nemo", "not a .nemo file")
    with tarfile.open(tmp_path / "b.nemo", "w") as archive:
        archive.add(tmp_path / "a.nemo", "readme")
    refused(tmp_path / "b.nemo", "no model_config.yaml or model_weights.ckpt in it")
    refused(tmp_path / "absent.nemo", "no such file")
    for old, new, message in [
        ("ConformerEncoder", "ConvASREncoder", "expected a .Fast.Conformer"),
        ("dw_striding", "stacking", "subsampling 'stacking'"),
        ("n_layers", "layers", "does not describe"),
    ]:
        refused(edited(path, tmp_path / f"{new}.nemo", old, new), message)


def test_a_class_that_a_file_names_is_not_imported(path: Path, tmp_path: Path) -> None:
    evil = edited(path, tmp_path / "evil.nemo", "nemo.collections.asr.modules.ConformerEncoder", "os.system")
    with pytest.raises(InputError, match="made of AudioToMelSpectrogramPreprocessor and system"):
        create("nemo", Options(checkpoint=str(evil)))


def edited(path: Path, copy: Path, old: str, new: str) -> Path:
    """A copy of a .nemo file with another text in its configuration."""
    folder = copy.with_suffix("")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    config = folder / "model_config.yaml"
    config.write_text(config.read_text().replace(old, new))
    with tarfile.open(copy, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, f"./{file.name}")
    return copy
