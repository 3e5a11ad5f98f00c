"""Audio in Parquet and Arrow tables is read where it lies: against `datasets`, and against pyarrow."""

import io
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import soundfile

from coat.manifests import addresses, storage
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.validate import validate_manifest
from coat.manifests.errors import InputError
from coat.manifests.sources.importing import import_manifest
from coat.manifests.sources.tables.parquet import read_parquet
from coat.manifests.sources.tables.saved_dataset import read_saved_dataset
from tests.manifests.conftest import encoded, reason, sine
from tests.manifests.sources.importing import imported, problems

COUNT = 7
SOUNDS = [encoded(sine(0.2 + 0.1 * i, 200.0 + 50 * i), ("WAV", "FLAC")[i % 2], "PCM_16") for i in range(COUNT)]
SECONDS = [0.2 + 0.1 * i for i in range(COUNT)]


def held(audio: str) -> bytes:
    opened = addresses.parse(audio).open()
    assert not isinstance(opened, str)
    return opened.getvalue()


def table_of(sounds: list[bytes] = SOUNDS, **columns: Any) -> pa.Table:
    audio = [{"bytes": data, "path": f"clip{i}.wav"} for i, data in enumerate(sounds)]
    plain = {"id": [f"u{i}" for i in range(len(sounds))], "audio": audio, "duration": SECONDS[: len(sounds)]}
    return pa.table({name: values for name, values in (plain | columns).items() if values is not None})


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    for i, data in enumerate(SOUNDS):
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / f"src/c{i}.wav").write_bytes(data)
    paths = [str(tmp_path / f"src/c{i}.wav") for i in range(COUNT)]
    made = datasets.Dataset.from_dict({"audio": paths, "sentence": [f"s{i}" for i in range(COUNT)]})
    made = made.cast_column("audio", datasets.Audio())
    embedded = made.with_format("arrow").map(datasets.table.embed_table_storage, batched=True)  # as push_to_hub has it
    return embedded.with_format(None)


def same_as_datasets_has(rows: Any, dataset: Any) -> None:
    import datasets

    assert len(rows) == len(dataset) > 0
    for u, row in zip(rows, dataset.cast_column("audio", datasets.Audio(decode=False)), strict=True):
        expected, _ = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
        np.testing.assert_array_equal(decode(u.audio).samples_T, expected)
        assert u.text == row["sentence"]


@pytest.mark.parametrize("batch_size", [1, 3, COUNT])
def test_parquet_of_datasets(batch_size: int, tmp_path: Path, dataset: Any) -> None:
    import datasets

    dataset.to_parquet(tmp_path / "data/train-00000-of-00001.parquet", batch_size=batch_size)
    rows = imported(tmp_path / "data", tmp_path / "m.jsonl")
    assert {addresses.container(u.audio_filepath) for u in rows} == {"data/train-00000-of-00001.parquet"}
    assert [u.id for u in rows] == [f"c{i}" for i in range(COUNT)]
    assert {u.extra["split"] for u in rows} == {"train"}
    assert [u.duration for u in rows] == pytest.approx(SECONDS)
    assert not (tmp_path / "m_audio").exists()
    same_as_datasets_has(rows, datasets.Dataset.from_parquet(str(tmp_path / "data/train-00000-of-00001.parquet")))
    assert validate_manifest(str(tmp_path / "m.jsonl"), deep=True) == []


