"""Each importer against files that the true library wrote."""

import csv
import gzip
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from coat.manifests.audio import decode
from coat.manifests.errors import InputError
from coat.manifests.importers import FORMATS, detect, import_manifest
from coat.manifests.manifest import Manifest, ManifestError
from coat.manifests.utterance import Utterance
from coat.manifests.validate import validate
from tests.manifests.conftest import RATE, WriteAudio


def imported(source: Path, out: Path, **options: Any) -> list[Utterance]:
    done = import_manifest(str(source), str(out), **options)
    rows = list(Manifest.read(str(out)))
    assert done.rows == len(rows)
    return rows


def problems(source: Path, out: Path, **options: Any) -> list[str]:
    """One line each; and nothing must have been written."""
    with pytest.raises(ManifestError) as e:
        import_manifest(str(source), str(out), **options)
    assert not out.exists()
    lines = [f"{p.row}: {p.message}" for p in e.value.problems]
    assert all("\n" not in line for line in lines)
    return lines


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


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
        detect("a.xlsx")


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
    chosen = {"audio_filepath": "rec", "prompt": "ask", "response": "text"}
    (u,) = imported(tmp_path / "t.csv", tmp_path / "m.jsonl", chosen=chosen)
    assert (u.prompt, u.response, u.text, u.extra) == ("what?", "label", None, {"original_answer": "maybe"})
    for wrong, message in (({"text": "none"}, "has no such column"), ({"nonsense": "ask"}, "no such key")):
        with pytest.raises(InputError, match=message):
            import_manifest(str(tmp_path / "t.csv"), str(tmp_path / "n.jsonl"), chosen={**chosen, **wrong})


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
        9: "https:// is not accepted",
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


