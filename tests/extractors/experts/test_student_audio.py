import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3EncoderConfig,
    AudioFlamingo3ForConditionalGeneration,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Config,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniConfig

from coat.extractors import Options, Waveform, create, extract_windows
from coat.extractors.checkpoints.partial import INDEX
from coat.extractors.conformance.differences import relative_error
from coat.extractors.experts.student_audio import StudentAudio
from coat.manifests import InputError
from coat.trainer.tiny_students.make import make_tiny_student
from tests.extractors.conformance.conformance import CheckpointConformance, loaded, noise

RATE, SECONDS, OMNI_SECONDS = 16000, 3, 4
AUDIO: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "num_mel_bins": 128,
}
TEXT: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2,
}  # fmt: skip


def qwen2_audio(folder: Path, seed: int = 0) -> Path:
    return make_tiny_student(folder, audio_layers=2, seconds=SECONDS, seed=seed)


def flamingo(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    audio = AudioFlamingo3EncoderConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_source_positions=150
    )
    config = AudioFlamingo3Config(audio_config=audio, text_config=Qwen2Config(**TEXT), audio_token_id=5)
    AudioFlamingo3ForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=128, chunk_length=SECONDS).save_pretrained(folder)
    return folder


def omni_config() -> Qwen2_5OmniThinkerConfig:
    """Chunks of 50 mel frames, half a second."""
    values: dict[str, Any] = {
        "audio_config": {**AUDIO, "n_window": 25, "output_dim": 24, "max_source_positions": 150},
        "vision_config": {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
                          "out_hidden_size": 24, "fullatt_block_indexes": [0]},
        "text_config": {**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0,
                                                    "mrope_section": [2, 2, 2]}},
        "vision_start_token_id": 4, "audio_token_id": 5, "image_token_id": 6, "video_token_id": 7,
    }  # fmt: skip
    return Qwen2_5OmniThinkerConfig(**values)


def thinker(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    Qwen2_5OmniThinkerForConditionalGeneration(omni_config()).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=128, chunk_length=OMNI_SECONDS).save_pretrained(folder)
    return folder


def omni(folder: Path, seed: int = 0) -> Path:
    """The whole model as the hub has it, in shards; without its speaking half."""
    torch.manual_seed(seed)
    config = Qwen2_5OmniConfig(thinker_config=omni_config().to_dict(), enable_audio_output=False)
    Qwen2_5OmniForConditionalGeneration(config).save_pretrained(folder, max_shard_size="40KB")
    torch.save({}, folder / "spk_dict.pt")  # of its voices; from_pretrained asks for it
    WhisperFeatureExtractor(feature_size=128, chunk_length=OMNI_SECONDS).save_pretrained(folder)
    return folder


BUILD = {"qwen2_audio": qwen2_audio, "audioflamingo3": flamingo, "thinker": thinker, "omni": omni}


class TestQwen2Audio(CheckpointConformance):
    name, layers, build = "student-audio", 0, staticmethod(qwen2_audio)


class TestAudioFlamingo3(CheckpointConformance):
    name, layers, build = "student-audio", 0, staticmethod(flamingo)


class TestOmni(CheckpointConformance):
    name, layers, build = "student-audio", 0, staticmethod(omni)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: build(tmp_path_factory.mktemp(kind)) for kind, build in BUILD.items()}


def student(folder: Path) -> StudentAudio:
    expert = loaded("student-audio", checkpoint=str(folder))
    assert isinstance(expert, StudentAudio)
    return expert


def of_qwen2_audio(folder: Path, samples_T: Waveform) -> np.ndarray:
    """What the tower gives inside the model's own forward pass, at as many frames as the processor makes tokens."""
    model = Qwen2AudioForConditionalGeneration.from_pretrained(folder).eval()
    processor: Any = Qwen2AudioProcessor.from_pretrained(folder)
    inputs = processor(
        text="<|audio_bos|><|AUDIO|><|audio_eos|>", audio=samples_T, sampling_rate=RATE, return_tensors="pt"
    )
    heard: list[torch.Tensor] = []
    model.model.audio_tower.register_forward_hook(lambda _m, _i, out: heard.append(out.last_hidden_state))
    with torch.inference_mode():
        model(**inputs)
    tokens = int((inputs["input_ids"] == model.config.audio_token_id).sum())
    return heard[0][0, :tokens].numpy()