def test_what_datasets_saves_to_disk(tmp_path: Path, dataset: Any) -> None:
    import datasets

    dataset.save_to_disk(tmp_path / "one", num_shards=3)
    rows = imported(tmp_path / "one", tmp_path / "m.jsonl")
    assert {Path(addresses.container(u.audio_filepath)).name for u in rows} == {
        f"data-0000{i}-of-00003.arrow" for i in range(3)
    }
    assert not (tmp_path / "m_audio").exists()
    same_as_datasets_has(rows, datasets.load_from_disk(tmp_path / "one"))
    (tmp_path / "one/state.json").unlink()  # a folder of tables
    (tmp_path / "one/cache-1.arrow").write_bytes((tmp_path / "one/data-00000-of-00003.arrow").read_bytes())
    noted = import_manifest(str(tmp_path / "one"), str(tmp_path / "n.jsonl")).notes
    assert f"{tmp_path}/one: 1 cache-*.arrow of `map` or `filter`, passed over" in noted
    assert [u.audio for u in imported(tmp_path / "one", tmp_path / "n.jsonl")] == [u.audio for u in rows]

    datasets.DatasetDict({"train": dataset, "test": dataset.select([2, 5])}).save_to_disk(tmp_path / "two")
    rows = imported(tmp_path / "two", tmp_path / "t.jsonl", split="test")
    assert {u.extra["split"] for u in rows} == {"test"}
    same_as_datasets_has(rows, datasets.load_from_disk(tmp_path / "two")["test"])
    assert len(imported(tmp_path / "two", tmp_path / "a.jsonl")) == COUNT + 2


def test_rows_that_were_chosen_are_those_that_are_saved(tmp_path: Path, dataset: Any) -> None:
    chosen = dataset.select([4, 1, 3])
    chosen.save_to_disk(tmp_path / "d")
    same_as_datasets_has(imported(tmp_path / "d", tmp_path / "m.jsonl"), chosen)
    state = json.loads((tmp_path / "d/state.json").read_text())
    (tmp_path / "d/state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(InputError, match="flatten_indices"):
        import_manifest(str(tmp_path / "d"), str(tmp_path / "n.jsonl"))


def binary_kinds() -> dict[str, Any]:
    structs = [{"bytes": data, "path": None} for data in SOUNDS]
    large = pa.struct([("bytes", pa.large_binary()), ("path", pa.string())])
    return {
        "struct": pa.array(structs),
        "large": pa.array(structs, large),
        "bytes alone in a struct": pa.array([{"bytes": data} for data in SOUNDS]),
        "plain": pa.array(SOUNDS),
        "plain large": pa.array(SOUNDS, pa.large_binary()),
        "dictionary": pa.array(SOUNDS).dictionary_encode(),
        "list of one": pa.array([[s] for s in structs]),
        "list of plain": pa.array([[data] for data in SOUNDS]),
    }


@pytest.mark.parametrize(
    ("kind", "codec", "rows"),
    [
        *itertools.product(binary_kinds(), ["zstd"], [1, 3, COUNT]),
        *(("struct", c, 2) for c in ("snappy", "gzip", "none")),
    ],
)
def test_cells_are_the_bytes_that_were_written(kind: str, codec: str, rows: int, tmp_path: Path) -> None:
    table = table_of(audio=binary_kinds()[kind])
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=rows, compression=codec)
    found = imported(tmp_path / "d.parquet", tmp_path / "m.jsonl")
    assert [held(u.audio) for u in found] == SOUNDS
    for name, writer in (("s.arrow", pa.ipc.new_stream), ("f.arrow", pa.ipc.new_file)):
        with writer(str(tmp_path / name), table.schema) as f:
            f.write_table(table, max_chunksize=rows)
        done = import_manifest(str(tmp_path / name), str(tmp_path / f"{name}.jsonl"))
        copied = kind == "dictionary"  # equal values share their bytes
        assert (tmp_path / f"{name}_audio").exists() == copied
        if not copied:
            assert [held(u.audio) for u in Manifest.read(done.path)] == SOUNDS
        assert [decode(u.audio).digest for u in Manifest.read(done.path)] == [decode(u.audio).digest for u in found]


