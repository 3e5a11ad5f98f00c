"""Manifests: JSONL (or Parquet) with NeMo's keys plus `id`, `prompt` and `response`; in one file or in parts.

One row: {"id": "a1", "audio_filepath": "wav/a1.flac", "duration": 3.2, "offset": 0.0, "text": "...",
"prompt": "What is said?", "response": "...", "choices": ["...", "..."]}. Only `audio_filepath` is
required. `question` and `answer` are read as `prompt` and `response`; keys that coat does not know
are kept under their own names. Relative paths are relative to the manifest. `turns`, a list of [prompt, answer], are
what was said before the prompt. Where `audio_filepath` is null, a row with id, prompt and response is text alone.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.columns import to_table
from coat.manifests.corpus.digests import hash_texts, row_digests
from coat.manifests.corpus.readers.parts import Parts
from coat.manifests.corpus.reading import read_table
from coat.manifests.corpus.table_spool import take_rows
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.corpus.writing import write_rows
from coat.manifests.errors import ManifestError, Problem

pc: Any = pyarrow.compute  # its functions are made when it is imported, unseen by type checkers
ITERATED_ROWS = 4096  # made into utterances at a time


class Manifest(Sequence[Utterance]):
    """The utterances of a corpus, in the order of the file. Held as columns; an Utterance is made when one is taken."""

    def __init__(self, utterances: Iterable[Utterance], path: str = "") -> None:
        self.table, self.path = to_table(utterances), path
        self.parts: Parts | None = None

    @classmethod
    def of_table(cls, table: pa.Table, path: str, parts: Parts | None = None) -> "Manifest":
        """`parts`: of one that was read."""
        manifest = cls.__new__(cls)
        manifest.table, manifest.path, manifest.parts = table, path, parts
        return manifest

    @classmethod
    def read(cls, path: str, spans: bool = False, on_disk: bool = False) -> "Manifest":
        """Read a `.jsonl`, `.jsonl.gz` or `.parquet` file, or the parts of a manifest: a pattern
        (`part-{000..063}.jsonl`, `part-*.parquet`) or a folder. ManifestError lists every row that is not one.

        `spans`: keep what says which audio is meant and nothing else (no texts, no unknown keys), at some
        100 bytes a row; ten times as fast. `on_disk`: what is larger than some 256 MB is mapped from a temporary file.
        """
        manifest, problems = read_manifest(path, spans, on_disk)
        if problems:
            raise ManifestError(problems)
        return manifest

    def write(self, path: str) -> None:
        """Write all rows at once; the file appears whole or not at all."""
        write_rows(path, (u.to_row() for u in self))

    @property
    def seconds(self) -> float:
        """Sum of the durations that the rows state."""
        return math.fsum(np.nan_to_num(self.durations))

    # Columns, for what is done with millions of rows.

    @property
    def ids(self) -> pa.Array:
        """large_string"""
        return self.column("id")

    @property
    def audio_filepaths(self) -> pa.Array:
        """large_string, as they stand in the manifest; empty for rows of text alone"""
        return self.column("audio_filepath")

    @property
    def with_audio(self) -> NDArray[np.bool_]:
        """Rows that are not text alone."""
        return np.asarray(pc.not_equal(self.table.column("audio_filepath"), ""))

    @property
    def offsets(self) -> NDArray[np.float64]:
        """Seconds."""
        return self.column("offset").to_numpy()

    @cached_property
    def durations(self) -> NDArray[np.float64]:
        """Seconds; NaN where a row states none."""
        return self.column("duration").to_numpy(zero_copy_only=False)

    @property
    def lines(self) -> NDArray[np.int32]:
        """In the file, from 1; through all parts."""
        return self.column("row").to_numpy()

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """`Utterance.digest` of every row, as integers."""
        return join(
            row_digests(
                b["id"], b["audio_filepath"], b["offset"].to_numpy(), b["duration"].to_numpy(zero_copy_only=False)
            )
            for b in self.table.to_batches()
        )

    @property
    def id_digests(self) -> NDArray[np.uint64]:
        """64-bit hashes of the ids."""
        return join(hash_texts(batch["id"]) for batch in self.table.to_batches())

    def column(self, name: str) -> pa.Array:
        column = self.table.column(name)
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def take(self, indices: NDArray[np.integer]) -> list[Utterance]:
        """Rows by their positions."""
        return [self.utterance(row) for row in take_rows(self.table, indices)]

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> "Manifest": ...
    def __getitem__(self, index: int | slice) -> "Utterance | Manifest":
        if isinstance(index, slice):
            rows = pa.array(np.arange(len(self))[index])
            return Manifest.of_table(self.table.take(rows).combine_chunks(), self.path, self.parts)
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        (row,) = self.table.slice(index % len(self), 1).to_pylist()
        return self.utterance(row)

    def __len__(self) -> int:
        return self.table.num_rows

    def __iter__(self) -> Iterator[Utterance]:
        for batch in self.table.to_batches(max_chunksize=ITERATED_ROWS):
            for row in batch.to_pylist():
                yield self.utterance(row)

    def __repr__(self) -> str:
        return f"Manifest({self.path!r}, {len(self)} utterances, {self.seconds / 3600:.2f} h)"

    @cached_property
    def base(self) -> str:
        """The folder that relative paths count from; absolute: a worker elsewhere has another working directory."""
        return self.parts.base if self.parts else storage.parent(storage.absolute(self.path))

    def problem(self, row: int, message: str) -> Problem:
        """Of a row, by its number in `lines`."""
        return Problem(*self.parts.place(row), message) if self.parts else Problem(self.path, row, message)

    def row_name(self, row: int) -> str:
        """`row 7`, or `row 7 of part-001.jsonl` where there are several; by its number in `lines`."""
        return self.parts.name(row) if self.parts else f"row {row}"

    def utterance(self, row: dict[str, Any]) -> Utterance:
        """Columns that the table lacks were not read."""
        path, audio, extra = row["audio_filepath"], row.get("audio"), row.get("extra")
        return Utterance(
            id=row["id"],
            audio=storage.resolve(self.base, path) if audio is None and path else audio or "",
            audio_filepath=path,
            offset=row["offset"],
            duration=row["duration"],
            text=row.get("text"),
            prompt=row.get("prompt"),
            response=row.get("response"),
            choices=tuple(row.get("choices") or ()),
            extra=json.loads(extra) if extra else {},
            row=row["row"],
        )


def join(parts: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.concatenate([np.array([], np.uint64), *parts])


def read_manifest(path: str, spans: bool = False, on_disk: bool = False) -> tuple[Manifest, list[Problem]]:
    """Rows that can be read, and a problem for each that cannot. InputError where there is no file."""
    path = str(path)
    table, problems, parts = read_table(path, spans, on_disk)
    return Manifest.of_table(table, path, parts), problems
