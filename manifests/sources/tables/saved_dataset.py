"""Arrow tables (streams and files), and folders of them as Hugging Face `datasets` writes with `save_to_disk`.

A column of bytes lies in an Arrow table as it is, so that a row has the address of its bytes in the file. Where they
lie compressed, they are taken out, and audio among them goes to files beside the manifest.
"""

import io
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from coat.manifests import storage
from coat.manifests.addresses import ByteRange
from coat.manifests.errors import InputError
from coat.manifests.sources.records import Record, StoredBytes, split_of
from coat.manifests.sources.tables.parquet import check_unchanged, reading, stated_columns, tables_below

SUFFIXES = (".arrow", ".feather")
FILE_MAGIC = b"ARROW1"
STREAM_ENDS = (b"\xff\xff\xff\xff\0\0\0\0", b"\0\0\0\0")  # of today's, and before Arrow 0.15
NOT_MAPPED = "bytes that lie there compressed have no address of their own: audio among them is copied"


def is_saved_dataset(folder: str) -> bool:
    if any(storage.is_file(storage.join(folder, name)) for name in ("dataset_dict.json", "state.json")):
        return True
    return any(is_table(name) for name in storage.list_names(folder))


def is_table(name: str) -> bool:
    """And not what `datasets` keeps of a `map` or `filter` beside its tables."""
    return name.endswith(SUFFIXES) and not name.startswith(("cache-", "."))


def read_saved_dataset(path: str) -> Iterator[Record]:
    """An Arrow table, a folder of them, or several splits, whose rows get theirs as `split`."""
    if storage.is_file(path):
        yield from read_arrow(path, "")
    elif storage.is_file(splits := storage.join(path, "dataset_dict.json")):
        names = storage.read_json(splits)
        if not isinstance(names, dict) or not isinstance(names.get("splits"), list):
            raise InputError(f"{splits}: no splits; expected what `save_to_disk` writes")
        for split in map(str, names["splits"]):
            for file in files_of_split(storage.join(path, Path(split).name)):
                yield from read_arrow(file, split)
    elif storage.is_file(storage.join(path, "state.json")):
        for file in files_of_split(path):
            yield from read_arrow(file, "")
    else:
        notes: list[str] = []
        found = [t for suffix in SUFFIXES for t in tables_below(path, suffix, notes)]
        tables = sorted(t for t in found if is_table(t[0].rsplit("/", 1)[-1]))
        if len(tables) < len(found):
            notes.append(f"{path}: {len(found) - len(tables)} cache-*.arrow of `map` or `filter`, passed over")
        yield from (Record(path, 0, note=note) for note in notes)
        for file, relative in tables:
            yield from read_arrow(file, split_of(relative) if relative else "")


def files_of_split(path: str) -> list[str]:
    state = storage.join(path, "state.json")
    try:
        said = storage.read_json(state)
        names = [Path(part["filename"]).name for part in said["_data_files"]]
    except (FileNotFoundError, KeyError, TypeError) as e:
        raise InputError(f"{path}: no state.json as `save_to_disk` writes it ({e})") from e
    if said.get("_indices_data_files"):  # of datasets before 2.0: rows in another order, or some of them
        raise InputError(f"{state}: rows are chosen by an index beside the tables; save it again by `flatten_indices`")
    files = [storage.join(path, name) for name in names]
    if missing := [file for file in files if not storage.is_file(file)]:
        raise InputError(f"{missing[0]}: no such file, though {state} names it")
    return files


def read_arrow(url: str, split: str) -> Iterator[Record]:
    own = {"split": split} if split else {}
    with reading(url, "Arrow"):
        stamp = storage.info(url).stamp
        with open_table(url) as source:
            table = open_batches(url, source)
            columns = stated_columns(url, table.schema)
            row = 0
            for batch in batches_of(table):
                values = [source.values_of(column) for column in batch.columns]
                for cells in zip(*values, strict=True):
                    row += 1
                    yield Record(url, row, own | dict(zip(table.schema.names, cells, strict=True)), columns=columns)
            if source.has_unmapped:
                yield Record(url, 0, note=f"{url}: {NOT_MAPPED}")
        check_unchanged(url, stamp)


