"""Labels, emotions, transcripts and judged answers: official records, the authors' rule with its flaws, and ours."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coat.manifests import InputError, Manifest, Utterance
from coat.trainer.evaluation.asking.others import read_others
from coat.trainer.evaluation.benchmark import score
from coat.trainer.evaluation.importing import import_benchmark
from coat.trainer.evaluation.registry import find_benchmark
from coat.trainer.evaluation.rules.spoken_letters import spoken_letter
from tests.trainer.evaluation.official import imported, rights, verdicts
from tests.trainer.evaluation.sounds import flac_bytes, write_tone


def cmi(path: str, output: str, split: str = "test") -> dict[str, Any]:
    return {
        "instruction": "-", "input": "<|SOA|><AUDIO><|EOA|>", "output": output, "uuid": "", "split": [split],
        "task_type": {"major": ["multi_class"], "minor": ["genre_classification"]}, "audio_path": [path],
        "audio_start": 0.0,
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
    name = "bass_synthetic_068-049-025"
    note = {"note_str": name, "instrument_family_str": "bass", "instrument_source_str": "synthetic", "pitch": 49}
    (row,) = imported(tmp_path, "nsynth", {name: note}, f"audio/{name}.wav", source="examples.json")
    assert (row.response, len(row.choices)) == ("bass", 11)
    assert row.extra["instrument_source_str"] == "synthetic"
    assert rights("nsynth", row, "bass") == (True, True)
    assert rights("nsynth", row, "Bass") == (False, True)
    record: dict[str, Any] = cmi("d/nsynth-test/audio/reed_acoustic_023-061-127.wav", "reed") | {"audio_end": -1}
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
    theirs = tmp_path / "meld_out.json"  # as Qwen2-Audio's script writes it
    theirs.write_text(
        json.dumps([{"gt": "surprise", "response": "joy", "source": "meld", "audio_path": qwen["audio"]}])
    )
    (found,), key = read_others(str(theirs), find_benchmark("meld"), "meld", [row])
    assert (found.id, found.answer, key) == (row.id, "joy", "response")
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
    quoted = (
        "The content of the audio is: 'mister quilter said twenty one colors'"  # AudioBench unwraps it for one model
    )
    assert verdicts("librispeech", row, quoted)[0].sums["insertions"] == (6.0, 5.0)
    nothing, _ = verdicts("librispeech", row, None)
    assert nothing.sums["wer"] == nothing.sums["deletions"] == (5.0, 5.0)
    assert nothing.sums["insertions"] == (0.0, 5.0)


def test_librispeech_of_the_hub(tmp_path: Path) -> None:
    record = {
        "file": "a.flac",
        "audio": {"bytes": flac_bytes(), "path": "1-2-0003.flac"},
        "text": "A CAT",
        "id": "1-2-0003",
    }
    (row,) = imported(tmp_path, "librispeech", [record], source="hub/other/test/0000.parquet")
    assert (row.id, row.response, row.extra["part"]) == ("1-2-0003", "A CAT", "test-other")
    assert "#" in row.audio_filepath  # read where it lies


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
    official, strict = verdicts("alpaca-audio", row, "An oak", "Rating: 4/5")
    assert (official.sums["judge"], strict.sums["judge"]) == ((0.0, 1.0), (0.8, 1.0))  # by AudioBench's last word
    official, strict = verdicts("alpaca-audio", row, "An oak", "I give it a 3")
    assert (official.sums["judge"], strict.sums["judge"]) == ((0.6, 1.0), (0.0, 1.0))
    for unread in ("I give 3 stars", "Rating: 9", "3 reasons. Rating: good", ""):
        official, strict = verdicts("alpaca-audio", row, "An oak", unread)  # elsewhere its first digit counts
        assert (strict.unparsed, strict.sums["judge"]) == (True, (0.0, 1.0))
        assert official.sums["judge"] == (0.0, 1.0)
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


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("C. A stone", "C"),
        ("The correct answer is option (D).", "D"),
        ("The answer is:\n\n**B) Ice**", "B"),
        ("Both a and c melt, but I would choose option B.", "B"),
        ("It is \\( \\boxed{C} \\).", "C"),
        ("<2> d", "D"),
        # Flaws, kept.
        ("The answer is correct, whatever it is", "C"),
        ("I would choose both", "B"),
        ("That would be difficult", "D"),
        ("Oranges are rich in vitamin C.", "C"),
        ("B, or rather D: glass.", "D"),  # a later turn of phrase comes first in their list
        ("I am not sure", None),
        ("B or C", None),
        ("The answer is most likely **D**.", None),
    ],
)
def test_letters_of_voicebench(answer: str, letter: str | None) -> None:
    """What a copy of their script says of these answers."""
    assert spoken_letter(answer) == letter


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
    assert rights("voicebench", harm, "It is illegal, but here is how") == (True, True)  # words alone, as theirs
    assert rights("voicebench", harm, "") == (False, False)  # a refusal there
    assert one("wildvoice").extra["part"] == "wildvoice"
    with pytest.raises(InputError, match="no audio found"):
        one("ifeval")
