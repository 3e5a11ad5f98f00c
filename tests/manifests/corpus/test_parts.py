"""A manifest in parts, and in Parquet, is the manifest that it is as a whole."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.split import split_manifest
from coat.manifests.corpus.stats import manifest_stats
from coat.manifests.corpus.validate import validate_manifest
from coat.manifests.errors import InputError, ManifestError
from tests.manifests.conftest import WriteAudio

ROWS: list[dict[str, Any]] = [
    {"id": "a", "audio_filepath": "wav/a.wav", "duration": 1.0, "text": "x", "speaker": "s1"},
    {"id": "b", "audio_filepath": "/abs/b.wav", "offset": 0.5, "duration": 2.0},
    {"audio_filepath": "wav/a.wav", "offset": 1.5},
    {"id": "t", "audio_filepath": None, "prompt": "p", "response": "r", "turns": [["q", "a"]]},
    {"id": "c", "audio_filepath": "c.tar#offset=512&size=3&member=c.wav", "choices": ["y", "n"], "response": "y"},
    {"audio_filepath": "wav/a.wav", "offset": 1.5},
    {"id": "d", "audio_filepath": "s3://b/d.wav", "question": "q", "answer": "a", "n": 3, "deep": {"k": [1, None]}},
    {"id": "e", "audio_filepath": "~/e.wav", "text": "日本"},
]


def write(path: Path, rows: list[dict[str, Any]], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table_of(rows), path, row_group_size=2)
        return
    data = ("\n".join(json.dumps(row) for row in rows) + end).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({key: [row.get(key) for row in rows] for key in dict.fromkeys(k for row in rows for k in row)})


def without_place(manifest: Manifest) -> list[Any]:
    return [u.to_row() for u in manifest]


@pytest.mark.parametrize("spans", [True, False])
@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("end", ["\n", ""])
def test_parts_are_the_whole(spans: bool, on_disk: bool, end: str, tmp_path: Path) -> None:
    write(tmp_path / "whole.jsonl", ROWS)
    whole = Manifest.read(str(tmp_path / "whole.jsonl"), spans, on_disk)
    for suffix in (".jsonl", ".jsonl.gz", ".parquet"):
        for i, rows in enumerate((ROWS[:3], ROWS[3:4], ROWS[4:])):
            write(tmp_path / f"p{i}{suffix}", rows, end)
        for path in (
            f"p{{0..2}}{suffix}",
            f"p?{suffix}",
            f"p[0-2]{suffix}",
            f"p_OP_0..2_CL_{suffix}",
            f"p{{0,1,2}}{suffix}",
        ):
            parts = Manifest.read(str(tmp_path / path), spans, on_disk)
            assert parts.digests.tolist() == whole.digests.tolist()
            assert [(u.id, u.audio, u.audio_filepath, u.offset, u.duration) for u in parts] == [
                (u.id, u.audio, u.audio_filepath, u.offset, u.duration) for u in whole
            ]
            assert parts.base == whole.base
            if not spans:
                assert [u.turns for u in parts] == [u.turns for u in whole]
                expected = without_place(whole)
                if suffix == ".parquet":  # a table has a null where a row of JSON has nothing
                    expected[6]["deep"] = {"k": [1, None]}
                assert without_place(parts) == expected


def test_a_folder_of_parts(tmp_path: Path) -> None:
    for name, rows in (("a.jsonl", ROWS[:2]), ("b.jsonl.gz", ROWS[2:3]), ("c.parquet", ROWS[3:])):
        write(tmp_path / "m" / name, rows)
    (tmp_path / "m/notes.txt").write_text("no part")
    (tmp_path / "m/.c.parquet~1~").write_text("half written")
    write(tmp_path / "m2/whole.jsonl", ROWS)
    parts, whole = Manifest.read(str(tmp_path / "m")), Manifest.read(str(tmp_path / "m2/whole.jsonl"))
    assert parts.digests.tolist() == whole.digests.tolist()
    assert [u.id for u in parts][2::3] == ["wav/a@1.500", "wav/a@1.500#2"]
    assert parts.base == str(tmp_path / "m")
    assert [parts.row_name(u.row) for u in parts][2:4] == [
        f"row 1 of {tmp_path}/m/b.jsonl.gz",
        f"row 1 of {tmp_path}/m/c.parquet",
    ]
    assert parts[3:][0].id == "t"
    assert parts[3:].base == parts.base


def test_parts_in_several_folders(tmp_path: Path) -> None:
    """Paths count from each part's folder. They are named from the folder that the pattern begins with."""
    for folder in ("en", "de"):
        write(
            tmp_path / f"c/{folder}/m.jsonl",
            [{"id": folder, "audio_filepath": "wav/a.wav"}, {**ROWS[1], "id": f"{folder}2"}],
        )
    for spans in (True, False):
        rows = list(Manifest.read(f"{tmp_path}/c/*/m.jsonl", spans=spans))
        assert [u.audio for u in rows] == [
            f"{tmp_path}/c/de/wav/a.wav",
            "/abs/b.wav",
            f"{tmp_path}/c/en/wav/a.wav",
            "/abs/b.wav",
        ]
        assert [u.audio_filepath for u in rows] == ["de/wav/a.wav", "/abs/b.wav", "en/wav/a.wav", "/abs/b.wav"]
    write(tmp_path / "c/all.jsonl", [u.to_row() for u in rows])
    assert Manifest.read(f"{tmp_path}/c/all.jsonl").digests.tolist() == [int(u.digest, 16) for u in rows]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    for i in (0, 2, 3):
        write(tmp_path / f"p{i}.jsonl", ROWS[:1])
    with pytest.raises(InputError, match=r"p1\.jsonl: no such file \(3 of 4 are there\)"):
        Manifest.read(f"{tmp_path}/p{{0..3}}.jsonl")
    with pytest.raises(InputError, match="no such files"):
        Manifest.read(f"{tmp_path}/q*.jsonl")


