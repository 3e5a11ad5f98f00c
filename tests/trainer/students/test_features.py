"""Processors work on the audio that there is, not on padding, and are not asked for their vocabulary per text."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from coat.trainer.config.sections import ThinkingConfig
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from coat.trainer.tiny_students.make import make_tiny_student
from tests.trainer.students.test_students import tone


@pytest.fixture(scope="module")
def omni(tmp_path_factory: pytest.TempPathFactory) -> Student:
    """With the feature extractor of the published checkpoint: 300 s."""
    pytest.importorskip("torchvision", reason="pip install .[omni]")
    folder = make_tiny_student(tmp_path_factory.mktemp("omni") / "tiny", name="qwen2.5-omni")
    student = load_student(str(folder))
    extractor = student.processor.feature_extractor
    extractor.chunk_length, extractor.n_samples, extractor.nb_max_frames = 300, 300 * 16000, 300 * 100
    return student


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.0, 1.2345, 2.0, 5.0, 7.77])
def test_features_are_those_of_the_whole_padding(omni: Student, seconds: float) -> None:
    audio_S = tone(seconds)
    text = omni.chat.render("What is it?")
    ids, features = omni.encode(text, [audio_S])
    whole = omni.processor(text=[text], audio=[audio_S], sampling_rate=16000, return_tensors="pt")
    assert ids == whole["input_ids"][0].tolist()
    frames = int(whole["feature_attention_mask"].sum())
    # Other shapes of matrix products: 3e-5 at most, of values of some 1.
    torch.testing.assert_close(features["input_features"], whole["input_features"][..., :frames], atol=1e-4, rtol=0)
    assert torch.equal(features["feature_attention_mask"], whole["feature_attention_mask"][..., :frames])


def test_a_short_clip_costs_no_300_seconds(omni: Student) -> None:
    audio_S, text = tone(5.0), omni.chat.render("What is it?")

    def cpu(call: object) -> float:
        began = time.process_time()
        call()  # type: ignore[operator]
        return time.process_time() - began

    own = min(cpu(lambda: omni.encode(text, [audio_S])) for _ in range(3))
    padded = min(
        cpu(lambda: omni.processor(text=[text], audio=[audio_S], sampling_rate=16000, return_tensors="pt"))
        for _ in range(2)
    )
    assert own < padded / 5


def test_two_audios_of_unlike_length(omni: Student) -> None:
    audios = [tone(0.5), tone(2.0)]
    text = omni.chat.render("Which is longer?", 2)
    ids, features = omni.encode(text, audios)
    whole = omni.processor(text=[text], audio=audios, sampling_rate=16000, return_tensors="pt")
    assert ids == whole["input_ids"][0].tolist()
    frames = int(whole["feature_attention_mask"].sum(-1).max())
    torch.testing.assert_close(features["input_features"], whole["input_features"][..., :frames], atol=1e-4, rtol=0)


def test_the_vocabulary_is_asked_for_once(student_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = load_student(str(student_dir))
    calls: list[int] = []
    ask = student.tokenizer.get_added_vocab
    monkeypatch.setattr(type(student.tokenizer), "get_added_vocab", lambda self: calls.append(1) or ask())
    for n in range(20):
        student.chat.check_text(f"text {n}")
    before = len(calls)
    assert before <= 1
    ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    with pytest.raises(ValueError, match="special token"):  # of those that were added meanwhile
        student.chat.check_text("so <|audio_think_1|> it is")
    student.prefix(np.zeros(16000, np.float32), "What?")
    assert len(calls) == before + 1