def of_flamingo(folder: Path, samples_T: Waveform) -> np.ndarray:
    model = AudioFlamingo3ForConditionalGeneration.from_pretrained(folder).eval()
    features = WhisperFeatureExtractor.from_pretrained(folder)
    inputs = features(samples_T, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt")
    with torch.inference_mode():
        out: Any = model.get_audio_features(inputs["input_features"], inputs["attention_mask"])
        tokens = len(out.pooler_output)
        states = out.last_hidden_state[0, :tokens]
        torch.testing.assert_close(model.model.multi_modal_projector(states), out.pooler_output)
    return states.numpy()


def of_thinker(folder: Path, samples_T: Waveform, model: Any = None) -> np.ndarray:
    """Before `proj`, whose output is what get_audio_features gives."""
    model = (model or Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(folder)).eval()
    features = WhisperFeatureExtractor.from_pretrained(folder)
    inputs = features(
        samples_T, sampling_rate=RATE, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    heard: list[torch.Tensor] = []
    model.model.audio_tower.proj.register_forward_pre_hook(lambda _m, args: heard.append(args[0]))
    with torch.inference_mode():
        out = model.get_audio_features(inputs["input_features"], inputs["attention_mask"]).last_hidden_state
        torch.testing.assert_close(model.model.audio_tower.proj(heard[0]), out)
    return heard[0].numpy()


def of_omni(folder: Path, samples_T: Waveform) -> np.ndarray:
    return of_thinker(folder, samples_T, Qwen2_5OmniForConditionalGeneration.from_pretrained(folder).thinker)


REFERENCE = {"qwen2_audio": of_qwen2_audio, "audioflamingo3": of_flamingo, "thinker": of_thinker, "omni": of_omni}


@pytest.mark.parametrize("kind", BUILD)
def test_equals_the_student(folders: dict[str, Path], kind: str) -> None:
    expert = student(folders[kind])
    lengths = [321, 640, 641, 960, 961, 1281, 20000, 31999, SECONDS * RATE]
    clips = [noise(n / RATE, RATE, seed=n, level=0.1 if n % 2 else 0.01) for n in lengths]
    for x, frames in zip(clips, expert.extract(clips), strict=True):
        reference = REFERENCE[kind](folders[kind], x)
        assert frames.shape == reference.shape
        error = relative_error(reference, frames)
        print(f"{kind}: {len(x)} samples, largest relative error {error:.1e}")
        assert error < 1e-5


@pytest.mark.parametrize("kind", BUILD)
def test_the_shortest_clip_is_the_students(folders: dict[str, Path], kind: str) -> None:
    """One sample less, and the student has no audio token."""
    lengths = torch.tensor([-(-320 // 160), -(-321 // 160)])
    _, tokens = student(folders[kind]).model._get_feat_extract_output_lengths(lengths)
    assert tokens.tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["qwen2_audio", "omni"])
def test_long_audio_is_heard_window_by_window(folders: dict[str, Path], kind: str) -> None:
    expert = student(folders[kind])
    x = noise(3.1 * expert.window_s, RATE)
    (frames,) = extract_windows(expert, [x])
    plan, at = expert.windows(len(x)), 0
    assert len(plan) > 3
    for window in plan:
        assert window.start == (at - window.skip) * 640
        kept = window.kept(REFERENCE[kind](folders[kind], x[window.start : window.stop]))
        np.testing.assert_allclose(frames[at : at + len(kept)], kept, atol=1e-4)
        at += len(kept)
    assert at == len(frames)


def test_frames_of_omni_hear_their_chunk_alone(folders: dict[str, Path]) -> None:
    expert = student(folders["omni"])
    x = noise(2.0, RATE)
    struck = x.copy()
    struck[10400:10500] *= -1  # 0.65 s: in the second chunk of half a second, 12.5 frames each
    a, b = expert.extract([x, struck])
    assert set(np.flatnonzero(np.abs(a - b).max(axis=1) > 1e-6)) <= set(range(12, 25))


def test_batches_cost_what_is_computed(folders: dict[str, Path]) -> None:
    whole, own = student(folders["qwen2_audio"]), student(folders["omni"])
    assert [whole.padded_samples(n) for n in (400, 48000)] == [48000, 48000]
    assert [own.padded_samples(n) for n in (400, 48000)] == [400, 48000]
    assert (own.window_s, own.context_s) == (OMNI_SECONDS, 0.5)


def test_only_the_tower_is_read(folders: dict[str, Path], tmp_path: Path) -> None:
    """Of the shards, those without a tensor of the tower may be gone; other language models change nothing."""
    copy = Path(shutil.copytree(folders["omni"], tmp_path / "some"))
    placed = json.loads((copy / INDEX).read_text())["weight_map"]
    needed = {file for key, file in placed.items() if key.startswith("thinker.audio_tower.")}
    unneeded = set(placed.values()) - needed
    assert unneeded
    for file in unneeded:
        (copy / file).unlink()
    for file in needed:
        tensors = load_file(copy / file)
        save_file({k: v if ".audio_tower." in k else v + 1 for k, v in tensors.items()}, copy / file)
    expert, other = student(copy), student(folders["omni"])
    assert expert.spec.fingerprint == other.spec.fingerprint
    x = noise(1.0, RATE)
    np.testing.assert_array_equal(expert.extract([x])[0], other.extract([x])[0])
    assert not [name for name, _ in expert.model.named_parameters() if "language" in name or "proj." in name[:5]]


def test_the_hub_is_asked_for_the_tower_alone(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def snapshot(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repo, revision) == ("some/student", "v1")
        asked.extend(allow_patterns)
        for pattern in allow_patterns:
            for path in folders["omni"].glob(pattern):
                shutil.copy(path, tmp_path)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    spec = create("student-audio", Options(checkpoint="some/student@v1")).spec
    assert spec.fingerprint == create("student-audio", Options(checkpoint=str(folders["omni"]))).spec.fingerprint
    placed = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    fetched = {path.name for path in tmp_path.glob("*.safetensors")}
    assert fetched == {file for key, file in placed.items() if "audio_tower" in key}
    assert not [pattern for pattern in asked if "*" in pattern]


def test_names_of_transformers_4_and_5(folders: dict[str, Path], tmp_path: Path) -> None:
    """Qwen2-Audio on the hub: audio_tower.conv1.weight; in 5's own names: model.audio_tower.conv1.weight."""
    copy = Path(shutil.copytree(folders["qwen2_audio"], tmp_path / "renamed"))
    tensors = load_file(copy / "model.safetensors")
    prefix = next(key for key in tensors if "audio_tower" in key).split("audio_tower")[0]
    other = "" if prefix else "model."
    save_file({other + key.removeprefix(prefix): value for key, value in tensors.items()}, copy / "model.safetensors")
    x = noise(1.0, RATE)
    a, b = (student(f) for f in (copy, folders["qwen2_audio"]))
    assert a.spec.fingerprint == b.spec.fingerprint
    np.testing.assert_array_equal(a.extract([x])[0], b.extract([x])[0])


def test_what_is_wrong_with_a_student(folders: dict[str, Path], tmp_path: Path) -> None:
    def copy(kind: str) -> Path:
        return Path(shutil.copytree(folders[kind], tmp_path / str(len(list(tmp_path.iterdir())))))

    def refused(folder: Path, message: str) -> None:
        with pytest.raises(InputError, match=message) as e:
            student(folder)
        assert "\n" not in str(e.value)

    def edit(path: Path, **changes: Any) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    with pytest.raises(InputError, match="student-audio: has no default checkpoint; give --checkpoint"):
        create("student-audio", Options())
    wrong = copy("qwen2_audio")
    edit(wrong / "config.json", model_type="qwen2")
    refused(
        wrong, "model_type is 'qwen2'; expected one of audioflamingo3, qwen2_5_omni, qwen2_5_omni_thinker, qwen2_audio"
    )
    bare = copy("qwen2_audio")
    edit(bare / "config.json", audio_config=None)
    refused(bare, "config.json has no audio_config; expected a whole student")
    gone = copy("qwen2_audio")
    (gone / "model.safetensors").unlink()
    refused(gone, "no model.safetensors; expected safetensors as save_pretrained writes them")
    half = copy("qwen2_audio")
    tensors = load_file(half / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "conv2" not in k}, half / "model.safetensors")
    refused(half, "2 weights are missing, the first is conv2.bias")
    nan = copy("qwen2_audio")
    for key in tensors:
        if key.endswith("audio_tower.conv1.bias"):
            tensors[key] = tensors[key] * float("nan")
    save_file(tensors, nan / "model.safetensors")
    refused(nan, "model.safetensors holds NaN or infinite values in .*audio_tower.conv1.bias")
    text_only = copy("qwen2_audio")
    save_file({k: v for k, v in tensors.items() if "audio_tower" not in k}, text_only / "model.safetensors")
    refused(text_only, "no weights named .*audio_tower.*expected a whole model")
    shard = copy("omni")
    placed = json.loads((shard / INDEX).read_text())["weight_map"]
    (shard / next(file for key, file in placed.items() if "audio_tower" in key)).unlink()
    refused(shard, "no model-.*safetensors; expected safetensors")


def test_importing_it_imports_no_language_model() -> None:
    code = (
        "import sys, coat.extractors.experts.student_audio, coat.extractors.registry as r; r.find('student-audio'); "
        "print([m for m in sys.modules if m.startswith('transformers')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
