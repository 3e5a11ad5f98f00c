"""Each importer against files that the true library wrote."""

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coat.manifests.errors import InputError, ManifestError
from coat.manifests.sources import importing
from coat.manifests.sources.formats import FORMATS, detect_format
from coat.manifests.sources.importing import import_manifest
from tests.manifests.conftest import WriteAudio
from tests.manifests.sources.importing import imported, jsonl, problems


def test_a_folder(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("c/b/two.FLAC", 2.0)
    write_audio("c/a.wav", 1.0).with_suffix(".txt").write_text("\ufeffhello\n", encoding="utf-8")
    write_audio("c/.hidden/x.wav")
    (tmp_path / "c/notes.md").write_text("no audio")
    rows = imported(tmp_path / "c", tmp_path / "c/manifest.jsonl")
    assert [(u.id, u.audio_filepath, u.duration, u.text) for u in rows] == [
        ("a", "a.wav", 1.0, "hello"),
        ("b/two", "b/two.FLAC", 2.0, None),
    ]
    elsewhere = imported(tmp_path / "c", tmp_path / "lists/m.jsonl")
    assert [(u.id, u.audio_filepath) for u in elsewhere] == [(u.id, u.audio) for u in rows]
    above = imported(tmp_path / "c", tmp_path / "m.jsonl")
    assert [u.audio_filepath for u in above] == ["c/a.wav", "c/b/two.FLAC"]


def test_an_empty_folder_and_a_missing_one(tmp_path: Path) -> None:
    for source, message in ((tmp_path, "no audio found"), (tmp_path / "none.csv", "no such file")):
        with pytest.raises(InputError, match=message):
            import_manifest(str(source), str(tmp_path / "m.jsonl"))
    with pytest.raises(InputError, match="unknown form"):
        detect_format("a.xlsx")


@pytest.mark.parametrize("name", ["m.jsonl", "train_manifest.json", "m.jsonl.gz"])
def test_nemo(tmp_path: Path, write_audio: WriteAudio, name: str) -> None:
    write_audio("wav/a.wav", 2.0)
    rows = [
        {"audio_filepath": "wav/a.wav", "duration": 2.0, "text": "hi", "offset": 0.0, "lang": "en"},
        {"audio_filepath": "wav/a.wav", "offset": 0.5, "text": "there", "speaker": 3, "score": float("nan")},
    ]
    path = jsonl(tmp_path / "x.jsonl", *rows).rename(tmp_path / name)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    a, b = imported(path, tmp_path / "out.jsonl")
    assert (a.id, a.text, a.extra) == ("wav/a", "hi", {"lang": "en"})
    assert (b.id, b.offset, b.duration, b.extra) == ("wav/a@0.500", 0.5, 1.5, {"speaker": 3})


def test_a_json_array(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    (tmp_path / "qa.json").write_text(json.dumps([{"id": 1, "wav": "a.wav", "question": "Q?", "answer": 3}], indent=1))
    (u,) = imported(tmp_path / "qa.json", tmp_path / "m.jsonl")
    assert (u.id, u.prompt, u.response) == ("1", "Q?", "3")
    (tmp_path / "cut.json").write_text('[{"wav": "a.wav"},')
    with pytest.raises(InputError, match="starts as a JSON array"):
        import_manifest(str(tmp_path / "cut.json"), str(tmp_path / "m.jsonl"))


@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.csv", ";"), ("t.tsv", "\t")])
def test_tables_that_pandas_wrote(tmp_path: Path, write_audio: WriteAudio, name: str, separator: str) -> None:
    pandas = pytest.importorskip("pandas")
    write_audio("clips/a.wav")
    write_audio("clips/b.wav", 2.0)
    table = pandas.DataFrame(
        {
            "ID": ["x", "y"],
            "path": ["clips/a.wav", "clips/b.wav"],
            "sentence": ['He said "hi", then; left', None],
            "Options": ['["yes", "no"]', "up | down"],
            "start": [0.0, 0.5],
            "end": [0.5, 1.5],
            "age": [30, 40],
        }
    )
    table.to_csv(tmp_path / name, sep=separator, index=False)
    a, b = imported(tmp_path / name, tmp_path / "m.jsonl")
    assert (a.id, a.text, a.choices) == ("x", 'He said "hi", then; left', ("yes", "no"))
    assert (b.id, b.text, b.choices, b.offset, b.duration) == ("y", "", ("up", "down"), 0.5, 1.0)
    assert b.extra == {"age": "40"}


def test_common_voice_quotes_are_text(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("clips/a.wav")
    (tmp_path / "v.tsv").write_text('client_id\tpath\tsentence\nc1\ta.wav\t"Go," he said.\nc2\ta.wav\tAn "odd one.\n')
    rows = imported(tmp_path / "v.tsv", tmp_path / "m.jsonl", audio_root=str(tmp_path / "clips"))
    assert [u.text for u in rows] == ['"Go," he said.', 'An "odd one.']
    assert [(u.id, u.audio_filepath) for u in rows] == [("a", "clips/a.wav"), ("a#2", "clips/a.wav")]


def test_a_csv_cell_may_hold_lines(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    with (tmp_path / "t.csv").open("w", newline="") as f:
        csv.writer(f).writerows([["file", "text"], ["a.wav", "one\ntwo, three"]])
    assert imported(tmp_path / "t.csv", tmp_path / "m.jsonl")[0].text == "one\ntwo, three"


def test_columns_may_be_chosen(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    (tmp_path / "t.csv").write_text("rec,text,ask,answer\na.wav,label,what?,maybe\n")
    column_map = {"audio_filepath": "rec", "prompt": "ask", "response": "text"}
    (u,) = imported(tmp_path / "t.csv", tmp_path / "m.jsonl", column_map=column_map)
    assert (u.prompt, u.response, u.text, u.extra) == ("what?", "label", None, {"original_answer": "maybe"})
    for wrong, message in (({"text": "none"}, "has no such column"), ({"nonsense": "ask"}, "no such key")):
        with pytest.raises(InputError, match=message):
            import_manifest(str(tmp_path / "t.csv"), str(tmp_path / "n.jsonl"), column_map={**column_map, **wrong})


def test_every_bad_row_is_told_and_may_be_left_out(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    (tmp_path / "cut.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:5000])
    rows = [
        "id,audio,duration",
        "one,a.wav,1",
        "two,none.wav,",
        "three,a.wav,long",
        "one,a.wav,1",
        "five,,1",
        "six,a.wav",
        "seven,cut.wav,",
        "eight,https://example.org/a.wav,1",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    lines = problems(tmp_path / "t.csv", tmp_path / "m.jsonl")
    expected = {
        3: "none.wav: no such file; --audio-root says",
        4: "duration is 'long'; expected seconds",
        5: "id 'one' is also that of row 2",
        6: "no audio",
        7: "2 fields; expected 3",
        8: "cut.wav: shorter than its header says",
        9: "web addresses are read where --allow-http is given",
    }
    assert sorted(int(line.split(":")[0]) for line in lines) == list(expected)
    for line in lines:
        row, _, message = line.partition(": ")
        assert expected[int(row)] in message
    done = import_manifest(str(tmp_path / "t.csv"), str(tmp_path / "m.jsonl"), skip_bad=True)
    assert (done.rows, len(done.problems)) == (1, 7)


def test_without_reading_headers(tmp_path: Path) -> None:
    jsonl(tmp_path / "x.jsonl", {"audio": "none.wav"})
    (u,) = imported(tmp_path / "x.jsonl", tmp_path / "m.jsonl", read_headers=False)
    assert u.duration is None


def test_text_that_is_not_utf_8(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("c/a.wav").with_suffix(".txt").write_bytes(b"caf\xe9")
    assert "not UTF-8" in problems(tmp_path / "c", tmp_path / "m.jsonl")[0]
    (tmp_path / "t.csv").write_bytes(b"audio,text\na.wav,caf\xe9\n")
    assert problems(tmp_path / "t.csv", tmp_path / "m.jsonl")[0].startswith("2: not UTF-8")


def test_a_native_manifest_is_imported_unchanged(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    row = {"id": "x", "audio_filepath": "a.wav", "offset": 0.1, "duration": 0.5, "text": "t", "prompt": "p"}
    row |= {"response": "r", "choices": ["r", "s"], "more": 1}
    path = jsonl(tmp_path / "m.jsonl", row)
    (u,) = imported(path, tmp_path / "n.jsonl")
    assert u.to_row() == row


def test_each_format_is_told_by_its_looks(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    assert detect_format(str(tmp_path / "f")) == "folder"
    assert detect_format("x.TSV") == "csv"
    assert detect_format("x.parquet") == "parquet"
    jsonl(tmp_path / "l.jsonl", {"id": 1, "type": "MixedCut", "tracks": []})
    assert detect_format(str(tmp_path / "l.jsonl")) == "lhotse"
    assert detect_format("x.TAR") == detect_format("x.tar.gz") == detect_format("x.tgz") == "webdataset"
    assert detect_format("x.csv.gz") == "csv"
    by_tables = {"folder", "jsonl", "csv", "parquet", "dataset", "swift", "lhotse", "lhotse-recordings", "kaldi"}
    assert set(FORMATS) == by_tables | {"shar", "webdataset", "nemo-tarred", "shards"}
    with pytest.raises(InputError, match="no such format"):
        import_manifest(str(tmp_path), str(tmp_path / "m.jsonl"), format="xml")
    with pytest.raises(InputError, match="is a folder"):
        import_manifest(str(tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.csv", "", "no audio found"),
        ("header.csv", "audio,text\n", "no audio found"),
        ("quote.csv", 'audio,text\na.wav,"never closed\na.wav,x\n', "check the quotes"),
        ("twice.csv", "audio,audio\na.wav,b.wav\n", "columns named twice: audio"),
        ("nul.csv", "audio\na\0.wav\n", "null byte"),
        ("list.json", "[1]", "expected an object, found int"),
        ("pretty.json", '{\n"audio": "a.wav"\n}', "not JSON"),
        ("arrays.json", '{"audio": {"array": [0.1], "sampling_rate": 8000}}', "neither bytes nor a path"),
        ("choices.json", '{"audio": "a.wav", "choices": {"A": "x"}}', "choices are dict"),
        ("text.json", '{"audio": "a.wav", "text": {"a": 1}}', "text is dict"),
        ("half.json", '{"audio": "a.wav", "text": "\\ud800"}', "surrogate"),
        ("audios.json", '{"audios": 5, "messages": []}', "audio is int"),
        ("part.json", '{"messages": [{"role": "user", "content": [{"type": "audio"}]}]}', "must name its file"),
        (
            "source.json",
            '{"id": 1, "start": 0, "duration": 1, "recording": {"sources": [{"type": "file"}]}}',
            "no file",
        ),
        ("x.parquet", "PAR1", "not a whole Parquet"),
        ("x.jsonl.gz", "junk", "not a whole gzip"),
    ],
)
def test_odd_files_end_in_one_clear_line(
    tmp_path: Path, write_audio: WriteAudio, name: str, text: str, message: str
) -> None:
    write_audio("a.wav")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        import_manifest(str(tmp_path / name), str(tmp_path / "m.jsonl"))
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize("form", [name for name, f in FORMATS.items() if f.takes != "either"])
def test_a_folder_is_not_a_file_nor_a_file_a_folder(tmp_path: Path, write_audio: WriteAudio, form: str) -> None:
    source = write_audio("a.wav") if FORMATS[form].takes == "folder" else tmp_path
    with pytest.raises(InputError, match="expected a"):
        import_manifest(str(source), str(tmp_path / "m.jsonl"), format=form)


@pytest.mark.parametrize("text", ["{}", "[]", '{"_data_files": [{}]}', '{"_data_files": [{"filename": "../x.arrow"}]}'])
def test_saved_datasets_that_are_not_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(InputError, match=r"state\.json|not JSON"):
        import_manifest(str(tmp_path), str(tmp_path / "m.jsonl"))


def test_rows_are_the_same_in_whatever_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that repeat, that are missing, that another row has by right."""
    rows = [{"id": "a", "audio_filepath": "a.wav", "duration": 1.0}, {"audio_filepath": "b.wav", "duration": 1.0}] * 3
    rows += [
        {"audio_filepath": "a.wav", "duration": 2.0, "offset": 1.0},
        {"id": "b", "audio_filepath": "c.wav", "duration": 1},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(importing, "ROWS_AT_ONCE", size)
        done = import_manifest(str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"), skip_bad=True)
        found.append(((tmp_path / "out.jsonl").read_text(), [str(p) for p in done.problems]))
    assert all(f == found[0] for f in found)
    text, problems = found[0]
    assert [json.loads(line)["id"] for line in text.splitlines()] == ["a", "b#2", "b#3", "b#4", "a@1.000", "b"]
    assert len(problems) == 2
    assert "id 'a' is also that of row 1" in problems[0]


@pytest.mark.parametrize("probe", [True, False])
@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_progress_counts_rows(form: str, probe: bool, tmp_path: Path, write_audio: WriteAudio) -> None:
    """Each once, whether its header was read or not; of how many, where the file says it."""
    for name in ("a.wav", "b.wav"):
        write_audio(name)
    rows = [
        {"id": str(i), "audio_filepath": "ab"[i % 2] + ".wav", "duration": 1.0 if i < 3 else None} for i in range(7)
    ]
    source = tmp_path / f"d.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source, row_group_size=2)
    elif form == "csv":
        lines = [
            "id,audio_filepath,duration",
            *(f"{r['id']},{r['audio_filepath']},{r['duration'] or ''}" for r in rows),
        ]
        source.write_text("\n".join(lines) + "\n")
    else:
        jsonl(source, *rows)
    calls: list[tuple[int, int | None]] = []
    import_manifest(
        str(source), str(tmp_path / "m.jsonl"), read_headers=probe, advance=lambda n, total: calls.append((n, total))
    )
    assert sum(n for n, _ in calls) == 7
    assert {total for _, total in calls} == {7 if form == "parquet" else None}


def test_csv_as_a_stream(tmp_path: Path) -> None:
    """Larger than what is read at once; packed; and not text far behind its beginning."""
    rows = [f"u{i},a.wav,1.0,Grüße {i}" for i in range(40_000)]
    data = ("id,audio_filepath,duration,text\n" + "\n".join(rows) + "\n").encode()
    (tmp_path / "d.csv").write_bytes(data)
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(data))
    (tmp_path / "w.csv").write_bytes(data.decode().encode("utf-16"))
    found = {}
    for name in ("d.csv", "d.csv.gz", "w.csv"):
        import_manifest(str(tmp_path / name), str(tmp_path / "m.jsonl"), read_headers=False)
        found[name] = (tmp_path / "m.jsonl").read_bytes()
        (tmp_path / "m.jsonl").unlink()
    assert found["d.csv"].count(b"\n") == 40_000
    assert found["d.csv"] == found["d.csv.gz"] == found["w.csv"]
    at = data.index(b"u30000")
    (tmp_path / "d.csv").write_bytes(data[:at] + b"\xff" + data[at:])
    said = f"not UTF-8 (byte {at} of the file); save the file as UTF-8"
    for skip_bad in (False, True):
        with pytest.raises(ManifestError) as e:
            import_manifest(str(tmp_path / "d.csv"), str(tmp_path / "m.jsonl"), read_headers=False, skip_bad=skip_bad)
        assert [(p.row, p.message) for p in e.value.problems] == [(30_002, said)]
        assert not (tmp_path / "m.jsonl").exists()
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(data)[:-9])
    with pytest.raises(InputError, match="not a whole gzip"):
        import_manifest(str(tmp_path / "d.csv.gz"), str(tmp_path / "m.jsonl"), read_headers=False)
