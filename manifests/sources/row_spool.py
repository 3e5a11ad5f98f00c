"""Rows on their way to a manifest: lines in a temporary file, of each row some 40 bytes in memory, and its id.

Ids are settled when all rows are known: two rows may not have one, and rows without one are named.
"""

import json
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from coat.manifests.corpus.columns import TEXT
from coat.manifests.corpus.default_ids import append_offsets, fill_ids
from coat.manifests.corpus.digests import hash_texts
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import Problem

pc: Any = pyarrow.compute

NAMED_AT_ONCE = 65536  # ids that are strings at a time
to_line = json.JSONEncoder(ensure_ascii=False).encode  # as json.dumps, which makes an encoder a call
NO_ID = '{"id": ""'  # how the line of a row without an id begins


class RowSpool:
    """Rows in their order. `add` takes some thousand at a time."""

    def __init__(self) -> None:
        self.lines: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", prefix="coat-rows-")  # noqa: SIM115
        self.files: dict[str, int] = {}  # that rows came from, numbered
        self.file, self.row = array("q"), array("q")  # of each row: where it came from
        self.is_written = array("b")  # 0: it has no duration that could be read
        self.seconds = array("d")
        self.ids: list[pa.Array] = []
        self.stems: list[pa.Array] = []  # of rows without an id: what names them

    def __enter__(self) -> "RowSpool":
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()

    def __len__(self) -> int:
        return len(self.row)

    def add(
        self, utterances: Sequence[Utterance], origins: Sequence[Problem], stems: Sequence[str], written: Sequence[bool]
    ) -> None:
        """`written`: rows that are to be in the manifest; the others only keep their ids from being taken."""
        for u, origin, is_written in zip(utterances, origins, written, strict=True):
            self.file.append(self.files.setdefault(origin.file, len(self.files)))
            self.row.append(origin.row)
            self.is_written.append(is_written)
            self.seconds.append(u.duration or 0.0 if is_written else 0.0)
            if is_written:
                self.lines.write(to_line(u.to_row()) + "\n")
        self.ids.append(pa.array([u.id for u in utterances], TEXT))
        offsets = np.array([u.offset for u in utterances], np.float64)
        self.stems.append(append_offsets(pa.array(stems, TEXT), offsets))

    def repeated_ids(self) -> Iterator[tuple[int, Problem]]:
        """Rows whose id an earlier row has, and what is wrong with them."""
        if not len(self):
            return
        digests = np.concatenate([hash_texts(ids) for ids in self.ids])
        named = np.concatenate([pc.not_equal(ids, "").to_numpy(zero_copy_only=False) for ids in self.ids])
        order = np.argsort(digests, kind="stable")
        in_order = digests[order]
        is_repeat = np.append(False, in_order[1:] == in_order[:-1]) & named[order]
        first_of_group = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(len(order))))
        earlier = {int(order[i]): int(order[first_of_group[i]]) for i in np.flatnonzero(is_repeat)}
        files, ends = list(self.files), np.cumsum([len(ids) for ids in self.ids])
        for row in sorted(earlier):
            block = int(np.searchsorted(ends, row, side="right"))
            identity = self.ids[block][row - (int(ends[block]) - len(self.ids[block]))].as_py()
            message = f"id {identity!r} is also that of row {self.row[earlier[row]]}; ids must be unique"
            yield row, Problem(files[self.file[row]], self.row[row], message)

    def kept(self, left_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Rows that the manifest will have."""
        return np.array(self.is_written, dtype=bool) & ~left_out

    def manifest_lines(self, left_out: NDArray[np.bool_]) -> Iterator[str]:
        """Of every row that is kept. To be called once: ids are given away."""
        names = self.names(left_out)
        kept = self.kept(left_out)
        self.lines.seek(0)
        at = 0
        for first in range(0, len(self), NAMED_AT_ONCE):
            rows = range(first, min(first + NAMED_AT_ONCE, len(self)))
            count = len(rows) - int(left_out[first : rows.stop].sum())
            named = iter(names.slice(at, count).to_pylist())
            at += count
            for row in rows:
                name = None if left_out[row] else next(named)
                line = self.lines.readline() if self.is_written[row] else ""
                if not kept[row]:
                    continue
                if line.startswith(NO_ID):
                    line = f'{{"id": {json.dumps(name, ensure_ascii=False)}{line.removeprefix(NO_ID)}'
                yield line

    def names(self, left_out: NDArray[np.bool_]) -> pa.Array:
        """Ids of the rows that are not left out, `large_string`."""
        ids, stems = concatenate(self.ids), concatenate(self.stems)
        self.ids, self.stems = [], []
        if left_out.any():
            kept = pa.array(~left_out)
            ids, stems = ids.filter(kept), stems.filter(kept)
        return fill_ids(ids, stems) if pc.any(pc.equal(ids, "")).as_py() else ids


def concatenate(parts: list[pa.Array]) -> pa.Array:
    return pa.concat_arrays(parts) if parts else pa.array([], TEXT)
