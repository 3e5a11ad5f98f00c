"""Exports for a server: the files that published checkpoints have, and what a server can't do."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from transformers import AutoProcessor

from coat.manifests import InputError
from coat.trainer import load_run, train
from coat.trainer.export.export import export_run
from coat.trainer.export.layout import check_ids, with_rope_theta
from coat.trainer.export.names import published_weights
from coat.trainer.students.registry import load_student
from coat.trainer.tiny_students.make import make_tiny_student
from tests.integration.helpers import coat
from tests.trainer.helpers import toy_config, toy_sample

AUDIO = (toy_sample(1)["audio"], 16000)
PREFIXES = {
    "qwen2-audio": {"audio_tower", "language_model", "multi_modal_projector"},
    "audio-flamingo-3": {"audio_tower", "language_model", "multi_modal_projector"},
    "qwen2.5-omni": {"thinker"},
    "qwen3-omni": {"thinker"},
}


@pytest.fixture(scope="module")
def exports(runs: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By student."""
    folder = tmp_path_factory.mktemp("exports")
    found = {name: run for (name, placement), run in runs.items() if placement == "after_audio"}
    for name, run in found.items():
        export_run(run, folder / name, merged=True, target="transformers")
    return {name: folder / name for name in found}


@pytest.fixture(scope="module")
def servable(shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a Qwen2-Audio that vLLM takes: heads of 32 and a whole tower."""
    folder = tmp_path_factory.mktemp("servable")
    student = make_tiny_student(folder / "student", hidden=64, seconds=30)
    train(toy_config(student, shards_dir, folder / "run", steps=2))
    return folder / "run"


def test_configs_are_as_version_4_reads_them(exports: dict[str, Path]) -> None:
    for name, folder in exports.items():
        config = json.loads((folder / "config.json").read_bytes())
        inner = config["thinker_config"] if "omni" in name else config
        with safe_open(folder / "model.safetensors", "pt") as file:
            names = set(file.keys())
            (embeddings,) = (file.get_tensor(n) for n in names if n.endswith("embed_tokens.weight"))
            (head,) = (file.get_tensor(n) for n in names if n.endswith("lm_head.weight"))
        assert {n.partition(".")[0] for n in names} == PREFIXES[name]
        text = inner["text_config"]
        assert text["vocab_size"] == len(embeddings) == len(head), name
        assert inner.get("vocab_size", len(head)) == len(head)
        assert text["rope_theta"] > 0
        assert "rope_parameters" not in text
        assert ("mrope_section" in (text["rope_scaling"] or {})) == ("omni" in name)
        assert not config.get("tie_word_embeddings")
        assert not text["tie_word_embeddings"]
        if "omni" in name:
            assert config["model_type"] in ("qwen2_5_omni", "qwen3_omni_moe")
            assert config["enable_audio_output"] is False
        tokenizer = json.loads((folder / "tokenizer_config.json").read_bytes())
        assert tokenizer["tokenizer_class"] in ("PreTrainedTokenizerFast", "Qwen2TokenizerFast", "Qwen2Tokenizer")
        assert not isinstance(tokenizer.get("extra_special_tokens"), list)
        assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
        features = json.loads((folder / "preprocessor_config.json").read_bytes())
        assert features["feature_extractor_type"] == "WhisperFeatureExtractor"
        processor = json.loads((folder / "processor_config.json").read_bytes())
        assert not {"feature_extractor", "image_processor", "video_processor"} & set(processor)


def test_every_weight_is_read_again(exports: dict[str, Path], runs: dict[tuple[str, str], Path]) -> None:
    for name, folder in exports.items():
        trained = load_run(runs[name, "after_audio"])
        again = load_student(str(folder))  # InputError where one is missing or has no place
        merged: Any = trained.student.peft_model.merge_and_unload()
        expected, found = (published_weights(m, trained.student.model_type) for m in (merged, again.model))
        assert set(expected) == set(found)
        for key, tensor in found.items():
            if not key.endswith("lm_head.weight"):  # rows of think tokens are not the run's there
                torch.testing.assert_close(tensor, expected[key], msg=f"{name}: {key}")


def test_a_whole_omni_is_read_without_a_talker(exports: dict[str, Path]) -> None:
    if "qwen2.5-omni" not in exports:
        pytest.skip("pip install .[omni]")
    config: Any = transformers.AutoConfig.from_pretrained(exports["qwen2.5-omni"])
    assert config.model_type == "qwen2_5_omni"
    assert not config.enable_audio_output
    thinker: Any = transformers.Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(exports["qwen2.5-omni"])
    assert config.thinker_config.text_config.vocab_size == thinker.lm_head.weight.shape[0]


def test_settings_of_a_whole_omni_stay(runs: dict[tuple[str, str], Path], tmp_path: Path, shards_dir: Path) -> None:
    """A student that was part of a whole: its other parts' settings are in the export."""
    if ("qwen2.5-omni", "after_audio") not in runs:
        pytest.skip("pip install .[omni]")
    thinker = Path(load_run(runs["qwen2.5-omni", "after_audio"]).config.student.path)
    whole = tmp_path / "whole"
    shutil.copytree(thinker, whole)
    config = json.loads((whole / "config.json").read_bytes())
    wrapped = {"model_type": "qwen2_5_omni", "thinker_config": config, "talker_config": {"tts_codec_pad_token_id": 7}}
    (whole / "config.json").write_text(json.dumps(wrapped))
    train(toy_config(whole, shards_dir, tmp_path / "run", steps=2))
    export_run(tmp_path / "run", tmp_path / "out", merged=True, target="transformers")
    written = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert written["talker_config"]["tts_codec_pad_token_id"] == 7
    assert written["thinker_config"]["model_type"] == "qwen2_5_omni_thinker"


def test_for_vllm(servable: Path, tmp_path: Path) -> None:
    made = export_run(servable, tmp_path / "out", merged=True, target="vllm")
    assert (made.kind, made.target) == ("model", "vllm")
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_bytes())
    assert generation["temperature"] == 0.0  # vLLM knows no do_sample
    card = (tmp_path / "out" / "README.md").read_text()
    assert "vllm serve ." in card
    assert "base_url=" in card
    pieces = json.loads((tmp_path / "out" / "thinking.json").read_bytes())
    trained = load_run(servable)
    rendered = pieces["prompt"].replace("{question}", "Why?")
    assert f"{pieces['behind']}{pieces['block']}" in rendered
    ids = AutoProcessor.from_pretrained(tmp_path / "out")(text=rendered, audio=[AUDIO[0]], sampling_rate=16000)
    assert list(ids["input_ids"][0]) == trained.inputs([(AUDIO, "Why?", ())])["input_ids"][0].tolist()
    assert pieces["ids"] == trained.block.new_ids


