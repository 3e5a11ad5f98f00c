"""Rows that were trained on are named: by their sound, whatever its file is called, and by their question."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests import ShardIndex, Utterance
from coat.trainer.evaluation.checks.questions import Questions
from coat.trainer.evaluation.evaluation import evaluate
from tests.trainer.evaluation.helpers import RATE, Listener, settings_of, write_questions
from tests.trainer.helpers import toy_sample, write_shards


def of_16_bits(audio: np.ndarray) -> np.ndarray:
    """As a file has it that a corpus is made of."""
    return (np.round(audio * 32767) / 32768).astype(np.float32)


def test_leaks(tmp_path: Path) -> None:
    """Toy shards say nothing of what was heard: their audio is decoded. Two rows are of it, one of these as WAV."""
    audios = [of_16_bits(toy_sample(i, seconds=0.4 + 0.1 * i)["audio"]) for i in range(3)]
    shards = write_shards(tmp_path / "shards", [toy_sample(i, audio=audio) for i, audio in enumerate(audios)])
    data = write_questions(tmp_path / "data", rows=5)
    for name, i in (("q1", 2), ("q4", 0)):
        soundfile.write(tmp_path / "data" / f"{name}.wav", audios[i], RATE, subtype="PCM_16")
    (tmp_path / "data" / "q3.wav").unlink()
    settings = settings_of(data, "listener", guard=0, train_shards=[str(shards)])
    found = evaluate(settings, tmp_path / "e", lambda _: Listener())
    assert found
    leaks = found.benchmarks["manifest"].leaks
    assert leaks
    assert (leaks.audio, leaks.samples, leaks.not_compared) == (["q1", "q4"], 3, 1)
    assert leaks.question == [f"q{i}" for i in range(5)]  # "High or low?"
    without = evaluate(settings_of(data, "listener", guard=0), tmp_path / "e", lambda _: Listener())
    assert without
    assert without.benchmarks["manifest"].leaks is None


def test_what_samples_parquet_says_is_used(make_built_shards: Path, tmp_path: Path) -> None:
    assert ShardIndex.read(str(make_built_shards)).samples_xxh3
    data = write_questions(tmp_path / "data", rows=3)
    settings = settings_of(data, "listener", guard=0, train_shards=[str(make_built_shards)])
    found = evaluate(settings, tmp_path / "e", lambda _: Listener())
    assert found
    leaks = found.benchmarks["manifest"].leaks
    assert leaks
    assert leaks.audio == ["q0", "q1"]


@pytest.fixture
def make_built_shards(tmp_path: Path) -> Path:
    """By `build-shards` itself, of the first two questions at another rate."""
    from coat.manifests import Manifest
    from coat.pipeline.cluster.resources import Resources
    from coat.pipeline.extraction.extraction import extract
    from coat.pipeline.shards.build import build_shards

    manifest = write_questions(tmp_path / "corpus", rows=2)
    assert len(Manifest.read(str(manifest))) == 2
    extract(str(manifest), str(tmp_path / "store"), ["mel"], resources=Resources(workers=0))
    build_shards(str(manifest), str(tmp_path / "store"), ["mel"], str(tmp_path / "built"), sample_rate=8000)
    return tmp_path / "built"


def row(prompt: str, *choices: str) -> Utterance:
    return Utterance(id="r", audio="", audio_filepath="", prompt=prompt, choices=choices)


BARK = row("Which animal is heard first?", "A dog", "A cat", "Two dogs")


@pytest.mark.parametrize(
    ("prompt", "beside"),
    [
        ("which animal is heard first", ()),  # the question alone, without its choices
        ("Which animal is heard first?\nChoices: A dog, A cat, Two dogs", ()),
        ("Which animal is heard first?", ("Two dogs", "A cat", "A dog")),  # choices kept apart, in another order
        (
            "Choose the best answer.\nQuestion: Which animal is heard first?\n\nA. a cat\nB. Two dogs\nC. a dog\n"
            "Reply with the letter only.",
            (),
        ),
        (
            "Which animal is heard first? Select one option from the provided choices.\n['A dog', 'A cat', 'Two dogs']",
            (),
        ),
        ("Why?", ("Which animal is heard first? (a) a dog (b) a cat (c) two dogs", "Two dogs")),  # in a turn before
    ],
)
def test_a_question_is_found_under_another_template(prompt: str, beside: tuple[str, ...]) -> None:
    questions = Questions([BARK, row("Which animal?", "A dog", "A cat")])
    questions.look_in(prompt, beside)
    assert questions.found(BARK)
    assert not questions.found(row("Which animal?", "A dog", "A cat"))


@pytest.mark.parametrize(
    ("asked", "prompt"),
    [
        (BARK, "Which animal is heard first? (A) a dog (B) a cat (C) a bird"),  # other choices: another question
        (BARK, "Which animal is heard last? (A) a dog (B) a cat (C) two dogs"),
        (BARK, "Which animal is heard firsthand? A dog, a cat, two dogs"),  # whole words
        (row("What is heard?"), "What is heard? Think step by step."),  # stands in too many texts
        (row("Is it a dog or a cat?", "a dog", "a cat"), "Is it a dog or a cat? Say why you think so."),
        (row(""), "Anything"),
    ],
)
def test_another_question_is_not_taken_for_it(asked: Utterance, prompt: str) -> None:
    questions = Questions([asked])
    questions.look_in(prompt)
    assert not questions.found(asked)


def test_a_leak_under_another_template(tmp_path: Path) -> None:
    """In real shards: two questions of three, one with letters and one whose choices are kept apart."""
    data = write_questions(tmp_path / "data", rows=3)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for i, line in enumerate(rows):
        line |= {
            "prompt": f"How many bells ring in town {i}?",
            "choices": ["one", "two", "a hundred"],
            "response": "one",
        }
    data.write_text("".join(json.dumps(line) + "\n" for line in rows))
    lettered = "Listen well. How many bells ring in town 0? (A) A hundred (B) two (C) one. Give the letter."
    metas = [{"prompt": lettered, "response": "C"}, {"prompt": "How many bells ring in town 2?", "response": "one",
              "choices": ["two", "one", "a hundred"]}]  # fmt: skip
    shards = write_shards(tmp_path / "shards", [toy_sample(7 + i, meta=meta) for i, meta in enumerate(metas)])
    settings = settings_of(data, "listener", guard=0, train_shards=[str(shards)])
    found = evaluate(settings, tmp_path / "e", lambda _: Listener())
    assert found
    leaks = found.benchmarks["manifest"].leaks
    assert leaks
    assert (leaks.audio, leaks.question) == ([], ["q0", "q2"])