@pytest.fixture
def dataset(write_audio: WriteAudio) -> Any:
    """Three clips with their bytes, as Hugging Face holds them."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    paths = [str(write_audio(f"src/{n}.wav", s)) for n, s in (("a", 1.0), ("b", 2.0), ("c", 0.5))]
    data = {"audio": paths, "sentence": ["x", "y", "z"], "label": [0, 1, 0], "tags": [["p"], [], ["q"]]}
    return datasets.Dataset.from_dict(data).cast_column("audio", datasets.Audio())


def test_a_parquet_with_audio_inside(tmp_path: Path, dataset: Any) -> None:
    embedded = dataset.map(lambda r: r, load_from_cache_file=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        table = embedded.with_format("arrow")[:]
    import pyarrow
    import pyarrow.parquet

    rows = table.to_pylist()
    for row, name in zip(rows, ("../../evil.wav", "sub\\dir/b.x.wav", None), strict=True):
        path = tmp_path / "src" / f"{'abc'[rows.index(row)]}.wav"
        row["audio"] = {"bytes": path.read_bytes(), "path": name}
        row["picture"] = {"bytes": b"\x89PNG", "path": "p.png"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    found = imported(tmp_path / "d.parquet", tmp_path / "out/m.jsonl")
    assert [u.audio_filepath for u in found] == [
        "m_audio/evil.wav",
        f"m_audio/{Utterance(id='b.x', audio='', audio_filepath='').key}.wav",
        "m_audio/row-00000003.wav",
    ]
    assert sorted(p.name for p in tmp_path.rglob("*evil*")) == ["evil.wav"]
    assert [u.duration for u in found] == [1.0, 2.0, 0.5]
    assert found[0].extra == {"label": 0, "tags": ["p"], "picture": {"bytes": None, "path": "p.png"}}
    assert decode(found[1].audio).digest == decode(str(tmp_path / "src/b.wav")).digest
    assert validate(str(tmp_path / "out/m.jsonl"), deep=True) == []


def test_what_datasets_saves(tmp_path: Path, dataset: Any) -> None:
    datasets = pytest.importorskip("datasets")
    dataset.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(train=dataset, test=dataset.select([2])).save_to_disk(tmp_path / "two")
    rows = imported(tmp_path / "one", tmp_path / "m1.jsonl")
    assert [(u.text, u.duration, u.extra["label"]) for u in rows] == [("x", 1.0, 0), ("y", 2.0, 1), ("z", 0.5, 0)]
    rows = imported(tmp_path / "two", tmp_path / "m2.jsonl")
    assert [(u.text, u.extra["split"]) for u in rows] == [
        ("x", "train"),
        ("y", "train"),
        ("z", "train"),
        ("z", "test"),
    ]
    assert len({u.audio for u in rows}) == 4
    assert np.array_equal(decode(rows[0].audio).samples_T, decode(str(tmp_path / "src/a.wav")).samples_T)


def test_parquet_that_datasets_wrote(tmp_path: Path, dataset: Any) -> None:
    (tmp_path / "repo/data").mkdir(parents=True)
    dataset.to_parquet(tmp_path / "repo/data/train-00000-of-00001.parquet")
    assert detect(str(tmp_path / "repo")) == "parquet"
    assert [u.text for u in imported(tmp_path / "repo", tmp_path / "m.jsonl")] == ["x", "y", "z"]


def test_parquet_with_paths(tmp_path: Path, write_audio: WriteAudio) -> None:
    pandas = pytest.importorskip("pandas")
    write_audio("wav/a.wav")
    table = pandas.DataFrame({"audio_path": ["wav/a.wav"], "answer": [1.5], "when": [pandas.Timestamp("2026-01-02")]})
    table.to_parquet(tmp_path / "d.parquet")
    (u,) = imported(tmp_path / "d.parquet", tmp_path / "m.jsonl")
    assert (u.audio_filepath, u.response, u.extra) == ("wav/a.wav", "1.5", {"when": "2026-01-02T00:00:00"})


def test_tables_that_are_damaged(tmp_path: Path, dataset: Any) -> None:
    dataset.to_parquet(tmp_path / "d.parquet")
    data = (tmp_path / "d.parquet").read_bytes()
    (tmp_path / "d.parquet").write_bytes(data[: len(data) // 2])
    dataset.save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.write_bytes(b"no arrow")
    for source in ("d.parquet", "saved"):
        with pytest.raises(InputError, match="not a whole"):
            import_manifest(str(tmp_path / source), str(tmp_path / "m.jsonl"))


@pytest.fixture
def cut(write_audio: WriteAudio) -> Any:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(write_audio("wav/a.wav", 4.0))
    spans = [("s1", -0.2, 1.0, "one"), ("s2", 1.5, 2.0, "two")]
    supervisions = [
        lhotse.SupervisionSegment(i, recording.id, s, d, text=t, speaker="bob", custom={"mood": "calm"})
        for i, s, d, t in spans
    ]
    return lhotse.MonoCut("c1", 0.5, 3.0, 0, supervisions=supervisions, recording=recording, custom={"source": "radio"})


def test_lhotse(tmp_path: Path, cut: Any) -> None:
    from lhotse import CutSet

    single, bare = cut.with_id("single"), cut.drop_supervisions().with_id("bare")
    single.supervisions = single.supervisions[:1]
    CutSet.from_cuts([cut, single, bare]).to_file(tmp_path / "cuts.jsonl.gz")
    rows = imported(tmp_path / "cuts.jsonl.gz", tmp_path / "m.jsonl")
    assert [(u.id, u.offset, u.duration, u.text) for u in rows] == [
        ("c1-0", 0.5, 0.8, "one"),  # a supervision that begins before its cut is clipped to it
        ("c1-1", 2.0, 1.5, "two"),  # ... and one that ends after it
        ("single", 0.5, 3.0, "one"),
        ("bare", 0.5, 3.0, None),
    ]
    assert {u.audio_filepath for u in rows} == {"wav/a.wav"}
    assert rows[0].extra == {"source": "radio", "speaker": "bob", "mood": "calm"}
    assert rows[3].extra == {"source": "radio"}
    heard = cut.truncate(offset=1.5, duration=1.5).load_audio()[0]
    np.testing.assert_allclose(decode(rows[1].audio, rows[1].offset, rows[1].duration).samples_T, heard, atol=1e-6)


def test_lhotse_cuts_that_are_not_a_span_of_a_file(tmp_path: Path, cut: Any) -> None:
    from lhotse import CutSet, Recording

    soundfile.write(tmp_path / "stereo.wav", np.zeros((RATE, 2)), RATE)
    stereo = Recording.from_file(tmp_path / "stereo.wav").to_cut()
    left: Any = stereo.to_mono()
    bad = [cut.pad(9.0), cut.perturb_speed(1.1), stereo, left[0]]
    CutSet.from_cuts(bad).to_file(tmp_path / "cuts.jsonl")
    lines = problems(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl", format="lhotse")
    for line, words in zip(lines, ("MixedCut", "(Speed)", "MultiCut", "channel 0 of several"), strict=True):
        assert words in line


def test_lhotse_rows_that_are_broken(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "start": 0, "duration": 1, "type": "MonoCut"},
        {"id": "b", "start": "0", "duration": 1, "recording": {"sources": [{"type": "file", "source": "a.wav"}]}},
        {"id": "c", "start": 0, "duration": 1, "recording": {"sources": [{"type": "command", "source": "rm -rf /"}]}},
        {"id": "d", "start": 0, "duration": 1, "recording": {"sources": "a.wav"}},
        {"start": 0, "duration": 1, "recording": {"sources": [{"type": "file", "source": "a.wav"}]}},
    ]
    lines = problems(jsonl(tmp_path / "c.jsonl", *rows), tmp_path / "m.jsonl", format="lhotse")
    expected = ("no recording", "start is '0'", "command", "sources must be a list", "no 'id'")
    for line, words in zip(lines, expected, strict=True):
        assert words in line


def test_swift(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    long = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<audio>What is it?"},
        {"role": "assistant", "content": "A tone."},
        {"role": "user", "content": "How high?"},
        {"role": "assistant", "content": "440 Hz."},
    ]
    parts = [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "Hear this."}]
    short = [{"role": "user", "content": "<audio>\nSay it."}, {"role": "assistant", "content": "It."}]
    rows = [
        {"messages": short, "audios": ["a.wav"], "solution": "s"},
        {"messages": long, "audios": "a.wav", "id": "long"},
        {"messages": [{"role": "user", "content": parts}]},
        {"query": "<audio>Q?", "response": "R", "audios": ["a.wav"]},
    ]
    path = jsonl(tmp_path / "s.jsonl", *rows)
    assert detect(str(path)) == detect(str(jsonl(tmp_path / "q.jsonl", rows[3]))) == "swift"
    a, b, c, d = imported(path, tmp_path / "m.jsonl")
    assert (a.prompt, a.response, a.extra) == ("Say it.", "It.", {"solution": "s"})
    assert (b.id, b.prompt, b.response, b.extra) == ("long", "What is it?", "A tone.", {"messages": long})
    assert (c.prompt, c.response) == ("Hear this.", None)
    assert (d.prompt, d.response) == ("Q?", "R")


def test_swift_rows_without_one_audio_file(tmp_path: Path) -> None:
    turn = {"role": "user", "content": "<audio><audio>Compare."}
    rows = [
        {"messages": [turn], "audios": ["a.wav", "b.wav"]},
        {"messages": [turn]},
        {"messages": "hello", "audios": ["a.wav"]},
        {"messages": [{"content": "x"}], "audios": ["a.wav"]},
        {"messages": [{"role": "user", "content": 5}], "audios": ["a.wav"]},
        {"messages": [turn], "audios": [{"path": 3}]},
    ]
    lines = problems(jsonl(tmp_path / "s.jsonl", *rows), tmp_path / "m.jsonl")
    assert "2 audio files in one row" in lines[0]
    assert "0 audio files in one row" in lines[1]
    assert len(lines) == len(rows)


def test_a_native_manifest_is_imported_unchanged(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.wav")
    row = {"id": "x", "audio_filepath": "a.wav", "offset": 0.1, "duration": 0.5, "text": "t", "prompt": "p"}
    row |= {"response": "r", "choices": ["r", "s"], "more": 1}
    path = jsonl(tmp_path / "m.jsonl", row)
    (u,) = imported(path, tmp_path / "n.jsonl")
    assert u.to_row() == row


def test_each_format_is_told_by_its_looks(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    assert detect(str(tmp_path / "f")) == "folder"
    assert detect("x.TSV") == "csv"
    assert detect("x.parquet") == "parquet"
    jsonl(tmp_path / "l.jsonl", {"id": 1, "type": "MixedCut", "tracks": []})
    assert detect(str(tmp_path / "l.jsonl")) == "lhotse"
    assert set(FORMATS) == {"folder", "jsonl", "csv", "parquet", "dataset", "lhotse", "swift"}
    with pytest.raises(InputError, match="no such format"):
        import_manifest(str(tmp_path), str(tmp_path / "m.jsonl"), format="xml")
    with pytest.raises(InputError, match="is a folder"):
        import_manifest(str(tmp_path), str(tmp_path))
