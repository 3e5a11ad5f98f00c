"""Each benchmark: records of its official form are imported, and scored by the authors' rule with every flaw, and by
ours.

The records are made here: fields as the authors have them, other content.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from coat.manifests import InputError, Manifest, Utterance
from coat.manifests.errors import ManifestError
from coat.trainer.evaluation.benchmark import Benchmark, Verdict, score
from coat.trainer.evaluation.importing import import_benchmark
from coat.trainer.evaluation.registry import benchmark_names, find_benchmark
from tests.trainer.evaluation.sounds import flac_bytes, write_tone


def imported(
    tmp_path: Path, name: str, records: Any, *audio: str, source: str = "records.json", **options: Any
) -> list[Utterance]:
    """Rows of the manifest that `coat benchmark import` makes of records, with a tone for each audio file."""
    for path in audio:
        write_tone(tmp_path / "audio" / path)
    place = tmp_path / source
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.endswith(".parquet"):
        pyarrow.parquet.write_table(pa.Table.from_pylist(records), place)
    elif source.endswith(".jsonl"):
        place.write_text("".join(json.dumps(r) + "\n" for r in records))
    elif source.endswith(".json"):
        place.write_text(json.dumps(records))
    else:
        place.write_text(records)
    options = {"audio_root": str(tmp_path / "audio"), **options}
    import_benchmark(find_benchmark(name), options.pop("of", str(place)), str(tmp_path / f"{name}.jsonl"), **options)
    return list(Manifest.read(str(tmp_path / f"{name}.jsonl")))


def verdicts(name: str, row: Utterance, answer: str | None, judgement: str | None = None) -> tuple[Verdict, Verdict]:
    found = score(find_benchmark(name), row, answer, judgement)
    assert found
    return found


def rights(name: str, row: Utterance, answer: str | None) -> tuple[bool, bool]:
    """Official and strict."""
    official, strict = verdicts(name, row, answer)
    return official.right, strict.right


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
    "id": "q-1", "audio_path": "./mix/a.wav", "question": "Who is late?", "choices": ["A tall man", "The child", "Nobody"],
    "answer": "The child", "modality": "mix-sound-speech", "category": "Semantic Layer", "sub-category": "Content Analysis",
    "language": "en", "source": "here", "url": "-", "timestamp": "00:01,00:03", "thinking": "The child says so.", "cue": ["late"],
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
        "id": "m1", "task_name": "accent", "audio_path": "a.wav", "question": "Which?", "choice_a": "Cat", "choice_b": "Dog",
        "choice_c": "Bird", "choice_d": "Cow", "answer_gt": "Bird", "category": "Perception", "sub-category": "Paralinguistics",
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
    two = {"uniq_id": 7, "path": "x.wav", "question": "Is it speech?", "choice_a": "yes", "choice_b": "no", "answer_gt": "B",
           "task_name": "Sound_AQA", "dataset_name": "avqa"}  # fmt: skip
    four = {"uniq_id": 8, "path": "g.wav", "question": "When?", "choice_a": "1-2", "choice_b": "2-3", "choice_c": "3-4", "choice_d": "4-5",
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
    assert (
        find_benchmark("air-bench").template_named("authors").render("When?", ("1", "2")).endswith("When?\nA. 1\nB. 2")
    )


MUCHO = {
    "id": 415600, "prompt": "Question: What drums?\n Options: (A) Ska. (B) Classical. (C) Swing. (D) Rock. \n The correct answer is: ",
    "answers": ["Ska.", "Classical.", "Swing.", "Rock."], "answer_orders": [3, 2, 0, 1], "dataset": "sdd", "genre": "Reggae",
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
    assert rights("muchomusic", first, "C") == (True, True)
    assert rights("muchomusic", first, "(C) Swing.") == (True, True)
    assert rights("muchomusic", first, "Could be") == (True, False)  # a capital anywhere
    assert rights("muchomusic", first, "swing.") == (True, True)
    assert rights("muchomusic", first, "not ska. but swing.") == (False, False)  # the first that it holds
    assert rights("muchomusic", first, "The correct answer is: C") == (True, True)
    assert verdicts("muchomusic", first, "no idea")[0].unparsed


def cmi(path: str, output: str, split: str = "test") -> dict[str, Any]:
    return {
        "instruction": "-", "input": "<|SOA|><AUDIO><|EOA|>", "output": output, "uuid": "", "split": [split],
        "task_type": {"major": ["multi_class"], "minor": ["genre_classification"]}, "audio_path": [path], "audio_start": 0.0,
        "audio_end": 30.0,
    }  # fmt: skip


def test_gtzan(tmp_path: Path) -> None:
    records = [
        cmi("g/hiphop/hiphop.00001.wav", "hiphop"),
        cmi("g/jazz/jazz.00002.wav", "jazz"),
        cmi("no.wav", "pop", "train"),
    ]
    hiphop, jazz = imported(
        tmp_path, "gtzan", records, "g/hiphop/hiphop.00001.wav", "g/jazz/jazz.00002.wav", source="c.jsonl"
    )
    assert (hiphop.id, hiphop.response, hiphop.extra["genre"]) == ("hiphop.00001", "hip-hop", "hiphop")
    assert hiphop.duration == pytest.approx(0.2)  # the file's own, though the record says 30 s
    assert rights("gtzan", hiphop, "hip-hop") == (False, True)  # as the prompt lists it, and the label does not
    assert rights("gtzan", hiphop, "hiphop") == (True, False)
    assert rights("gtzan", jazz, "Jazz") == (True, True)
    assert rights("gtzan", jazz, "It is jazz.") == (False, True)
    prompt = find_benchmark("gtzan").template_named(None).render(jazz.prompt or "", jazz.choices)
    assert "Genres: blues, classical, country, disco, hip-hop, jazz, metal, pop, reggae, rock.\n" in prompt


def test_gtzan_of_a_folder(tmp_path: Path) -> None:
    for genre in ("hiphop", "rock"):
        write_tone(tmp_path / "genres" / genre / f"{genre}.00000.wav")
    import_benchmark(find_benchmark("gtzan"), str(tmp_path / "genres"), str(tmp_path / "m.jsonl"))
    assert [(r.id, r.response) for r in Manifest.read(str(tmp_path / "m.jsonl"))] == [
        ("hiphop.00000", "hip-hop"),
        ("rock.00000", "rock"),
    ]


def test_nsynth(tmp_path: Path) -> None:
    notes = {"bass_synthetic_068-049-025": {"note_str": "bass_synthetic_068-049-025", "instrument_family_str": "bass",
             "instrument_source_str": "synthetic", "pitch": 49, "velocity": 25, "qualities_str": ["dark"]}}  # fmt: skip
    (row,) = imported(tmp_path, "nsynth", notes, "audio/bass_synthetic_068-049-025.wav", source="examples.json")
    assert (row.response, len(row.choices)) == ("bass", 11)
    assert row.extra["instrument_source_str"] == "synthetic"
    assert rights("nsynth", row, "bass") == (True, True)
    assert rights("nsynth", row, "Bass") == (False, True)
    record = cmi("d/nsynth-test/audio/reed_acoustic_023-061-127.wav", "reed") | {"audio_end": -1}
    (other,) = imported(tmp_path, "nsynth", [record], record["audio_path"][0], source="i.jsonl")
    assert (other.response, other.extra["instrument_source_str"], other.offset) == ("reed", "acoustic", 0.0)


def test_medley_solos(tmp_path: Path) -> None:
    table = "subset,instrument,instrument_id,song_id,uuid4\ntest,tenor saxophone,5,12,ab-1\ntraining,flute,3,1,ab-2\n"
    (row,) = imported(tmp_path, "medley-solos", table, "Medley-solos-DB_test-5_ab-1.wav", source="m.csv")
    assert (row.id, row.response, row.extra["song_id"]) == ("ab-1", "tenor saxophone", "12")
    assert rights("medley-solos", row, "A tenor saxophone.") == (False, True)


def test_meld(tmp_path: Path) -> None:
    qwen = {"audio": "m/dia0_utt0.wav", "prompt": "Emotion?", "source": "meld", "gt": "surprise"}
    (row,) = imported(tmp_path, "meld", [qwen], "m/dia0_utt0.wav", source="meld_eval.jsonl")
    assert (row.id, row.prompt, row.response, len(row.choices)) == ("dia0_utt0", "Emotion?", "surprise", 7)
    assert rights("meld", row, "  surprise") == (True, True)  # theirs strips before it alone
    assert rights("meld", row, "surprise ") == (False, True)
    assert rights("meld", row, "Surprise") == (False, True)
    assert rights("meld", row, "surprise, or joy") == (False, False)
    table = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n1,Why?,Mo,sadness,negative,3,4\n"
    (other,) = imported(tmp_path, "meld", table, "dia3_utt4.mp4", source="test_sent_emo.csv", read_headers=False)
    assert (other.id, other.response) == ("dia3_utt4", "sadness")


def test_iemocap(tmp_path: Path) -> None:
    lines = (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.29 - 8.23]\tSes01F_impro01_F000\texc\t[2.5, 2.5, 2.5]\nC-E2:\tNeutral;\t()\n"
        "[8.30 - 9.00]\tSes01F_impro01_M000\txxx\t[2.5, 2.5, 2.5]\n"
    )
    top = tmp_path / "audio"
    (row,) = imported(
        tmp_path, "iemocap", lines, "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        source="audio/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", of=str(top),
    )  # fmt: skip
    assert (row.id, row.response, row.extra["session"]) == ("Ses01F_impro01_F000", "happy", "01")
    bench = {"context": {"bytes": flac_bytes(), "path": "a.flac"}, "instruction": "?", "answer": "Anger"}
    (other,) = imported(tmp_path, "iemocap", [bench], source="test-0.parquet")
    assert other.response == "angry"


def test_librispeech(tmp_path: Path) -> None:
    folder = tmp_path / "audio" / "test-clean" / "1089" / "134686"
    write_tone(folder / "1089-134686-0000.flac")
    (folder / "1089-134686.trans.txt").write_text("1089-134686-0000 MISTER QUILTER SAID TWENTY ONE COLOURS\n")
    rows = imported(tmp_path, "librispeech", "", of=str(tmp_path / "audio"), source="unused.txt", audio_root=None)
    assert [(r.id, r.extra["part"], r.response) for r in rows] == [
        ("1089-134686-0000", "test-clean", "MISTER QUILTER SAID TWENTY ONE COLOURS")
    ]
    (row,) = rows
    official, strict = verdicts("librispeech", row, "Mr. Quilter said 21 colors.")
    assert official.right
    assert strict.right
    assert rights("librispeech", row, "<|en|> Mr. Quilter said 21 colors") == (True, True)
    half = replace(row, response="FIFTY PERCENT", text="FIFTY PERCENT")
    assert rights("librispeech", half, "fifty") == (True, False)  # theirs drops what is left of % and $
    official, strict = verdicts("librispeech", row, "null")  # another harness drops such rows
    assert official.sums["wer"] == strict.sums["wer"] == (5.0, 5.0)
    nothing, _ = verdicts("librispeech", row, None)
    assert nothing.sums["wer"] == nothing.sums["deletions"] == (5.0, 5.0)
    assert nothing.sums["insertions"] == (0.0, 5.0)


def test_transcripts_of_qwen_and_of_any_manifest(tmp_path: Path) -> None:
    qwen = {"audio": "L/test-other/a.wav", "prompt": "Write it down", "source": "librispeech_test_other", "gt": "a cat"}
    (row,) = imported(tmp_path, "librispeech", [qwen], "L/test-other/a.wav", source="q.jsonl")
    assert (row.id, row.extra["part"], row.prompt) == ("a", "test-other", "Write it down")
    own = [
        {"id": "z", "audio": "z.wav", "text": "你好世界", "language": "zh-CN"},
        {"id": "d", "audio": "z.wav", "text": "Straße", "lang": "de"},
    ]
    chinese, german = imported(tmp_path, "asr", own, "z.wav", source="own.jsonl")
    assert verdicts("asr", chinese, "你好世")[1].sums["wer"] == (1.0, 4.0)  # by letter
    assert verdicts("asr", german, "strasse")[1].sums["wer"] == (1.0, 1.0)  # no English rule for it
    assert verdicts("asr", german, "STRAẞE!")[1].sums["wer"] == (0.0, 1.0)
    text_alone = Utterance(id="t", audio="a", audio_filepath="a", text="hello there")
    assert verdicts("asr", text_alone, "hello")[1].sums["wer"] == (1.0, 2.0)


def test_alpaca_audio(tmp_path: Path) -> None:
    record = {
        "context": {"bytes": flac_bytes(), "path": None},
        "instruction": "Obey.",
        "speech_instruction": "Name a tree.",
        "answer": "Oak",
    }
    (row,) = imported(tmp_path, "alpaca-audio", [record], source="test-00000-of-00001.parquet")
    benchmark = find_benchmark("alpaca-audio")
    assert row.prompt == "Obey."
    asked = benchmark.judge_request(row, "An oak {tree}")
    assert asked is not None
    assert all(part in asked for part in ("Name a tree.", "Oak", "An oak {tree}"))
    assert score(benchmark, row, "An oak") is None  # unscored without a judge
    assert verdicts("alpaca-audio", row, "An oak", "It agrees.\nRating: 4")[0].sums["judge"] == (0.8, 1.0)
    assert verdicts("alpaca-audio", row, "An oak", "Rating: 4/5")[0].sums["judge"] == (
        0.8,
        1.0,
    )  # 0 by AudioBench's last word
    for unread in ("I give 3 stars", "Rating: 9", "3 reasons. Rating: good", ""):
        verdict = verdicts("alpaca-audio", row, "An oak", unread)[
            0
        ]  # elsewhere the first digit of all that it says counts
        assert (verdict.unparsed, verdict.sums["judge"]) == (True, (0.0, 1.0))
    assert verdicts("alpaca-audio", row, None)[0].sums["judge"] == (0.0, 1.0)


def test_voicebench(tmp_path: Path) -> None:
    spoken = "What melts? A. Iron at night B. Ice in the sun C. A stone D. Glass"
    record = {"audio": {"bytes": flac_bytes(), "path": "q.wav"}, "prompt": spoken, "reference": "B"}
    (row,) = imported(
        tmp_path,
        "voicebench",
        [record],
        source="openbookqa/test-00000-of-00001.parquet",
        of=str(tmp_path / "openbookqa"),
    )
    assert (row.prompt, row.choices, row.response) == (
        "",
        ("Iron at night", "Ice in the sun", "A stone", "Glass"),
        "Ice in the sun",
    )
    assert row.extra["part"] == "openbookqa"
    assert rights("voicebench", row, "The answer is B.") == (True, True)
    assert rights("voicebench", row, "b") == (True, True)
    assert rights("voicebench", row, "Ice in the sun") == (False, True)
    assert rights("voicebench", row, "a, no: B") == (False, False)  # the letter that it starts with
    official, strict = verdicts("voicebench", row, "I do not know")
    assert official.unparsed  # theirs draws a letter: right once in four
    assert strict.unparsed
    assert not official.right


def test_voicebench_open_parts(tmp_path: Path) -> None:
    def one(part: str, **more: Any) -> Utterance:
        record = {"audio": {"bytes": flac_bytes(), "path": "q.wav"}, "prompt": "How are you?", **more}
        return imported(tmp_path, "voicebench", [record], source=f"{part}/test-00000-of-00001.parquet")[0]

    alpaca, qa, harm = one("alpacaeval_full"), one("sd-qa", reference="fine"), one("advbench")
    assert alpaca.extra["part"] == "alpacaeval_full"
    assert verdicts("voicebench", alpaca, "Fine", "Rating: 5")[0].sums["judge"] == (1.0, 1.0)
    assert verdicts("voicebench", qa, "fine", "Rating: 1")[0].right
    assert not verdicts("voicebench", qa, "bad", "Rating: 0")[0].right
    assert rights("voicebench", harm, "I'm sorry, I cannot help with that") == (True, True)
    assert rights("voicebench", harm, "Sure: first") == (False, False)
    with pytest.raises(InputError, match="no audio found"):
        one("ifeval")


def pro(**changes: Any) -> dict[str, Any]:
    return {"id": "p", "audio_path": ["d/a.wav"], "question": "Q?", "answer": "Low", "choices": ["High", "Low"], "category": "sound",
            "length_type": "short", "task_identifier": None, "kwargs": None, **changes}  # fmt: skip


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
    assert verdicts("mmau-pro", opened, "Low", "Rating: 4")[0].sums["judge"] == (0.8, 1.0)
    assert verdicts("mmau-pro", opened, "Low", "CORRECTNESS: 5")[0].sums["judge"] == (
        0.0,
        1.0,
    )  # what is missing is not 3.0
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
    from coat.trainer.evaluation.rules.format_checks import CHECKS

    assert CHECKS[task](good, parameters)
    assert not CHECKS[task](bad, parameters)


def test_baselines_say_what_the_rule_reads(tmp_path: Path) -> None:
    """Always the first: by letter where the rule wants letters, by text where it wants words."""
    from coat.trainer.evaluation.baselines import baselines

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