def test_what_a_server_cannot_do_is_refused(runs: dict[tuple[str, str], Path], servable: Path, tmp_path: Path) -> None:
    run, out = runs["qwen2-audio", "after_audio"], tmp_path / "out"
    with pytest.raises(InputError, match=r"vLLM takes no adapter with rows of think tokens.*add --merged"):
        export_run(run, out, target="vllm")
    with pytest.raises(InputError, match="SGLang takes no adapter"):
        export_run(run, out, target="sglang")
    with pytest.raises(InputError, match="heads of 16 dims, and vLLM's attention has kernels for 32"):
        export_run(run, out, merged=True, target="vllm")
    with pytest.raises(InputError, match=r"its audio tower has 150 positions.*SGLang takes 1500 and 3000 alone"):
        export_run(run, out, merged=True, target="sglang")
    with pytest.raises(InputError, match="SGLang has no audioflamingo3; transformers and vLLM have"):
        export_run(runs["audio-flamingo-3", "after_audio"], out, merged=True, target="sglang")
    assert list(tmp_path.iterdir()) == []


def test_a_language_model_without_biases_is_refused(servable: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """As of a student whose language model is no Qwen2: vLLM would answer with zeros in silence."""
    trained = load_run(servable)
    layers: Any = trained.student.language_model.layers
    for layer in layers:
        layer.self_attn.q_proj.bias = None
    monkeypatch.setattr("coat.trainer.export.export.load_run", lambda *_, **__: trained)
    with pytest.raises(InputError, match="biases on queries, keys and values: it would answer with zeros in silence"):
        export_run(servable, tmp_path / "out", merged=True, target="vllm")


def test_ids_have_rows(servable: Path) -> None:
    student = load_run(servable).student
    with pytest.raises(InputError, match="its embeddings 10 rows: a server would read another row"):
        check_ids(student, 10)


def test_rope_is_written_as_before() -> None:
    plain: dict[str, Any] = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    with_rope_theta(plain)
    assert plain == {"rope_theta": 1e6, "rope_scaling": None}
    yarn: dict[str, Any] = {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}
    with_rope_theta(yarn)
    assert yarn == {"rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn", "type": "yarn", "factor": 4.0}}


def test_the_command(servable: Path, tmp_path: Path) -> None:
    done = coat("export", "--run", servable, "--out", tmp_path / "out", "--merged", "--for", "vllm", "--json")
    assert json.loads(done.stdout)["for"] == "vllm"
    wrong = coat("export", "--run", servable, "--out", tmp_path / "out2", "--for", "tensorrt", status=2)
    assert "transformers" in wrong.stderr