def open_batches(url: str, source: "Source") -> Any:
    """InputError where a stream lacks its end: what was cut off where a batch ends would not be missed."""
    head = source.file.read(len(FILE_MAGIC))
    source.file.seek(0)
    if head == FILE_MAGIC:
        return pa.ipc.open_file(source.file)
    size = storage.size(url)
    if not storage.read_range(url, max(size - 8, 0), size).endswith(STREAM_ENDS):
        raise pa.ArrowInvalid("it ends before its last message")
    return pa.ipc.open_stream(source.file)


def batches_of(table: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(table, pa.ipc.RecordBatchFileReader):
        return (table.get_batch(i) for i in range(table.num_record_batches))
    return iter(table)


def open_table(url: str) -> "Source":
    return Mapped(url) if storage.is_local(url) else Fetched(url)


class Source:
    """A file whose buffers' places are known."""

    file: Any  # as Arrow reads it
    has_unmapped = False  # whether bytes had to be taken out

    def __init__(self, url: str) -> None:
        self.url = storage.absolute(url)

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def offset(self, buffer: pa.Buffer) -> int | None:
        """In the file; None where it does not lie there as it is."""
        raise NotImplementedError

    def values_of(self, array: Any) -> list[Any]:
        """As `to_pylist`, with StoredBytes for bytes."""
        kind = array.type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return self.stored(array)
        if pa.types.is_struct(kind) and holds_bytes(kind):
            names = [field.name for field in kind]
            inner = zip(*map(self.values_of, array.flatten()), strict=True)
            valid = array.is_valid().to_pylist()
            return [dict(zip(names, v, strict=True)) if ok else None for v, ok in zip(inner, valid, strict=True)]
        if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and holds_bytes(kind):
            inner, lengths = iter(self.values_of(array.flatten())), array.value_lengths().to_pylist()
            return [None if n is None else [next(inner) for _ in range(n)] for n in lengths]
        return array.to_pylist()

    def stored(self, array: Any) -> list[Any]:
        width = np.int32 if pa.types.is_binary(array.type) else np.int64
        _, ends, data = array.buffers()
        start = self.offset(data) if data is not None and data.size else None
        if start is None:
            found = array.to_pylist()
            self.has_unmapped = self.has_unmapped or any(found)
            return found
        edges = (np.frombuffer(ends, width)[array.offset : array.offset + len(array) + 1].astype(int) + start).tolist()
        valid = array.is_valid().to_pylist()
        return [
            (StoredBytes(str(ByteRange(self.url, a, b - a))) if b > a else b"") if ok else None
            for a, b, ok in zip(edges[:-1], edges[1:], valid, strict=True)
        ]


class Mapped(Source):
    """A local file: bytes that are not looked at are not read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        path = str(storage.local_path(url))
        if not os.path.getsize(path):
            raise pa.ArrowInvalid("it has no bytes")
        self.file = pa.memory_map(path)
        whole = self.file.read_buffer()
        self.file.seek(0)
        self.base, self.nbytes = whole.address, whole.size

    def offset(self, buffer: pa.Buffer) -> int | None:
        at = buffer.address - self.base
        return at if at >= 0 and at + buffer.size <= self.nbytes else None


class Fetched(Source):
    """A remote file: Arrow wants the whole of each batch."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reads: deque[tuple[int, pa.Buffer]] = deque(maxlen=4)  # the last, each with its place
        self.blocks = storage.open_blocks(url)
        self.file = pa.PythonFile(cast(io.IOBase, self), "r")

    def read(self, nbytes: int = -1) -> bytes:
        at = self.blocks.tell()
        data = self.blocks.read(nbytes)
        self.reads.append((at, pa.py_buffer(data)))
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.blocks.seek(offset, whence)

    def tell(self) -> int:
        return self.blocks.tell()

    def close(self) -> None:
        self.blocks.close()

    @property
    def closed(self) -> bool:
        return self.blocks.closed

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def offset(self, buffer: pa.Buffer) -> int | None:
        for place, held in self.reads:
            if held.address <= buffer.address and buffer.address + buffer.size <= held.address + held.size:
                return place + buffer.address - held.address
        return None


def holds_bytes(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(holds_bytes(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return holds_bytes(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
