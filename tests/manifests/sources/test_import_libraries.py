"""Importers against files that `datasets`, `pyarrow`, `lhotse` and ms-swift wrote or describe."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coat.manifests import addresses
from coat.manifests.audio.file import decode
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.corpus.validate import validate_manifest
from coat.manifests.errors import InputError
from coat.manifests.sources.formats import detect_format
from coat.manifests.sources.importing import import_manifest
from tests.manifests.conftest import WriteAudio
from tests.manifests.sources.importing import imported, jsonl, problems


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
    assert {Path(addresses.container(u.audio)) for u in found} == {tmp_path / "d.parquet"}
    assert [u.id for u in found] == ["evil", "b.x", "d-00000003"]
    found = imported(tmp_path / "d.parquet", tmp_path / "out/m.jsonl", copy=True)
    assert [u.audio_filepath for u in found] == [
        "m_audio/evil.wav",
        f"m_audio/{Utterance(id='b.x', audio='', audio_filepath='').key}.wav",
        "m_audio/row-00000003.wav",
    ]
    assert sorted(p.name for p in tmp_path.rglob("*evil*")) == ["evil.wav"]
    assert [u.duration for u in found] == [1.0, 2.0, 0.5]
    assert found[0].extra == {"label": 0, "tags": ["p"], "picture": {"bytes": None, "path": "p.png"}}
    assert decode(found[1].audio).digest == decode(str(tmp_path / "src/b.wav")).digest
    assert validate_manifest(str(tmp_path / "out/m.jsonl"), deep=True) == []


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
    assert detect_format(str(tmp_path / "repo")) == "parquet"
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
    assert rows[0].extra == {"source": "radio", "supervision_id": "s1", "speaker": "bob", "mood": "calm"}
    assert rows[3].extra == {"source": "radio"}
    heard = cut.truncate(offset=1.5, duration=1.5).load_audio()[0]
    np.testing.assert_allclose(decode(rows[1].audio, rows[1].offset, rows[1].duration).samples_T, heard, atol=1e-6)


def test_lhotse_cuts_that_are_not_a_span_of_a_file(tmp_path: Path, cut: Any) -> None:
    from lhotse import CutSet

    CutSet.from_cuts([cut.pad(9.0), cut.perturb_speed(1.1)]).to_file(tmp_path / "cuts.jsonl")
    lines = problems(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl", format="lhotse")
    for line, words in zip(lines, ("MixedCut", "(Speed)"), strict=True):
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
    assert detect_format(str(path)) == detect_format(str(jsonl(tmp_path / "q.jsonl", rows[3]))) == "swift"
    a, b, c, d = imported(path, tmp_path / "m.jsonl")
    assert (a.prompt, a.response, a.extra) == ("Say it.", "It.", {"solution": "s"})
    assert (b.id, b.prompt, b.response, b.extra["messages"]) == ("long", "How high?", "440 Hz.", long)
    assert b.turns == (("What is it?", "A tone."),)
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
