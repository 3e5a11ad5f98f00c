import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DacConfig,
    DacFeatureExtractor,
    DacModel,
    EncodecConfig,
    EncodecFeatureExtractor,
    EncodecModel,
    MimiConfig,
    MimiModel,
)

from coat.extractors import Waveform, extract_windows
from coat.extractors.conformance.differences import relative_error
from coat.extractors.experts.codec import Codec, dac_receptive_field
from coat.manifests import InputError
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise

RATE = 24000
CLASSES = {"encodec": EncodecModel, "dac": DacModel, "mimi": MimiModel}


def build(folder: Path, seed: int = 0, kind: str = "encodec", **config: Any) -> Path:
    """Strides, kernels and paddings as the public checkpoints of 24 kHz have them; few channels, and codes to tell.

    Their numbers are chosen: some CPUs' bfloat16 convolutions of 8 to 24 channels with strides of 4 to 8 are wrong.
    """
    torch.manual_seed(seed)
    if kind == "encodec":
        model = EncodecModel(EncodecConfig(**{"hidden_size": 16, "num_filters": 4, "codebook_size": 64, **config}))
    elif kind == "dac":
        strides = [2, 4, 5, 8]
        model = DacModel(DacConfig(encoder_hidden_size=3, downsampling_ratios=strides, decoder_hidden_size=32,
                                   n_codebooks=4, codebook_size=64, sampling_rate=RATE))  # fmt: skip
    else:
        model = MimiModel(MimiConfig(
            hidden_size=16, num_filters=8, num_hidden_layers=2, intermediate_size=32, num_attention_heads=2,
            num_key_value_heads=2, codebook_size=64, codebook_dim=8, vector_quantization_hidden_dimension=8,
            num_quantizers=4, upsample_groups=16, sliding_window=50, layer_scale_initial_scale=0.5,
        ))  # fmt: skip
    for name, tensor in model.named_buffers():
        if name.endswith(("codebook.embed", "codebook.embed_sum")):
            tensor.data.normal_(std=0.1)
    if isinstance(model, EncodecModel):  # as drawn, its biases say more than the sound
        for name, weight in model.encoder.named_parameters():
            weight.data.mul_(0.0 if "bias" in name else 1.5 if name.endswith("original0") else 1.0)
    if kind == "dac":  # as drawn, its convolutions let next to nothing through
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.dim() == 3:
                torch.nn.init.kaiming_normal_(weight, nonlinearity="linear")
                weight.data.mul_(0.3 if "res_unit" in name else 1.0)
    model.save_pretrained(folder)
    features = DacFeatureExtractor(sampling_rate=RATE, hop_length=320) if kind == "dac" else EncodecFeatureExtractor()
    features.save_pretrained(folder)
    return folder


class TestEncodec(CheckpointConformance):
    name, layers, build = "codec", 0, staticmethod(build)


class TestDac(CheckpointConformance):
    name, layers = "codec", 0

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return build(folder, seed, kind="dac")


class TestMimi(CheckpointConformance):
    seam_window_s = 12.0
    name, layers = "codec", 0

    @staticmethod
    def build(folder: Path, seed: int = 0) -> Path:
        return build(folder, seed, kind="mimi")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: build(tmp_path_factory.mktemp(kind), kind=kind) for kind in CLASSES}


def codec(folder: Path) -> Codec:
    expert = loaded("codec", checkpoint=str(folder))
    assert isinstance(expert, Codec)
    return expert


def reference(folder: Path, kind: str, samples_T: Waveform) -> tuple[np.ndarray, np.ndarray]:
    """`[N, D]` that the whole model hands to its quantiser, and the codes `[Q, N]` that it returns, of one clip."""
    model = CLASSES[kind].from_pretrained(folder).eval()
    heard: list[torch.Tensor] = []
    inner = model.quantizer.forward if kind == "dac" else model.quantizer.encode

    def quantise(latents: torch.Tensor, *rest: Any) -> Any:
        heard.append(latents)
        return inner(latents, *rest)

    setattr(model.quantizer, "forward" if kind == "dac" else "encode", quantise)
    with torch.inference_mode():
        codes = model.encode(torch.from_numpy(samples_T.copy())[None, None]).audio_codes
    return heard[0][0].T.numpy(), codes.reshape(-1, codes.shape[-1]).numpy()


def codes_of(folder: Path, kind: str, latents_ND: np.ndarray) -> np.ndarray:
    """By the reference's own quantiser."""
    model = CLASSES[kind].from_pretrained(folder).eval()
    latents = torch.from_numpy(latents_ND.T.copy())[None]
    with torch.inference_mode():
        if kind == "dac":
            return model.quantizer(latents)[1][0].numpy()
        bandwidth = (model.config.target_bandwidths[0],) if kind == "encodec" else ()
        return model.quantizer.encode(latents, *bandwidth)[:, 0].numpy()


@pytest.mark.parametrize("kind", CLASSES)
def test_equals_the_reference_and_quantises_to_its_codes(folders: dict[str, Path], kind: str) -> None:
    expert = codec(folders[kind])
    clips = [noise(frames * expert.hop / RATE, RATE, seed=frames) for frames in (1, 3, 40, 77)]
    for x, frames in zip(clips, expert.extract(clips), strict=True):
        latents, codes = reference(folders[kind], kind, x)
        assert frames.shape == latents.shape
        assert latents.std(axis=0).max() > 1e-3 or len(x) == expert.hop
        error = relative_error(latents, frames)
        print(f"{kind}: {len(frames)} frames, largest relative error {error:.1e}")
        assert error < 2e-6
        found = codes_of(folders[kind], kind, frames)
        np.testing.assert_array_equal(found, codes)
        if len(frames) > 20:
            assert len(np.unique(codes)) > 5