def test_problems_name_the_part_and_the_row(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("wav/a.wav")
    write(tmp_path / "p0.jsonl", [{"id": "a", "audio_filepath": "wav/a.wav", "duration": 0.5}], "")
    bad = [
        {"id": "b", "audio_filepath": "wav/a.wav"},
        {"id": "c"},
        {"id": "d", "audio_filepath": "wav/a.wav", "offset": "x"},
    ]
    write(tmp_path / "p1.jsonl", bad)
    table = table_of([*bad, {"id": "e", "audio_filepath": "wav/a.wav"}])
    pq.write_table(table, tmp_path / "p2.parquet", row_group_size=2)
    for spans in (True, False):
        with pytest.raises(ManifestError) as e:
            Manifest.read(str(tmp_path), spans=spans)
        assert [(Path(p.file).name, p.row) for p in e.value.problems] == [
            ("p1.jsonl", 2), ("p1.jsonl", 3), ("p2.parquet", 2), ("p2.parquet", 3)
        ]  # fmt: skip
        assert "audio_filepath" in e.value.problems[2].message
        assert "offset is 'x'" in e.value.problems[3].message
    good = [{"id": "b", "audio_filepath": "wav/a.wav"}, {"id": "a", "audio_filepath": "wav/a.wav", "offset": 7.0}]
    write(tmp_path / "p1.jsonl", good)
    write(tmp_path / "p2.parquet", [{"id": "b", "audio_filepath": "gone.wav"}])
    said = [(Path(p.file).name, p.row, p.message) for p in validate_manifest(str(tmp_path))]
    assert [s[:2] for s in said] == [("p1.jsonl", 2), ("p1.jsonl", 2), ("p2.parquet", 1), ("p2.parquet", 1)]
    assert f"is also that of row 1 of {tmp_path}/p0.jsonl" in said[0][2] + said[1][2]
    assert f"is also that of row 1 of {tmp_path}/p1.jsonl" in said[2][2] + said[3][2]


@pytest.mark.parametrize("spans", [True, False])
def test_parquet_as_others_write_it(spans: bool, tmp_path: Path) -> None:
    """Types of columns that mean the same; NaN of pandas is no value."""
    paths, times = ["a.wav", "b.wav", "a.wav"], [0.0, 1.5, -0.0]
    tables = [
        pa.table({"id": [1, 2, 3], "audio_filepath": paths, "duration": [1, 2, 3], "offset": times}),
        pa.table({
            "id": pa.array(["1", "2", "3"], pa.large_string()),
            "audio_filepath": pa.array(paths).dictionary_encode(),
            "duration": pa.array([1.0, 2.0, 3.0], pa.float32()),
            "offset": [float("nan"), 1.5, None],
        }),
        pa.table({"id": ["1", "2", "3"], "audio_filepath": paths, "duration": ["1", "2.0", "3"], "offset": times}),
        pa.table({
            "id": ["1", "2", "3"], "audio_filepath": paths, "duration": [1.0, 2.0, 3.0], "offset": times,
            "choices": [["x"], None, []], "when": pa.array([0, 1, 2], pa.timestamp("s")), "blob": [b"x", None, b""],
        }),
    ]  # fmt: skip
    for table in tables:
        pq.write_table(table, tmp_path / "m.parquet")
        rows = Manifest.read(str(tmp_path / "m.parquet"), spans=spans)
        assert [(u.id, u.audio_filepath, u.offset, u.duration) for u in rows] == [
            ("1", "a.wav", 0.0, 1.0), ("2", "b.wav", 1.5, 2.0), ("3", "a.wav", 0.0, 3.0)
        ]  # fmt: skip
        assert [u.row for u in rows] == [1, 2, 3]
    last = Manifest.read(str(tmp_path / "m.parquet"))
    assert last[1].extra == {"when": "1970-01-01T00:00:01"}
    assert last[0].choices == ("x",)


@pytest.mark.parametrize("spans", [True, False])
def test_parquet_that_is_no_manifest(spans: bool, tmp_path: Path) -> None:
    def said() -> str:
        with pytest.raises(InputError) as e:
            Manifest.read(str(tmp_path / "m.parquet"), spans=spans)
        return str(e.value)

    assert "no such manifest" in said()
    pq.write_table(pa.table({"audio": ["a.wav"], "id": ["x"]}), tmp_path / "m.parquet")
    assert "no manifest, which has one column audio_filepath (here: audio, id); import it" in said()
    pq.write_table(pa.table({"audio_filepath": pa.array([], pa.string())}), tmp_path / "m.parquet")
    assert "no rows" in said()
    pq.write_table(pa.table({"audio_filepath": [{"bytes": b"x", "path": "p"}]}), tmp_path / "m.parquet")
    assert "m.parquet:1: no audio_filepath" in said()
    pq.write_table(pa.table({"audio_filepath": ["a.wav"] * 1000}), tmp_path / "m.parquet")
    whole = (tmp_path / "m.parquet").read_bytes()
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        (tmp_path / "m.parquet").write_bytes(whole[:cut])
        assert "not a whole Parquet table" in said()
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"audio_filepath": bad}), tmp_path / "m.parquet")
    assert "cannot be read as a manifest" in said()