def test_audio_is_not_read_where_durations_are_there(tmp_path: Path) -> None:
    """All of its bytes are damaged, and nobody notices."""
    pq.write_table(table_of(), tmp_path / "d.parquet", row_group_size=3, compression="none", use_dictionary=False)
    before = imported(tmp_path / "d.parquet", tmp_path / "m.jsonl")
    data = bytearray((tmp_path / "d.parquet").read_bytes())
    metadata = pq.ParquetFile(tmp_path / "d.parquet").metadata
    for group in range(metadata.num_row_groups):
        column = metadata.row_group(group).column(1)
        assert column.path_in_schema == "audio.bytes"
        start = column.data_page_offset
        data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    (tmp_path / "d.parquet").write_bytes(data)
    assert imported(tmp_path / "d.parquet", tmp_path / "n.jsonl") == before
    assert {reason(u.audio) for u in before} == {"unreadable"}  # but by who listens


def test_rows_with_a_path_alone(tmp_path: Path) -> None:
    (tmp_path / "wav").mkdir()
    for i, data in enumerate(SOUNDS):
        (tmp_path / f"wav/{i}.wav").write_bytes(data)
    for some in ({0, 1, 2, 3}, set(), {1}):  # of groups of 2: all, none, or one of them have bytes
        audio = [{"bytes": d if i in some else None, "path": f"wav/{i}.wav"} for i, d in enumerate(SOUNDS)]
        pq.write_table(table_of(audio=audio), tmp_path / "d.parquet", row_group_size=2)
        pa_table = pq.read_table(tmp_path / "d.parquet")
        with pa.ipc.new_stream(str(tmp_path / "d.arrow"), pa_table.schema) as f:
            f.write_table(pa_table)
        for name in ("d.parquet", "d.arrow"):
            found = imported(tmp_path / name, tmp_path / "m.jsonl")
            assert [addresses.is_address(u.audio_filepath) for u in found] == [i in some for i in range(COUNT)]
            assert [decode(u.audio).seconds for u in found] == pytest.approx(SECONDS)


def test_rows_without_audio_are_named(tmp_path: Path) -> None:
    audio = [{"bytes": data, "path": None} for data in SOUNDS]
    some: list[Any] = [*audio[:2], None, {"bytes": None, "path": None}, *audio[4:]]
    pq.write_table(table_of(audio=some), tmp_path / "d.parquet", row_group_size=3)
    lines = problems(tmp_path / "d.parquet", tmp_path / "m.jsonl")
    assert [line.split(":")[0] for line in lines] == ["3", "4"]
    twice = [[a] for a in audio[:-1]] + [audio[:2]]
    pq.write_table(table_of(audio=twice), tmp_path / "d.parquet")
    assert problems(tmp_path / "d.parquet", tmp_path / "m.jsonl") == [
        f"{COUNT}: 2 audio files in one row; expected one"
    ]
    twice_plain = [[data] for data in SOUNDS[:-1]] + [SOUNDS[:2]]
    pq.write_table(table_of(audio=twice_plain), tmp_path / "d.parquet")
    assert problems(tmp_path / "d.parquet", tmp_path / "m.jsonl") == [
        f"{COUNT}: 2 audio files in one row; expected one"
    ]


def test_two_audio_columns(tmp_path: Path) -> None:
    other = [{"bytes": data, "path": "other.wav"} for data in SOUNDS[::-1]]
    pq.write_table(table_of(clean=other, picture=[b"PNG"] * COUNT), tmp_path / "d.parquet")
    done = import_manifest(str(tmp_path / "d.parquet"), str(tmp_path / "m.jsonl"))
    assert [held(u.audio) for u in Manifest.read(done.path)] == SOUNDS
    assert "ignored clean (its bytes), picture (binary)" in done.notes[0]
    chosen = imported(tmp_path / "d.parquet", tmp_path / "n.jsonl", column_map={"audio_filepath": "clean"})
    assert [held(u.audio) for u in chosen] == SOUNDS[::-1]
    assert chosen[0].extra["original_audio" if "original_audio" in chosen[0].extra else "audio"]["bytes"] is None


