"""PAGE.jsonl: the rows as they are measured, so that the same command goes on where it was stopped.

Its first line says what was measured; a file of something else is never gone on with. Rank r of several writes
PAGE-rank<r>.jsonl, and rank 0 joins them at the end: then rows are in their order, whatever happened on the way.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coat.manifests import InputError
from coat.trainer.evaluation.asking.loop import append_lines, replace_lines
from coat.trainer.evaluation.predictions import lines_of

HEAD = "interventions"
Record = Mapping[str, Any]


class RowsFile:
    """`path` None: rows are kept in memory alone."""

    def __init__(self, path: Path | None, head: Mapping[str, Any], rank: int = 0) -> None:
        self.path, self.head, self.rank = path, json.loads(json.dumps(head)), rank
        self.records: dict[int, Record] = {}
        for one in self.files():
            self.records |= self.read(one)

    @property
    def own(self) -> Path | None:
        if self.path is None or not self.rank:
            return self.path
        return self.path.with_name(f"{self.path.stem}-rank{self.rank}.jsonl")

    def files(self) -> list[Path]:
        if self.path is None:
            return []
        return [self.path, *sorted(self.path.parent.glob(f"{escaped(self.path.stem)}-rank*.jsonl"))]

    def read(self, path: Path) -> dict[int, Record]:
        """InputError where it holds something else."""
        found: dict[int, Record] = {}
        for number, line in enumerate(lines_of(path), start=1):
            try:
                record = json.loads(line)
                if number == 1:
                    self.check_head(path, record[HEAD])
                else:
                    found[int(record["number"])] = record
            except (ValueError, KeyError, TypeError) as e:
                if isinstance(e, InputError):
                    raise
                raise InputError(f"{path}:{number}: not a row of `coat intervene`; choose another --out") from e
        return found

    def check_head(self, path: Path, head: Mapping[str, Any]) -> None:
        changed = [key for key in {**head, **self.head} if head.get(key) != self.head.get(key)]
        if changed:
            now, then = (short(side.get(changed[0])) for side in (self.head, head))
            raise InputError(
                f"{path}: holds other interventions ({changed[0]} {then}, now {now}); choose another --out"
            )

    def add(self, records: Sequence[Record]) -> None:
        """RunError where the disk does not take them."""
        if self.own is not None:
            begins = [self.line({HEAD: self.head})] if next(lines_of(self.own), None) is None else []
            append_lines(self.own, [*begins, *map(self.line, records)])
        self.records |= {int(record["number"]): record for record in records}

    def join(self) -> None:
        """By the main rank, when all have ended."""
        for path in self.files():
            self.records |= self.read(path)
        self.records = dict(sorted(self.records.items()))
        if self.path is not None:
            replace_lines(self.path, [self.line({HEAD: self.head}), *map(self.line, self.records.values())])
            for path in self.files()[1:]:
                path.unlink()

    @staticmethod
    def line(record: Record) -> str:
        return json.dumps(record, ensure_ascii=False) + "\n"


def escaped(stem: str) -> str:
    """For glob."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in stem)


def short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:60]