@pytest.mark.parametrize("kind", CLASSES)
def test_a_clip_that_ends_inside_a_frame(folders: dict[str, Path], kind: str) -> None:
    expert = codec(folders[kind])
    x = noise((20 * expert.hop + 0.4 * expert.hop) / RATE, RATE)
    (frames,) = expert.extract([x])
    padded, _ = reference(folders[kind], kind, np.pad(x, (0, -len(x) % expert.hop)))
    assert relative_error(padded, frames) < 2e-6
    assert len(frames) == 21
    if kind == "dac":  # its own feature extractor pads so
        features = DacFeatureExtractor.from_pretrained(folders[kind])
        model_input = features(x, sampling_rate=RATE, return_tensors="np")["input_values"][0, 0]
        assert relative_error(reference(folders[kind], kind, model_input)[0], frames) < 2e-6
    else:
        alone, _ = reference(folders[kind], kind, x)
        assert len(alone) == 21
        assert relative_error(alone[:20], frames[:20]) < 2e-6


def test_time_bases(folders: dict[str, Path]) -> None:
    specs = {kind: codec(folder).spec for kind, folder in folders.items()}
    assert {kind: (s.rate_hz, round(s.start_s * RATE, 6), s.dim) for kind, s in specs.items()} == {
        "encodec": (75.0, 159.5, 16),
        "dac": (75.0, 155.5, 48),
        "mimi": (12.5, 959.5, 16),
    }


def test_how_far_a_frame_of_dac_hears(folders: dict[str, Path]) -> None:
    """By the gradient of frame 20 with respect to the samples."""
    model = DacModel.from_pretrained(folders["dac"]).eval()
    x = torch.from_numpy(noise(40 * 320 / RATE, RATE).copy())[None, None].requires_grad_()
    model.encoder(x)[0, :, 20].abs().sum().backward()
    assert x.grad is not None
    heard = np.flatnonzero(x.grad[0, 0].numpy())
    low, high = dac_receptive_field([2, 4, 5, 8])
    assert (heard[0] - 20 * 320, heard[-1] - 20 * 320) == (low, high)


@pytest.mark.parametrize("kind", ["encodec", "mimi"])
def test_a_causal_frame_is_the_first_to_hear_its_samples(folders: dict[str, Path], kind: str) -> None:
    expert = codec(folders[kind])
    x = noise(30 * expert.hop / RATE, RATE)
    for sample, first in ((20 * expert.hop - 1, 19), (20 * expert.hop, 20), (21 * expert.hop - 1, 20)):
        changed = x.copy()
        changed[sample] += 0.5
        a, b = expert.extract([x, changed])
        assert np.flatnonzero(np.abs(a - b).max(axis=1))[0] == first


def test_short_clips_of_encodec_are_not_padded(folders: dict[str, Path]) -> None:
    expert = codec(folders["encodec"])
    assert expert.shared == 7 * 320  # samples, of which the last convolution mirrors six frames' worth
    clips = [noise(n * 320 / RATE, RATE, seed=n) for n in (6, 7, 50, 3)]
    for x, frames in zip(clips, expert.extract(clips), strict=True):
        assert relative_error(reference(folders["encodec"], "encodec", x)[0], frames) < 2e-6


def test_long_audio_of_dac_equals_a_single_pass(folders: dict[str, Path]) -> None:
    expert = codec(folders["dac"])
    expert.window_s = 1.0
    x = noise(3.777, RATE)
    (frames,) = extract_windows(expert, [x])
    assert len(expert.windows(len(x))) > 3
    single, _ = reference(folders["dac"], "dac", np.pad(x, (0, -len(x) % 320)))
    assert relative_error(single, frames) < 2e-6


def edited(folder: Path, copy: Path, **config: Any) -> Path:
    shutil.copytree(folder, copy)
    values = json.loads((copy / "config.json").read_text()) | config
    values = {key: value for key, value in values.items() if value != "absent"}
    (copy / "config.json").write_text(json.dumps(values))
    return copy


def test_dac_as_the_hub_has_it(folders: dict[str, Path], tmp_path: Path) -> None:
    """config.json of dac_24khz: a hop_length of 512, and in older revisions no sampling_rate."""
    copy = edited(folders["dac"], tmp_path / "old", hop_length=512, sampling_rate="absent")
    expert, right = codec(copy), codec(folders["dac"])
    assert (expert.spec.rate_hz, expert.spec.sample_rate) == (75.0, RATE)
    x = noise(1.0, RATE)
    np.testing.assert_array_equal(expert.extract([x])[0], right.extract([x])[0])


def test_what_it_cannot_hear(folders: dict[str, Path], tmp_path: Path) -> None:
    def refused(message: str, kind: str = "encodec", **config: Any) -> None:
        copy = edited(folders[kind], tmp_path / str(len(list(tmp_path.iterdir()))), **config)
        with pytest.raises(InputError, match=message) as e:
            codec(copy)
        assert "\n" not in str(e.value)

    refused("config.json has audio_channels = 2; expected a mono causal codec", audio_channels=2)
    refused("config.json has use_causal_conv = False, normalize = True", use_causal_conv=False, normalize=True)
    refused("chunk_length_s = 1.0", chunk_length_s=1.0)
    refused("differ in sampling_rate", sampling_rate=16000)
    refused("model_type is 'bert'; expected one of dac, encodec, mimi", model_type="bert")
    refused("config.json does not describe a dac", kind="dac", downsampling_ratios="many")
    refused("the weights cannot be loaded", hidden_size=32)
