"""Tiny students are as large as was asked."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from coat.manifests import InputError, Utterance
from coat.trainer.tiny_students.make import make_tiny_student, texts_of


@pytest.mark.parametrize(("sizes", "std"), [({}, 0.02), ({"weights_std": 0.1}, 0.1)])
def test_all_matrices_have_the_standard_deviation(sizes: dict[str, Any], std: float, tmp_path: Path) -> None:
    folder = make_tiny_student(tmp_path / "student", hidden=64, heads=4, **sizes)
    weights = load_file(folder / "model.safetensors")
    matrices = {name: w for name, w in weights.items() if w.ndim > 1 and "embed_" not in name}
    assert len(matrices) > 20
    (embeddings,) = (w for name, w in weights.items() if name.endswith("embed_tokens.weight"))
    assert float(embeddings.std()) == pytest.approx(0.02, rel=0.1)
    assert all(float(w.std()) == pytest.approx(std, rel=0.1) for w in matrices.values())


def test_weights_of_no_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights_std 0"):
        make_tiny_student(tmp_path / "student", weights_std=0.0)


@pytest.mark.parametrize("name", ["qwen2-audio", "audio-flamingo-3"])
def test_words_of_a_manifest_become_tokens(name: str, tmp_path: Path) -> None:
    rows = [
        Utterance(
            id="a", audio="a.wav", audio_filepath="a.wav", prompt="Does the pitch rise or fall?", response="rising"
        ),
        Utterance(
            id="b",
            audio="b.wav",
            audio_filepath="b.wav",
            text="beep beep",
            extra={"turns": [["What is it?", "a bell"]]},
        ),
    ]
    texts = texts_of(rows)
    assert texts == ("Does the pitch rise or fall?", "rising", "beep beep", "What is it?", "a bell")
    folder = make_tiny_student(tmp_path / "student", name=name, texts=texts)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    words = ["Does", "Ġthe", "Ġpitch", "Ġrise", "Ġor", "Ġfall", "?"]
    assert tokenizer.tokenize(texts[0]) == words
    assert tokenizer.tokenize("user\nrising") == ["user", "Ċ", "rising"]
    unseen = "Übermäßig, 42 クジラ\t"
    assert tokenizer.decode(tokenizer.encode(unseen)) == unseen