def test_the_features_of_a_table_name_its_audio(tmp_path: Path, dataset: Any) -> None:
    import datasets

    named = dataset.rename_column("audio", "speech").add_column("path", ["nowhere.wav"] * COUNT)
    named.to_parquet(tmp_path / "d.parquet")
    named.save_to_disk(tmp_path / "saved")
    for source in ("d.parquet", "saved"):
        rows = imported(tmp_path / source, tmp_path / "m.jsonl")
        same_as_datasets_has(rows, named.rename_column("speech", "audio"))
        assert rows[0].extra["path"] == "nowhere.wav"
    two = named.add_column("more", [str(tmp_path / "src/c0.wav")] * COUNT).cast_column("more", datasets.Audio())
    two.remove_columns("path").to_parquet(tmp_path / "two.parquet")
    assert "--map audio_filepath=COLUMN" in problems(tmp_path / "two.parquet", tmp_path / "o.jsonl")[0]


def test_tables_that_are_cut_short(tmp_path: Path) -> None:
    pq.write_table(table_of(), tmp_path / "d.parquet", row_group_size=2)
    edges = {".parquet": [4]}
    for name, writer in (("s.arrow", pa.ipc.new_stream), ("f.arrow", pa.ipc.new_file)):
        edges[name] = []
        with pa.OSFile(str(tmp_path / name), "wb") as f, writer(f, table_of().schema) as w:
            for batch in table_of().to_batches(2):
                w.write_batch(batch)
                edges[name].append(f.tell())  # where nothing is cut but what follows
    for name in ("d.parquet", "s.arrow", "f.arrow"):
        whole = (tmp_path / name).read_bytes()
        cuts = [0, 3, 8, len(whole) // 3, len(whole) // 2, len(whole) - 9, len(whole) - 1, *edges.get(name, [])]
        for cut in cuts:
            (tmp_path / name).write_bytes(whole[:cut])
            with pytest.raises(InputError, match=f"{name}: not a whole") as e:
                import_manifest(str(tmp_path / name), str(tmp_path / "m.jsonl"))
            assert "\n" not in str(e.value)
            assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize("name", ["d.parquet", "d.arrow"])
def test_a_table_that_changes_while_it_is_read(name: str, tmp_path: Path) -> None:
    def write(table: pa.Table) -> None:
        if name == "d.parquet":
            pq.write_table(table, tmp_path / "new")
        else:
            with pa.ipc.new_stream(str(tmp_path / "new"), table.schema) as f:
                f.write_table(table)
        (tmp_path / "new").rename(tmp_path / name)

    write(table_of())
    os.utime(tmp_path / name, (1, 1))  # two writes at one time of the clock look the same
    rows = (read_parquet if name == "d.parquet" else read_saved_dataset)(str(tmp_path / name))
    next(rows)
    write(table_of(SOUNDS[::-1]))
    with pytest.raises(InputError, match="written anew while it was read"):
        list(rows)


def test_bytes_that_are_compressed_in_an_arrow_table_are_copied(tmp_path: Path) -> None:
    with pa.ipc.new_file(
        str(tmp_path / "d.arrow"), table_of().schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as f:
        f.write_table(table_of())
    done = import_manifest(str(tmp_path / "d.arrow"), str(tmp_path / "m.jsonl"))
    assert any("no address of their own: audio among them is copied" in note for note in done.notes)
    rows = Manifest.read(done.path)
    assert [Path(u.audio).read_bytes() for u in rows] == SOUNDS
    assert rows[0].audio_filepath == "m_audio/clip0.wav"


@pytest.mark.parametrize("column", ["a.b", "audio file", "Größe & #=1", "a/b%20"])
def test_names_that_an_address_must_write_otherwise(column: str, tmp_path: Path) -> None:
    for held_as in (SOUNDS, [{"bytes": data, "path": None} for data in SOUNDS]):
        columns: dict[str, Any] = {"audio": None, column: held_as}
        table = table_of(**columns)
        (tmp_path / "x#y=1 &").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "x#y=1 &/t #offset.parquet", row_group_size=3)
        with pa.ipc.new_stream(str(tmp_path / "x#y=1 &/t.arrow"), table.schema) as f:
            f.write_table(table)
        for name in ("t #offset.parquet", "t.arrow"):
            source = tmp_path / "x#y=1 &" / name
            found = imported(source, tmp_path / "m.jsonl", column_map={"audio_filepath": column})
            assert [held(u.audio) for u in found] == SOUNDS


def test_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.table([pa.array(SOUNDS), pa.array(SOUNDS)], names=["audio", "audio"])
    pq.write_table(table, tmp_path / "d.parquet")
    with pa.ipc.new_file(str(tmp_path / "d.arrow"), table.schema) as f:
        f.write_table(table)
    for name in ("d.parquet", "d.arrow"):
        with pytest.raises(InputError, match="columns named twice: audio; rename one"):
            import_manifest(str(tmp_path / name), str(tmp_path / "m.jsonl"))


def test_copy_takes_it_out(tmp_path: Path) -> None:
    pq.write_table(table_of(), tmp_path / "d.parquet", row_group_size=2)
    rows = imported(tmp_path / "d.parquet", tmp_path / "m.jsonl", copy=True)
    assert [u.audio_filepath for u in rows] == [f"m_audio/clip{i}.wav" for i in range(COUNT)]
    assert [Path(u.audio).read_bytes() for u in rows] == SOUNDS


def test_ids_of_rows_that_have_none(tmp_path: Path) -> None:
    """What the audio was called, or else the table and the row."""
    names = ["x/a.wav", "b\\c.d.wav", None, "", "x/a.wav", "/root/e.flac", "noend"]
    audio = [{"bytes": data, "path": name} for data, name in zip(SOUNDS, names, strict=True)]
    (tmp_path / "t").mkdir()
    pq.write_table(table_of(audio=audio, id=None), tmp_path / "t/d.parquet", row_group_size=2)
    rows = imported(tmp_path / "t", tmp_path / "m.jsonl")
    assert [u.id for u in rows] == ["a", "c.d", "d-00000003", "d-00000004", "a#2", "e", "noend"]


def test_tables_in_a_store(tmp_path: Path) -> None:
    """Of a file, a pattern, and a folder with splits."""
    for split, sounds in (("train", SOUNDS), ("test", SOUNDS[:2])):
        pq.write_table(table_of(sounds), tmp_path / "d.parquet", row_group_size=2)
        with pa.ipc.new_stream(str(tmp_path / "d.arrow"), table_of(sounds).schema) as f:
            f.write_table(table_of(sounds), max_chunksize=3)
        url = f"memory://tables/{split}-00000-of-00001.parquet"
        storage.write_bytes(url, (tmp_path / "d.parquet").read_bytes())
        storage.write_bytes(f"memory://saved/{split}/data-00000-of-00001.arrow", (tmp_path / "d.arrow").read_bytes())
        state = json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
        storage.write_bytes(f"memory://saved/{split}/state.json", state.encode())
    storage.write_bytes("memory://saved/dataset_dict.json", b'{"splits": ["train", "test"]}')
    for source in ("memory://tables", "memory://saved"):
        for split, sounds in (("train", SOUNDS), ("test", SOUNDS[:2])):
            done = import_manifest(source, str(tmp_path / f"{split}.jsonl"), split=split)
            rows = Manifest.read(done.path)
            assert [held(u.audio) for u in rows] == sounds
            assert all(u.audio_filepath.startswith(f"{source}/") for u in rows)
            assert not (tmp_path / f"{split}_audio").exists()
    for source in ("memory://tables/train-*.parquet", "memory://saved/train/data-00000-of-{00001..00001}.arrow"):
        done = import_manifest(source, str(tmp_path / "m.jsonl"))
        assert [decode(u.audio).seconds for u in Manifest.read(done.path)] == pytest.approx(SECONDS)
    storage.write_bytes("memory://saved/train/data-00000-of-00001.arrow", (tmp_path / "d.arrow").read_bytes()[:-9])
    with pytest.raises(InputError, match="not a whole Arrow file"):
        import_manifest("memory://saved", str(tmp_path / "n.jsonl"))
