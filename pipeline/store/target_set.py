"""One target set: reading what one expert, with one fingerprint, has committed. N frames, D dim."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError, RunError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.frames_reader import REPAIR_HINT, dask_frames, read_frames
from coat.pipeline.store.layout import DONE, FRAMES, ROWS, SPEC, UNITS
from coat.pipeline.store.outcomes import OUTCOME_COLUMNS, Outcomes, RowsByDigest
from coat.pipeline.store.rows import OK, ROWS_SCHEMA, Row

# A done.json without one of these is torn.
DONE_KEYS = {"rows", "frames", "bytes", "xxh3", "rows_xxh3", "array_xxh3", "done_xxh3"}
READ_AHEAD = 256  # units whose tables wait at most: bounds the memory
READERS = 16  # small files are read this many at a time: object stores answer slowly, but many at once
AnyOutcomes = TypeVar("AnyOutcomes", bound=Outcomes)


@dataclass(frozen=True)
class Target:
    """What an expert gave for one utterance. Frame i is centred at `times[i]` seconds from its start."""

    id: str
    frames: NDArray[Any]  # [N, D], in the spec's dtype
    times: NDArray[np.float64]  # [N]
    spec: TargetSpec


class TargetSet:
    """All that one expert, with one fingerprint, has given: a snapshot of the units committed by now."""

    def __init__(self, url: str, spec: TargetSpec) -> None:
        self.url = url
        self.spec = spec

    @classmethod
    def open(cls, url: str) -> "TargetSet":
        """Read `url/spec.json`. InputError where it is not there, or does not belong to this folder."""
        spec_url = storage.join(url, SPEC)
        try:
            spec = TargetSpec.from_dict(storage.read_json(spec_url), spec_url)
        except FileNotFoundError as e:
            raise InputError(f"{url}: no {SPEC}; not a target set") from e
        if spec.fingerprint != url.rstrip("/").rsplit("/", 1)[-1]:
            raise InputError(f"{spec_url}: gives fingerprint {spec.fingerprint}, not its folder's name; edited?")
        return cls(url, spec)

    def unit_url(self, unit: str, *parts: str) -> str:
        return storage.join(self.url, UNITS, unit, *parts)

    @cached_property
    def done(self) -> dict[str, dict[str, Any]]:
        """The done.json of every committed unit, by unit, oldest commit first."""
        names = [n for n in storage.list_names(storage.join(self.url, UNITS)) if not n.startswith(".")]
        with ThreadPoolExecutor(READERS) as pool:
            found = zip(names, pool.map(self.read_done, names), strict=True)
        committed = [(name, done) for name, done in found if done is not None]
        return dict(sorted(committed, key=lambda item: (item[1].get("finished_at", ""), item[0])))

    def read_done(self, unit: str) -> dict[str, Any] | None:
        """None where the unit is not committed. RunError where its done.json is torn."""
        url = self.unit_url(unit, DONE)
        try:
            done = storage.read_json(url)
        except FileNotFoundError:
            return None
        except InputError as e:
            raise RunError(f"{e}; {REPAIR_HINT}") from e
        if not isinstance(done, dict) or not done.keys() >= DONE_KEYS:
            raise RunError(f"{url}: not a whole done.json; {REPAIR_HINT}")
        return done

    def read_table(self, unit: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one unit, as ROWS_SCHEMA has them, or some columns. RunError where they cannot be read."""
        url = self.unit_url(unit, ROWS)
        try:
            # A buffer, not a Python file: Arrow's threads that read one may outlive the interpreter and abort it.
            file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(url)))
            if not file.schema_arrow.equals(ROWS_SCHEMA):
                raise RunError(f"{url}: has other columns than this version of coat writes; {REPAIR_HINT}")
            return file.read(columns, use_threads=False)
        except (FileNotFoundError, pa.ArrowException) as e:
            raise RunError(f"{url}: cannot be read ({e}); {REPAIR_HINT}") from e

    def read_rows(self, unit: str) -> list[Row]:
        return [Row(unit=unit, **row) for row in self.read_table(unit).to_pylist()]

    @cached_property
    def outcomes(self) -> Outcomes:
        """What became of every utterance: to plan and to count."""
        return self.read_outcomes(Outcomes, OUTCOME_COLUMNS)

    @cached_property
    def rows(self) -> RowsByDigest:
        """The same by `Utterance.digest`, with the place of its frames: to read."""
        return self.read_outcomes(RowsByDigest, ROWS_SCHEMA.names)

    def read_outcomes(self, kind: type[AnyOutcomes], columns: Sequence[str]) -> AnyOutcomes:
        units = list(self.done)
        with ThreadPoolExecutor(READERS) as pool:
            groups = (units[i : i + READ_AHEAD] for i in range(0, len(units), READ_AHEAD))
            tables = (t for group in groups for t in pool.map(lambda unit: self.read_table(unit, columns), group))
            try:
                return kind(units, tables)
            except ValueError as e:
                raise RunError(f"{self.url}: {ROWS} of a unit holds {e}; {REPAIR_HINT}") from e

    def __len__(self) -> int:
        """Utterances with targets."""
        return int((self.outcomes.status == OK).sum())

    def read(self, utterance: str | Utterance) -> Target:
        """The target of one utterance, by id or by its manifest row.

        KeyError where there is none; InputError where two corpora in the store share the id: then
        only the manifest's row says which is meant.
        """
        if isinstance(utterance, Utterance):
            row = self.rows.get(utterance.digest)
            if row is None or row.status != "ok":
                raise KeyError(utterance.id)
            return self.read_row(row)
        found = self.rows.by_id(utterance)
        if not found:
            raise KeyError(utterance)
        if len(found) > 1:
            raise InputError(f"{self.url}: {len(found)} utterances have the id {utterance!r}; read it by manifest row")
        return self.read_row(found[0])

    def read_row(self, row: Row) -> Target:
        """RunError where the unit was damaged after its commit: Zarr checks every chunk that it reads."""
        frames = read_frames(self.unit_url(row.unit, FRAMES), row.first, row.frames, self.spec.dim)
        return Target(row.id, frames, self.spec.times(row.frames), self.spec)

    def dask(self, units: Iterable[str] | None = None) -> Any:
        """All frames of the committed units, or of some, as one float32 `dask.array` `[N, D]`, read lazily.

        Units lie in the order of their names. Float32 whatever is stored: sums of float16 overflow.
        """
        names = sorted(self.done if units is None else units)
        return dask_frames([(self.unit_url(n, FRAMES), int(self.done[n]["frames"])) for n in names], self.spec.dim)
