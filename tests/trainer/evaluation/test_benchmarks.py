"""Each benchmark: records of its official form are imported, and scored by the authors' rule with every flaw, and by
ours.

The records are made here: fields as the authors have them, other content.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from coat.manifests import InputError, Utterance
from coat.manifests.errors import ManifestError
from coat.trainer.evaluation.asking.others import read_others
from coat.trainer.evaluation.baselines import baselines
from coat.trainer.evaluation.benchmark import score
from coat.trainer.evaluation.importing import import_benchmark
from coat.trainer.evaluation.registry import benchmark_names, find_benchmark
from coat.trainer.evaluation.rules.format_checks import CHECKS
from tests.trainer.evaluation.official import imported, rights, verdicts


@pytest.mark.parametrize("name", benchmark_names())
def test_what_every_benchmark_says_of_itself(name: str) -> None:
    benchmark = find_benchmark(name)
    assert benchmark.name == name
    assert benchmark.version
    assert benchmark.licence
    assert benchmark.metrics
    assert benchmark.template_named(None).name == benchmark.template
    assert len({t.name for t in benchmark.templates}) == len(benchmark.templates)
    if name not in ("manifest", "asr"):
        assert benchmark.source.url.startswith("https://")
        assert benchmark.source.revision
        assert benchmark.rows


@pytest.mark.parametrize("name", [n for n in benchmark_names() if n != "manifest"])
def test_a_record_of_another_form_is_refused_with_its_place(tmp_path: Path, name: str) -> None:
    (tmp_path / "r.jsonl").write_text('{"id": "1", "split": "test", "foo": "bar"}\n')
    with pytest.raises((ManifestError, InputError), match=r"r\.jsonl|no audio found"):
        import_benchmark(find_benchmark(name), str(tmp_path / "r.jsonl"), str(tmp_path / "o.jsonl"))
    assert not (tmp_path / "o.jsonl").exists()


MMAR = {
    "id": "q-1", "audio_path": "./mix/a.wav", "question": "Who is late?", "choices": ["A tall man", "The child",
    "Nobody"],
    "answer": "The child", "modality": "mix-sound-speech", "category": "Semantic Layer",
    "sub-category": "Content Analysis",
    "language": "en", "source": "here", "url": "-", "timestamp": "00:01,00:03", "thinking": "The child says so.",
    "cue": ["late"],
    "rubric": {"a": 1},
}  # fmt: skip


def test_mmar(tmp_path: Path) -> None:
    (row,) = imported(tmp_path, "mmar", [MMAR], "mix/a.wav", source="meta.jsonl")
    assert (row.id, row.prompt, row.response, row.choices) == (
        "q-1",
        "Who is late?",
        "The child",
        ("A tall man", "The child", "Nobody"),
    )
    assert row.extra["modality"] == "mix-sound-speech"
    assert not {"thinking", "cue", "rubric", "url"} & set(row.extra)  # how it is found must not get into a prompt
    assert "says so" not in (tmp_path / "mmar.jsonl").read_text()
    assert rights("mmar", row, "the child") == (True, True)
    assert rights("mmar", row, "(B) The child") == (True, True)
    assert rights("mmar", row, "B") == (False, True)  # the letter alone
    assert rights("mmar", row, "It is a child, the child") == (False, True)  # "a" is a word of another choice
    assert rights("mmar", row, "The child or a tall man") == (False, False)
    assert rights("mmar", row, "") == rights("mmar", row, None) == (False, False)


def lettered(**changes: Any) -> dict[str, Any]:
    return {
        "id": "m1", "task_name": "accent", "audio_path": "a.wav", "question": "Which?", "choice_a": "Cat",
        "choice_b": "Dog",
        "choice_c": "Bird", "choice_d": "Cow", "answer_gt": "Bird", "category": "Perception",
        "sub-category": "Paralinguistics",
        "sub-sub-category": "Speaker", "linguistics_sub_discipline": "phonetics", **changes,
    }  # fmt: skip


def test_mmsu(tmp_path: Path) -> None:
    first, twin = imported(
        tmp_path, "mmsu", [lettered(), lettered(id="m2", choice_d="Bird", choice_b="Dog")], "a.wav", source="all.jsonl"
    )
    assert (first.response, first.choices) == ("Bird", ("Cat", "Dog", "Bird", "Cow"))
    assert first.extra["sub-sub-category"] == "Speaker"
    assert rights("mmsu", first, "C") == (True, True)
    assert rights("mmsu", first, "The answer is C.") == (True, True)  # the one before the last
    assert rights("mmsu", first, "Child") == (True, False)  # the first character of a word
    assert rights("mmsu", first, "Bird") == (False, True)  # B, though it says the right one
    assert rights("mmsu", first, "c") == (False, True)
    official, strict = verdicts("mmsu", first, "I think it is a bird!?")
    assert official.unparsed  # theirs leaves it out of the denominator: here it is wrong
    assert (official.right, strict.right) == (False, True)
    assert rights("mmsu", first, "") == (False, False)  # theirs gives it the letter of the record before
    assert rights("mmsu", twin, "D") == (True, True)  # equal texts are both right


def test_mmsu_refuses_an_answer_that_is_no_choice(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"records\.json:2: answer_gt 'Fox' is none of its choices"):
        imported(tmp_path, "mmsu", [lettered(), lettered(id="m2", answer_gt="Fox")], "a.wav")
    (row,) = imported(tmp_path, "mmsu", [lettered(), lettered(id="m2", answer_gt="Fox")], "a.wav", skip_bad=True)
    assert row.id == "m1"


def test_air_bench(tmp_path: Path) -> None:
    two = {"uniq_id": 7, "path": "x.wav", "question": "Is it speech?", "choice_a": "yes", "choice_b": "no",
            "answer_gt": "B",
           "task_name": "Sound_AQA", "dataset_name": "avqa"}  # fmt: skip
    four = {"uniq_id": 8, "path": "g.wav", "question": "When?", "choice_a": "1-2", "choice_b": "2-3",
            "choice_c": "3-4", "choice_d": "4-5",
            "answer_gt": "3-4", "task_name": "Audio_Grounding", "dataset_name": "AudioGrounding"}  # fmt: skip
    audio = ("Sound_AQA_avqa/x.wav", "Audio_Grounding_AudioGrounding/g.flac")
    first, second = imported(tmp_path, "air-bench", [two, four], *audio, source="Foundation_meta.json")
    assert (first.id, first.choices, first.response) == ("7", ("yes", "no"), "no")  # of a letter, the text
    assert second.audio_filepath.endswith("g.flac")  # whatever `path` says
    assert rights("air-bench", first, "B. no") == (True, True)
    assert rights("air-bench", first, "C") == (False, False)  # a letter that it has no choice for
    assert rights("air-bench", first, "no") == (False, True)
    assert rights("air-bench", second, "(C)") == (True, True)  # the last but one
    assert verdicts("air-bench", second, "3-4")[0].unparsed
    prompt = find_benchmark("air-bench").template_named("authors").render("When?", ("1", "2"))
    assert prompt.endswith("When?\nA. 1\nB. 2\nC. None\nD. None")  # as theirs writes it


MUCHO = {
    "id": 415600,
    "prompt": "Question: What drums?\n Options: (A) Ska. (B) Classical. (C) Swing. (D) Rock. \n "
    "The correct answer is: ",
    "answers": ["Ska.", "Classical.", "Swing.", "Rock."], "answer_orders": [3, 2, 0, 1], "dataset": "sdd",
    "genre": "Reggae",
    "reasoning": ["genre and style", "mood"], "knowledge": [], "audio_path": "data/sdd/audio/00/415600.2min.wav",
}  # fmt: skip


def test_muchomusic(tmp_path: Path) -> None:
    other = {**MUCHO, "prompt": MUCHO["prompt"].replace("drums", "mood"), "reasoning": [], "knowledge": ["melody"]}
    first, second = imported(tmp_path, "muchomusic", [MUCHO, other], MUCHO["audio_path"])
    assert first.id != second.id  # an id is a piece, and has several questions
    assert first.id.startswith("415600-")
    assert (first.prompt, first.response) == ("What drums?", "Swing.")  # the right one is where the order is 0
    assert first.extra["reasoning"] == "genre and style + mood"
    assert (first.extra["asks"], second.extra["asks"]) == ("reasoning", "knowledge")
    assert (
        find_benchmark("muchomusic").template_named(None).render(first.prompt or "", first.choices) == MUCHO["prompt"]
    )
    theirs = tmp_path / "outputs.json"  # the official file: two records of one id
    theirs.write_text(json.dumps([{**MUCHO, "model_output": "C"}, {**other, "model_output": "A"}]))
    found, key = read_others(str(theirs), find_benchmark("muchomusic"), "muchomusic", [first, second])
    assert (key, [(p.id, p.answer) for p in found]) == ("model_output", [(first.id, "C"), (second.id, "A")])
    assert rights("muchomusic", first, "C") == (True, True)
    assert rights("muchomusic", first, "(C) Swing.") == (True, True)
    assert rights("muchomusic", first, "Could be") == (True, False)  # a capital anywhere
    assert rights("muchomusic", first, "swing.") == (True, True)
    assert rights("muchomusic", first, "not ska. but swing.") == (False, False)  # the first that it holds
    assert rights("muchomusic", first, "The correct answer is: C") == (True, True)
    assert verdicts("muchomusic", first, "no idea")[0].unparsed


def pro(**changes: Any) -> dict[str, Any]:
    return {"id": "p", "audio_path": ["d/a.wav"], "question": "Q?", "answer": "Low", "choices": ["High", "Low"],
            "category": "sound",
            "length_type": "short", "task_identifier": None, "kwargs": None, **changes}  # fmt: skip


def judgement(*stars: float) -> str:
    names = ("CORRECTNESS", "RELEVANCE", "COMPLETENESS", "CLARITY", "OVERALL")
    return "\n".join(f"{name}: {n} - why" for name, n in zip(names, stars, strict=True))


def test_mmau_pro(tmp_path: Path) -> None:
    form = {
        "id": "i",
        "category": "instruction following",
        "choices": None,
        "task_identifier": "Number Words (range)",
        "kwargs": {"N1": 2, "N2": 3},
    }
    closed, opened, obeyed = imported(
        tmp_path,
        "mmau-pro",
        [pro(), pro(id="o", category="open", choices=None), pro(**form)],
        "d/a.wav",
        source="test.parquet",
    )
    assert rights("mmau-pro", closed, "low") == (True, True)
    assert rights("mmau-pro", closed, "") == (False, False)  # an embedding of nothing is nearest to something
    assert score(find_benchmark("mmau-pro"), opened, "Low") is None
    official, strict = verdicts("mmau-pro", opened, "Low", judgement(5, 4, 4, 5, 4.5))
    assert (official.sums["judge"], strict.sums["judge"]) == ((0.9, 1.0), (0.9, 1.0))
    assert official.sums["performance"] == (0.9, 1.0)  # their headline counts an open answer by its rating
    official, strict = verdicts("mmau-pro", opened, "Low", "CORRECTNESS: 5")
    assert official.sums["judge"] == (pytest.approx(3.5 / 5), 1.0)  # what is missing counts 3 there
    assert (strict.unparsed, strict.sums["judge"]) == (True, (0.0, 1.0))
    official, strict = verdicts("mmau-pro", opened, "Low", judgement(1, 1, 1, 1, 3))
    assert (official.sums["judge"], strict.sums["judge"]) == ((0.2, 1.0), (0.2, 1.0))  # an overall of 3 is not believed
    bold = judgement(1, 1, 1, 1, 1).replace("CLARITY", "**CLARITY**")
    official, strict = verdicts("mmau-pro", opened, "Low", bold)
    assert (official.sums["judge"], strict.sums["judge"]) == ((0.2, 1.0), (0.2, 1.0))
    official, strict = verdicts("mmau-pro", opened, "Low", bold.replace("OVERALL", "IN ALL"))
    assert official.sums["judge"] == (pytest.approx(1.5 / 5), 1.0)  # a bold criterion is not seen
    assert verdicts("mmau-pro", opened, "Low", "I cannot rate it")[0].sums["judge"] == (0.6, 1.0)
    request = find_benchmark("mmau-pro").judge_request(opened, "an {answer}")
    assert request is not None
    assert all(part in request for part in ("Q?", "Low", "an {answer}", "OVERALL: N"))
    assert verdicts("mmau-pro", opened, None)[0].sums["performance"] == (0.0, 1.0)
    assert rights("mmau-pro", obeyed, "two words") == (True, True)
    assert rights("mmau-pro", obeyed, "one two three four") == (False, False)
    with pytest.raises(ManifestError, match="2 audio files in one row"):
        imported(tmp_path, "mmau-pro", [pro(audio_path=["a.wav", "b.wav"])], source="two.parquet")


@pytest.mark.parametrize(
    ("task", "parameters", "good", "bad"),
    [
        ("Include Keywords", {"keywords": "cat, Dog"}, "a DOG and a cat", "a dog"),
        ("Keyword Frequency", {"keyword": "cat", "N": 2}, "Cat, cat; cats", "cat"),
        ("Forbidden Words", {"forbidden_words": "cat, dog"}, "bird", "catalogue"),
        ("Number Paragraphs", {"N": 2}, "one *** two", "one\n\ntwo"),
        ("Number Words (at least)", {"N": 3}, "a b c", "a b"),
        ("Number Words (at most)", {"N": 2}, "a b", "a b c"),
        ("Number Sentences (at least)", {"N": 2}, "One. Two!", "One, two."),
        ("Number Sentences (at most)", {"N": 1}, "One, two.", "One. Two."),
        ("Number Sentences (range)", {"N1": 1, "N2": 2}, "One? Two.", "1. 2. 3. 4."),
        ("Number Sentences (at most)", {"N": 2}, "Dr. Su left at 3.5 p.m. by car... alone. Mr. X did, too", "A. B? C"),
        ("Postscript", {"postscript_marker": "P.S."}, "Bye. PS: hm", "Bye."),
        ("Number Placeholder", {"N": 2}, "[a] and [b]", "[a]"),
        ("Number Bullets", {"N": 2}, "* a\n* b", "- a\n- b"),
        ("Title", {}, "<<T>> x", "# T"),
        ("Minimum Number Highlighted Section", {"N": 1}, "this *is* it", "no"),
        ("Multiple Sections", {"N": 2, "section_splitter": "##"}, "## a ## b", "a"),
        ("Repeat Prompt", {"prompt": "Say it"}, "say it: it", "it"),
        ("Two Responses", {}, "a ****** b", "a ****** A"),
        ("All Uppercase", {}, "ABC!", "ABc"),
        ("All Lowercase", {}, "abc!", "aBc"),
        ("All-capital Words (at least)", {"N": 1}, "a BIG one", "a Big one"),
        ("All-capital Words (at most)", {"N": 1}, "a BIG one", "A BIG one"),
        ("All-capital Words (range)", {"N1": 1, "N2": 2}, "a BIG ONE", "none"),
        ("Start Checker", {"start_phrase": "Well, then"}, "WELL then: x", "then"),
        ("End Checker", {"end_phrase": "the end."}, "It is the end!", "the end is near"),
        ("Quotation", {}, ' "x" ', "x"),
        ("No Commas", {}, "a b", "a, b"),
        ("Number Words (range)", {"N1": 1}, "a", ""),
    ],
)  # fmt: skip
def test_form_of_instructions(task: str, parameters: dict[str, Any], good: str, bad: str) -> None:
    assert CHECKS[task](good, parameters)
    assert not CHECKS[task](bad, parameters)


def test_baselines_say_what_the_rule_reads(tmp_path: Path) -> None:
    """Always the first: by letter where the rule wants letters, by text where it wants words."""
    rows = imported(
        tmp_path, "mmsu", [lettered(), lettered(id="2", answer_gt="Cat"), lettered(id="3", answer_gt="Cat")], "a.wav"
    )
    found = baselines(find_benchmark("mmsu"), rows)
    assert (
        found["first choice"].official["accuracy"] == found["first choice"].strict["accuracy"] == pytest.approx(2 / 3)
    )
    assert found["most common answer"].strict["accuracy"] == pytest.approx(
        2 / 3
    )  # of the other rows, cat and bird, or cat and cat
    asr = baselines(find_benchmark("asr"), [Utterance(id="t", audio="a", audio_filepath="a", response="hello there")])
    assert asr["no answer"].strict["wer"] == 1.0
    balanced = [
        Utterance(id=str(i), audio="a", audio_filepath="a", prompt="?", choices=("x", "y"), response="xy"[i % 2])
        for i in range(20)
    ]
    assert (
        baselines(find_benchmark("manifest"), balanced)["most common answer"].strict["accuracy"] == 0.5
    )  # not of others alone


def test_import_says_what_is_missing_and_downloads_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        import_benchmark(find_benchmark("mmar"), str(tmp_path / "none.jsonl"), str(tmp_path / "o.jsonl"))
    with pytest.raises(ManifestError, match=r"records\.json:1: .*a\.wav"):
        imported(tmp_path, "mmar", [MMAR])
    rows = imported(tmp_path, "mmar", [MMAR], read_headers=False)
    assert rows[0].duration is None


def test_manifests_have_no_importer(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="there is no importer"):
        imported(tmp_path, "manifest", [MMAR], "mix/a.wav")
