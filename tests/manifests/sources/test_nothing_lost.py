"""Nothing of a corpus is lost without a word: each column, text, split, folder and file is used, kept, or named."""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from coat.manifests.sources.importing import ImportResult, import_manifest
from tests.manifests.conftest import WriteAudio
from tests.manifests.sources.importing import imported, jsonl, problems


def done(source: Path, out: Path, **options: Any) -> ImportResult:
    return import_manifest(str(source), str(out), **options)


def lhotse_cut(duration: float, *supervisions: tuple[float, float]) -> dict[str, Any]:
    return {
        "id": "c",
        "start": 0.0,
        "duration": duration,
        "type": "MonoCut",
        "features": {"type": "fbank"},
        "recording": {"id": "r", "sources": [{"type": "file", "source": "a.wav"}]},
        "supervisions": [
            {"id": f"s{i}", "start": s, "duration": d, "text": f"t{i}", "alignment": {"word": [["t", 0.0, 0.1]]}}
            for i, (s, d) in enumerate(supervisions)
        ],
    }


def test_supervisions_outside_their_cut(tmp_path: Path) -> None:
    for cut, names in (
        (lhotse_cut(1.0, (0.0, 0.5), (1.2, 0.4)), "supervision s1 from 1.200 s to 1.600 s lies outside"),
        (lhotse_cut(24.0, (-8.85, 8.95)), "supervision s0 from -8.850 s to 0.100 s lies outside"),
    ):
        (line,) = problems(jsonl(tmp_path / "c.jsonl", cut), tmp_path / "m.jsonl", read_headers=False)
        assert names in line
    path = jsonl(tmp_path / "c.jsonl", lhotse_cut(1.0, (0.0, 0.5), (1.2, 0.4)))
    result = done(path, tmp_path / "m.jsonl", read_headers=False, skip_bad=True)
    (u,) = Manifest.read(str(tmp_path / "m.jsonl"))
    assert (u.id, u.duration, u.text) == ("c-0", 0.5, "t0")
    assert u.extra == {"supervision_id": "s0", "alignment": {"word": [["t", 0.0, 0.1]]}}
    assert any("ignored features" in note for note in result.notes)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_beside_audio(tmp_path: Path, write_audio: WriteAudio, name: str) -> None:
    for file in ("c/a.wav", "c/sub/b.wav", "c/bare.wav"):
        write_audio(file)
    rows = [{"file_name": "a.wav", "transcription": "one"}, {"file_name": "sub/b.wav", "transcription": "two, three"}]
    if name.endswith("csv"):
        (tmp_path / "c" / name).write_text('file_name,transcription\na.wav,one\nsub/b.wav,"two, three"\n')
    elif name.endswith("jsonl"):
        jsonl(tmp_path / "c" / name, *rows)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c" / name)
    found = imported(tmp_path / "c", tmp_path / "c/m.jsonl")
    assert [(u.id, u.text) for u in found] == [("a", "one"), ("bare", None), ("sub/b", "two, three")]


