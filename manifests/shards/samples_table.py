"""`samples.parquet` of a shard set or a sidecar: a row per sample in the order of the tars, with frames by expert."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError
from coat.manifests.processes import this_process

SAMPLES_NAME = "samples.parquet"
ROW_GROUP = 2**20  # rows
READ_BYTES = 16 * 2**20
READ_ROWS = 2**16  # of it in memory at a time
SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),  # its place in index.json
        pa.field("key", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),  # Utterance.digest: what was asked for
        pa.field("source", pa.string()),  # Clip.digest: what was heard; null where it was not decoded
        pa.field("offset", pa.int64(), nullable=False),  # of its first header in the tar
        pa.field("length", pa.int64(), nullable=False),  # bytes, headers and padding too
        pa.field("duration", pa.float64(), nullable=False),  # seconds of audio
        pa.field("start", pa.float64(), nullable=False),  # seconds from the start of its utterance
        pa.field("whole", pa.bool_(), nullable=False),  # false: a piece of an utterance that was cut
        pa.field("characters", pa.int32(), nullable=False),  # of text, prompt and response
    ]
)
SIDECAR_SAMPLE_SCHEMA = pa.schema([SAMPLE_SCHEMA.field(n) for n in ("shard", "key", "offset", "length")])


def samples_schema(experts: Mapping[str, Any] | list[str], base: pa.Schema = SAMPLE_SCHEMA) -> pa.Schema:
    """With a column `frames.<expert>` each; null where a sample has no target of it."""
    return pa.schema([*base, *(pa.field(f"frames.{name}", pa.int32()) for name in experts)])


def read_samples_table(path: str, xxh3: str) -> pa.Table:
    """InputError where it is not the one that the index was written for."""
    url = storage.join(path, SAMPLES_NAME)
    try:
        data = storage.read_bytes(url)
    except FileNotFoundError as e:
        raise InputError(f"{url}: no such file; build the shards again, or copy the whole folder") from e
    if xxhash.xxh3_128_hexdigest(data) != xxh3:
        raise InputError(f"{url}: does not have the digest of index.json; build the shards again, or copy it again")
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


class SamplesFile:
    """samples.parquet, some rows at a time: of tens of millions of samples it is larger than memory."""

    def __init__(self, file: Path) -> None:
        self.mapped = pa.memory_map(str(file))  # outlives the name

    def __len__(self) -> int:
        return pq.read_metadata(self.mapped).num_rows

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        for batch in pq.ParquetFile(self.mapped).iter_batches(READ_ROWS, columns=list(columns), use_threads=False):
            yield pa.Table.from_batches([batch])

    def digest(self) -> str:
        digest = xxhash.xxh3_128()
        whole = memoryview(self.mapped.read_buffer())
        for start in range(0, len(whole), READ_BYTES):
            digest.update(whole[start : start + READ_BYTES])
        self.mapped.seek(0)
        return digest.hexdigest()


@contextmanager
def open_samples(path: str, xxh3: str) -> Iterator[SamplesFile]:
    """As `read_samples_table`, of which little is in memory. RunError where the temporary folder does not take it."""
    url = storage.join(path, SAMPLES_NAME)
    try:
        if storage.is_local(url):
            samples = SamplesFile(storage.local_path(url))
        else:
            with storage.open_stream(url) as stream, tempfile.TemporaryDirectory(prefix="coat-samples-") as folder:
                samples = SamplesFile(copied(stream, Path(folder, SAMPLES_NAME)))
    except FileNotFoundError as e:
        raise InputError(f"{url}: no such file; build the shards again, or copy the whole folder") from e
    if samples.digest() != xxh3:
        raise InputError(f"{url}: does not have the digest of index.json; build the shards again, or copy it again")
    yield samples


def copied(stream: BinaryIO, file: Path) -> Path:
    with file.open("wb") as out:
        while data := stream.read(READ_BYTES):
            try:
                out.write(data)
            except OSError as e:
                raise RunError(
                    f"{tempfile.gettempdir()}: cannot hold {SAMPLES_NAME} ({e.strerror or e}); point TMPDIR at a "
                    "larger disk"
                ) from e
    return file


class SamplesWriter:
    """Writes samples.parquet tar by tar; its bytes do not depend on how rows came. In memory are ROW_GROUP rows."""

    def __init__(self, schema: pa.Schema) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="coat-samples-")
        self.file = Path(self.folder.name, SAMPLES_NAME)
        self.schema, self.waiting, self.rows = schema, [], 0
        self.writer = pq.ParquetWriter(self.file, schema, compression="zstd")

    def __enter__(self) -> "SamplesWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()
        self.folder.cleanup()

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.rows += len(table)
        while sum(map(len, self.waiting)) >= ROW_GROUP:
            joined = pa.concat_tables(self.waiting)
            self.write_group(joined.slice(0, ROW_GROUP))
            self.waiting = [joined.slice(ROW_GROUP)]

    def write_group(self, table: pa.Table) -> None:
        self.writer.write_table(table.combine_chunks(), row_group_size=ROW_GROUP)

    def finish(self, path: str) -> str:
        """Put it into the folder `path`, and give its digest."""
        left = pa.concat_tables([self.schema.empty_table(), *self.waiting])
        if len(left) or not self.rows:
            self.write_group(left)
        self.writer.close()
        digest = xxhash.xxh3_128()
        with self.file.open("rb") as f:
            while data := f.read(READ_BYTES):
                digest.update(data)
        place_file(self.file, storage.join(path, SAMPLES_NAME))
        return digest.hexdigest()

    def samples(self) -> SamplesFile:
        """All of it, after `finish`."""
        return SamplesFile(self.file)


def place_file(path: Path, url: str) -> None:
    """A local file to its place, where it appears as a whole. OSError or RunError where it is not taken."""
    if not storage.is_local(url):
        storage.upload(path, url)
        return
    target = storage.local_path(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}~{this_process()}~x")
    try:
        shutil.copyfile(path, temporary)
        with temporary.open("rb+") as f:
            os.fsync(f.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