def test_many_rows_of_which_few_need_the_exact_reader(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"u{i}", "audio_filepath": f"{i}.wav", "duration": 1.0} for i in range(150_000)
    ]
    for at in (5, 70_000, 149_999):
        rows[at] = {"id": f"u{at}", "audio_filepath": None, "prompt": "p", "response": "r"}
    pq.write_table(table_of(rows), tmp_path / "m.parquet", row_group_size=60_000)
    found = Manifest.read(str(tmp_path / "m.parquet"), spans=True)
    assert found.ids.to_pylist() == [row["id"] for row in rows]
    assert (~found.with_audio).nonzero()[0].tolist() == [5, 70_000, 149_999]
    assert found.lines.tolist() == list(range(1, 150_001))


def test_parts_in_a_store() -> None:
    for i, rows in enumerate((ROWS[:3], ROWS[3:])):
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        storage.write_bytes(f"memory://parts/m/p{i}.jsonl", data)
    storage.write_bytes("memory://parts/whole.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS).encode())
    sink = pa.BufferOutputStream()
    pq.write_table(table_of(ROWS), sink)
    storage.write_bytes("memory://parts/p.parquet", sink.getvalue().to_pybytes())
    whole = Manifest.read("memory://parts/whole.jsonl")
    for path in (
        "memory://parts/m",
        "memory://parts/m/p{0..1}.jsonl",
        "memory://parts/m/p*.jsonl",
        "memory://parts/p.parquet",
    ):
        found = Manifest.read(path, spans=True)
        assert found.digests.tolist() == whole.digests.tolist()
    assert Manifest.read("memory://parts/m")[0].audio == "memory://parts/m/wav/a.wav"
    with pytest.raises(InputError, match=r"p2\.jsonl: no such file"):
        Manifest.read("memory://parts/m/p{0..2}.jsonl")


def test_stats_and_split_of_parts(tmp_path: Path) -> None:
    rows = [{"id": f"u{i}", "audio_filepath": f"{i}.wav", "duration": 1.0} for i in range(40)]
    for i in range(4):
        write(tmp_path / f"m/p-{i}.jsonl", rows[10 * i : 10 * i + 10])
    stats = manifest_stats(f"{tmp_path}/m/p-{{0..3}}.jsonl", read_headers=False)
    assert (stats.rows, stats.seconds) == (40, 40.0)
    parts = split_manifest(f"{tmp_path}/m/p-{{0..3}}.jsonl", {"train": 0.7, "test": 0.3})
    assert [p.path for p in parts] == [f"{tmp_path}/m/p.train.jsonl", f"{tmp_path}/m/p.test.jsonl"]
    whole = Manifest.read(f"{tmp_path}/m/p-{{0..3}}.jsonl")
    dealt = [int(u.digest, 16) for p in parts for u in Manifest.read(p.path)]
    assert sorted(dealt) == sorted(whole.digests.tolist())
    for path in (f"{tmp_path}/m", f"{tmp_path}/m/*.jsonl"):  # what was dealt out would be read again
        with pytest.raises(InputError, match=r"would be a part of .*; --out names another folder"):
            split_manifest(path, {"train": 0.7, "test": 0.3})
    out = split_manifest(f"{tmp_path}/m/p-*.jsonl", {"train": 0.7, "test": 0.3}, out_dir=str(tmp_path / "o"))
    assert Manifest.read(out[0].path)[0].audio_filepath.startswith(f"{tmp_path}/m/")