def test_metadata_that_names_no_file_is_told(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("c/a.wav")
    (tmp_path / "c/metadata.csv").write_text("file_name,text\na.wav,one\nnone.wav,two\n")
    (line,) = problems(tmp_path / "c", tmp_path / "m.jsonl")
    assert "names no file that is there ('none.wav')" in line
    (tmp_path / "c/metadata.csv").write_text("speaker,said\nx,one\n")
    (line,) = problems(tmp_path / "c", tmp_path / "m.jsonl")
    assert "no column names a file (file_name)" in line


def test_ljspeech(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("lj/wavs/LJ001-0001.wav")
    (tmp_path / "lj/metadata.csv").write_text('LJ001-0001|Printing, in the "only" sense|Printing in full\n')
    (u,) = imported(tmp_path / "lj", tmp_path / "m.jsonl")
    assert (u.text, u.extra) == ('Printing, in the "only" sense', {"normalized_text": "Printing in full"})


def test_splits_are_kept_and_may_be_chosen(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("d/a.wav")
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        table = pyarrow.table({"audio": ["a.wav"], "text": [name[:5]]})
        pyarrow.parquet.write_table(table, tmp_path / f"d/{name}.parquet")
    found = imported(tmp_path / "d", tmp_path / "m.jsonl")
    assert [(u.text, u.extra["split"]) for u in found] == [("test-", "test"), ("train", "train")]
    (u,) = imported(tmp_path / "d", tmp_path / "m.jsonl", split="train")
    assert u.text == "train"
    with pytest.raises(InputError, match="no such split; it has test, train"):
        done(tmp_path / "d", tmp_path / "m.jsonl", split="dev")


def test_values_that_json_lacks(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    values = '"snr": NaN, "peak": -Infinity, "all": [1, NaN], "of": {"x": Infinity}'
    (tmp_path / "m.jsonl").write_text(f'{{"id": "x", "audio_filepath": "a.wav", {values}}}\n')
    (u,) = Manifest.read(str(tmp_path / "m.jsonl"))
    assert u.extra == {"snr": None, "peak": "-Infinity", "all": [1, None], "of": {"x": "Infinity"}}
    json.dumps(u.to_row(), allow_nan=False)
    (u,) = imported(tmp_path / "m.jsonl", tmp_path / "n.jsonl")
    assert u.extra == {"peak": "-Infinity", "all": [1, None], "of": {"x": "Infinity"}}


def test_paths_of_a_home_and_numbers_as_text(
    tmp_path: Path, write_audio: WriteAudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = write_audio("home/c/a.wav", 3.0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    row = {"id": "x", "audio_filepath": "~/c/a.wav", "offset": " 5e-1 ", "duration": "2.3"}
    (u,) = Manifest.read(str(jsonl(tmp_path / "m.jsonl", row)))
    assert (u.audio, u.audio_filepath, u.offset, u.duration) == (str(audio), "~/c/a.wav", 0.5, 2.3)
    (spans,) = Manifest.read(str(tmp_path / "m.jsonl"), spans=True)
    assert (spans.audio, spans.digest) == (u.audio, u.digest)
    (u,) = imported(tmp_path / "m.jsonl", tmp_path / "n.jsonl")
    assert (u.audio, u.duration) == (str(audio), 2.3)
    (tmp_path / "t.csv").write_text("path,text\na.wav,x\n")
    (u,) = imported(tmp_path / "t.csv", tmp_path / "n.jsonl", audio_root="~/c")
    assert u.audio == str(audio)


def test_conversations(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    said = [{"from": "human", "value": "<audio>\nWhat is it?"}, {"from": "gpt", "value": "A tone."}]
    more = [{"from": "human", "value": "How high?"}, {"from": "gpt", "value": "440 Hz."}]
    rows = [
        {"id": "share", "conversations": said, "audio": "a.wav"},
        {"id": "long", "conversations": [{"from": "system", "value": "Be brief."}, *said, *more], "audios": ["a.wav"]},
        {
            "id": "old",
            "query": "How high?",
            "response": "440",
            "history": [["<audio>What?", "A tone."]],
            "audios": "a.wav",
        },
        {"id": "own", "system": "You are deaf.", "messages": [{"role": "user", "content": "Q"}], "audios": ["a.wav"]},
        {"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}], "audios": []},
    ]
    share, long, old, own, text = imported(jsonl(tmp_path / "s.jsonl", *rows), tmp_path / "m.jsonl")
    assert (share.prompt, share.response, share.extra) == ("What is it?", "A tone.", {})
    assert (long.prompt, long.turns, long.extra["system"]) == ("How high?", (("What is it?", "A tone."),), "Be brief.")
    assert len(long.extra["messages"]) == 5
    assert (old.prompt, old.response, old.turns) == ("How high?", "440", (("What?", "A tone."),))
    assert (own.prompt, own.extra["system"]) == ("Q", "You are deaf.")
    assert (text.text_only, text.id, text.prompt, text.response) == (True, "text-00000005", "2 + 2?", "4")
    (tmp_path / "n.jsonl").write_bytes((tmp_path / "m.jsonl").read_bytes())
    assert [u.to_row() for u in imported(tmp_path / "n.jsonl", tmp_path / "again.jsonl")] == [
        u.to_row() for u in Manifest.read(str(tmp_path / "m.jsonl"))
    ]
    named = {"query": "Audio 1: <audio>a.wav</audio>\nWhat is it?", "response": "A tone.", "history": []}
    (u,) = imported(jsonl(tmp_path / "q.jsonl", named), tmp_path / "q.out.jsonl")
    assert (u.audio_filepath, u.prompt, u.response) == ("a.wav", "What is it?", "A tone.")
    table = pyarrow.Table.from_pylist([{"audio": "a.wav", "conversations": said}])
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    (u,) = imported(tmp_path / "c.parquet", tmp_path / "m.jsonl")
    assert (u.prompt, u.response) == ("What is it?", "A tone.")


@pytest.mark.parametrize(
    "text",
    [
        "path, sentence\na.wav, hello there\n",
        " Path ,SENTENCE \na.wav,hello there\n",
        "\ufeffpath;sentence\r\na.wav;hello there\r\n",
        "path|sentence\na.wav|hello there\n",
        "sep=;\npath;sentence\na.wav;hello there\n",
        '"path", "sentence"\n"a.wav", "hello there"\n',
        "File Name\tTranscript\na.wav\thello there\n",
    ],
)
def test_csv_as_people_write_it(tmp_path: Path, write_audio: WriteAudio, text: str) -> None:
    write_audio("a.wav")
    for encoding in ("utf-8", "utf-16"):
        (tmp_path / "t.csv").write_bytes(text.encode(encoding))
        (u,) = imported(tmp_path / "t.csv", tmp_path / "m.jsonl")
        assert (u.text, u.extra) == ("hello there", {})


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_names_and_links_of_a_folder(tmp_path: Path, write_audio: WriteAudio) -> None:
    audio = write_audio("c/a.wav")
    write_audio("elsewhere/b.wav")
    Path(os.fsdecode(bytes(tmp_path / "c") + b"/caf\xe9.wav")).write_bytes(audio.read_bytes())
    (tmp_path / "c/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "c")
    (tmp_path / "c/notes.pdf").write_text("x")
    (tmp_path / "c/.b.wav").write_text("x")
    result = done(tmp_path / "c", tmp_path / "m.jsonl")
    assert [u.id for u in Manifest.read(str(tmp_path / "m.jsonl"))] == ["a", "link/b"]
    notes = "\n".join(result.notes)
    for words in (
        r"caf\xe9.wav': a name that is not UTF-8",
        "link/loop: a link to a folder that was read",
        "1 .pdf",
        "1 hidden",
    ):
        assert words in notes


def test_a_tarred_manifest_without_its_tars(tmp_path: Path, write_audio: WriteAudio) -> None:
    rows = [{"audio_filepath": f"{n}.wav", "duration": 1.0, "text": "t", "shard_id": n} for n in range(2)]
    path = jsonl(tmp_path / "tarred_audio_manifest.json", *rows)
    for options in ({}, {"read_headers": False}, {"skip_bad": True}):
        with pytest.raises(InputError, match="a tarred manifest of NeMo's") as e:
            done(path, tmp_path / "m.jsonl", **options)
        assert "\n" not in str(e.value)
    for n in range(2):
        write_audio(f"{n}.wav")
    assert len(imported(path, tmp_path / "m.jsonl")) == 2
    with pytest.raises(InputError, match="0 of 8 are there"):
        done(tmp_path / "sharded/manifest__OP_0..7_CL_.json", tmp_path / "m.jsonl")


def test_columns_are_named_at_the_end(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    row = {"wav": "a.wav", "sentence": "s", "text": "t", "age": 3, "image": b"PNG", "none": None, "prompt_id": 1}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "d.parquet")
    (note,) = done(tmp_path / "d.parquet", tmp_path / "m.jsonl").notes
    used, kept, ignored = note.removeprefix("columns: ").split("; ")
    assert used == "used wav (audio_filepath), text (text)"
    assert kept == "kept sentence, age, prompt_id"
    assert ignored == "ignored image (binary)"


names = st.text("abcdefgh_ .-ÄßABC", min_size=1, max_size=8).filter(lambda n: n.strip() == n)
values = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.booleans(),
    st.lists(st.text(max_size=5).filter(str.isprintable), max_size=3),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    row=st.dictionaries(names, values, max_size=6),
    identity=st.one_of(st.integers(0, 2**62), st.text("abc 0123éß", min_size=1).filter(lambda t: t.strip() == t)),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
def test_whatever_the_source_ids_text_and_numbers_survive(
    tmp_path: Path, row: dict[str, Any], identity: int | str, text: str
) -> None:
    plain = {n.lower().replace(" ", "_").replace("-", "_") for n in row}
    if len(plain) < len(row):
        return
    full = {"id": identity, "audio_filepath": "a.wav", "text": text, **{f"x_{k}": v for k, v in row.items()}}
    sources = [jsonl(tmp_path / "s.jsonl", full)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([full]), tmp_path / "s.parquet")
    sources.append(tmp_path / "s.parquet")
    (tmp_path / "s.json").write_text(json.dumps([full], indent=1))
    sources.append(tmp_path / "s.json")
    for source in sources:
        (u,) = imported(source, tmp_path / "m.jsonl", read_headers=False)
        assert (u.id, u.text) == (str(identity), text)
        for name, value in row.items():
            if isinstance(value, float) and math.isinf(value):
                value = f"{'-' if value < 0 else ''}Infinity"
            assert u.extra[f"x_{name}"] == value
            assert type(u.extra[f"x_{name}"]) is type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12345678.0, "12345678"), (0.1, "0.1"), (1234567890123, "1234567890123"), (1.5, "1.5"), (1e300, "1e+300")],
)
def test_ids_that_a_table_holds_as_numbers(tmp_path: Path, value: float, expected: str) -> None:
    table = pyarrow.Table.from_pylist([{"id": value, "audio": "a.wav", "answer": value}])
    pyarrow.parquet.write_table(table, tmp_path / "s.parquet")
    (u,) = imported(tmp_path / "s.parquet", tmp_path / "m.jsonl", read_headers=False)
    assert (u.id, u.response) == (expected, expected)
