import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PeAudioConfig, PeAudioFeatureExtractor, PeAudioFrameLevelModel

from coat.extractors import Expert, Waveform, extract_windows
from coat.extractors.conformance.differences import relative_error
from coat.extractors.experts.pe_audio import PEAudio
from coat.manifests import InputError
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise

RATE, HOP = 48000, 1920


def build(folder: Path, seed: int = 0) -> Path:
    """Strides as the public checkpoints have them."""
    torch.manual_seed(seed)
    text = {"model_type": "modernbert", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
            "cls_token_id": 1, "sep_token_id": 2}  # fmt: skip
    audio = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
             "head_dim": 16,
             "dac_config": {"model_type": "dac", "downsampling_ratios": [2, 8, 10, 12], "encoder_hidden_size": 2,
                            "codebook_dim": 16, "codebook_size": 64, "n_codebooks": 1}}  # fmt: skip
    model = PeAudioFrameLevelModel(PeAudioConfig(text_config=text, audio_config=audio))
    for name, weight in model.audio_encoder.embedder.named_parameters():
        if name.endswith("weight") and weight.dim() == 3:  # as drawn, they let next to nothing through
            torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
            weight.data.mul_(0.3 if "res_unit" in name else 1.0)
    # What all frames share: without it, the norm of each frame raises the little that the ones before an event hear.
    torch.nn.init.normal_(model.audio_encoder.embedder.data_proj.bias, std=0.2)
    for name, weight in model.audio_encoder.patch_embedder.named_parameters():
        if name.endswith("project.weight"):  # drawn alike for three frames, they would smear events over seven
            weight.data.mul_(0.3)
    model.save_pretrained(folder)
    PeAudioFeatureExtractor().save_pretrained(folder)
    return folder


class TestPEAudio(CheckpointConformance):
    name, layers, build = "pe-audio", 0, staticmethod(build)

    @pytest.mark.filterwarnings("ignore:TF32")
    def test_lower_precision_is_near(self, expert: Expert, folder: Path) -> None:
        """Without oneDNN: its bfloat16 convolutions of few channels with a stride of 8 are wrong on some CPUs."""
        with torch.backends.mkldnn.flags(enabled=False):
            super().test_lower_precision_is_near(expert, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("pe"))


def plain_loop(folder: Path, samples_T: Waveform) -> np.ndarray:
    """One clip through transformers: feature extractor with its mask, and the frame-level model."""
    features = PeAudioFeatureExtractor.from_pretrained(folder)
    model = PeAudioFrameLevelModel.from_pretrained(folder).eval()
    inputs = features(samples_T, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        return model.get_audio_embeds(inputs["input_values"], inputs["padding_mask"])[0].numpy()


@pytest.fixture(scope="module")
def expert(folder: Path) -> PEAudio:
    found = loaded("pe-audio", checkpoint=str(folder))
    assert isinstance(found, PEAudio)
    return found


def test_equals_a_plain_loop(expert: PEAudio, folder: Path) -> None:
    clips = [noise(n / RATE, RATE, seed=n) for n in (HOP, HOP + 1, 2 * HOP - 1, 50 * HOP, 48123, 96000)]
    for x, frames in zip(clips, expert.extract(clips), strict=True):
        reference = plain_loop(folder, x)
        assert frames.shape == reference.shape
        error = relative_error(reference, frames)
        print(f"pe-audio: {len(frames)} frames, largest relative error {error:.1e}")
        assert error < 1e-5


def test_time_base_is_that_of_the_convolutions(expert: PEAudio) -> None:
    """By the gradient of a frame of the codec: the samples that it hears lie around its centre."""
    assert (expert.spec.rate_hz, round(expert.spec.start_s * RATE, 6), expert.spec.dim) == (25.0, 959.5, 24)
    x = torch.from_numpy(noise(20 * HOP / RATE, RATE).copy())[None, None].requires_grad_()
    expert.model.embedder.dac_encoder(x)[0, :, 10].abs().sum().backward()
    assert x.grad is not None
    heard = np.flatnonzero(x.grad[0, 0].numpy())
    assert (heard[0] + heard[-1]) / 2 == 10 * HOP + 959.5


def test_long_audio_is_heard_window_by_window(folder: Path) -> None:
    expert = loaded("pe-audio", checkpoint=str(folder))
    expert.window_s, expert.context_s = 4.0, 0.5
    x = noise(9.0, RATE)
    (frames,) = extract_windows(expert, [x])
    plan, at = expert.windows(len(x)), 0
    assert len(plan) == 3
    for window in plan:
        assert window.start == (at - window.skip) * HOP
        kept = window.kept(plain_loop(folder, x[window.start : window.stop]))
        assert relative_error(kept, frames[at : at + len(kept)]) < 1e-5
        at += len(kept)
    assert at == len(frames)


def test_the_text_tower_is_not_loaded(expert: PEAudio, folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "audio"))
    tensors = load_file(copy / "model.safetensors")
    audio = {k: v for k, v in tensors.items() if not k.startswith("text_model.")}
    assert len(audio) < len(tensors)
    save_file(audio, copy / "model.safetensors")
    other = loaded("pe-audio", checkpoint=str(copy))
    assert other.spec.fingerprint == expert.spec.fingerprint
    x = noise(1.0, RATE)
    np.testing.assert_array_equal(other.extract([x])[0], expert.extract([x])[0])


def test_what_is_no_frame_level_model(folder: Path, tmp_path: Path) -> None:
    def refused(copy: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            loaded("pe-audio", checkpoint=str(copy))

    for name, changes, message in (
        ("a", {"model_type": "pe_audio_video"}, "model_type is 'pe_audio_video'; expected one of pe_audio"),
        ("b", {"audio_config": None}, "audio_config = None; expected dict"),
    ):
        copy = Path(shutil.copytree(folder, tmp_path / name))
        values = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(values | changes))
        refused(copy, message)
    copy = Path(shutil.copytree(folder, tmp_path / "c"))
    tensors = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if not k.startswith("audio_head.")}, copy / "model.safetensors")
    refused(copy, "no audio_head.layer_norm.weight; expected a PeAudioFrameLevelModel")
