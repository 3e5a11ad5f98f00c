"""Writing one unit: frames are streamed to a build, then all of it is published (`publish.py`) in one step."""

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.errors import EnvironmentFault, RunError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.builds import new_build
from coat.pipeline.store.frames_writer import FramesWriter
from coat.pipeline.store.layout import ARRAY, DONE, FRAMES, ROWS, SPEC
from coat.pipeline.store.publish import publish
from coat.pipeline.store.rows import UNIT_SCHEMA, Row
from coat.pipeline.store.target_set import TargetSet


def write_spec(set_url: str, spec: TargetSpec) -> None:
    """Before the first unit. InputError where a spec lies there that is not this folder's."""
    url = storage.join(set_url, SPEC)
    if storage.exists(url):
        TargetSet.open(set_url)
    else:
        storage.write_bytes(url, storage.to_json(spec.to_dict()))


def rows_parquet(rows: Sequence[Row]) -> bytes:
    table = pa.table({name: [getattr(row, name) for row in rows] for name in UNIT_SCHEMA.names}, UNIT_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


class UnitWriter:
    """One unit: append frames as they come, then commit; left without a commit, nothing remains.

        with UnitWriter(set_url, unit, dim, dtype) as writer:
            writer.append(frames_ND)
            done = writer.commit(rows, facts)

    EnvironmentFault where the store cannot be written; then nothing of the unit is visible.
    """

    def __init__(self, set_url: str, unit: str, dim: int, dtype: str) -> None:
        self.set_url, self.unit = set_url, unit
        self.writer = f"w-{uuid.uuid4().hex[:12]}"
        self.seconds = 0.0  # spent on writing
        self.cleanup = contextlib.ExitStack()
        with self.timed_write():
            self.build = new_build(set_url, unit)
            self.cleanup.callback(shutil.rmtree, self.build, ignore_errors=True)
            self.frames = self.cleanup.enter_context(
                FramesWriter(self.build / FRAMES, dim, dtype, read_soon=not storage.is_local(set_url))
            )

    def __enter__(self) -> "UnitWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.cleanup.close()

    def append(self, frames_ND: NDArray[Any]) -> None:
        """Frames of the next rows, in the spec's dtype."""
        with self.timed_write():
            self.frames.append(frames_ND)

    def commit(self, rows: Sequence[Row], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Make the unit visible and give its done.json. `facts` (seconds by stage, padding) are kept there."""
        with self.timed_write():
            self.frames.close()
            data = rows_parquet(rows)
            (self.build / ROWS).write_bytes(data)
        done = {
            **facts,
            "rows": len(rows),
            "ok": sum(r.status == "ok" for r in rows),
            "failed": sum(r.status == "failed" for r in rows),
            "skipped": sum(r.status == "skipped" for r in rows),
            "frames": self.frames.frames,
            "bytes": self.frames.nbytes,
            "audio_seconds": round(sum(r.seconds for r in rows if r.status == "ok"), 6),
            "xxh3": self.frames.digest.hexdigest(),
            "rows_xxh3": xxhash.xxh3_128_hexdigest(data),
            "array_xxh3": xxhash.xxh3_128_hexdigest((self.build / FRAMES / ARRAY).read_bytes()),
            "seconds": {**facts.get("seconds", {}), "write": round(self.seconds, 3)},
            "finished_at": datetime.now(UTC).isoformat(),
            # The larger attempt of a row is its newest outcome: not what clocks say.
            "attempt": facts.get("attempt", 0),
            "writer": "" if storage.is_local(self.set_url) else self.writer,
        }
        done["done_xxh3"] = done_digest(done)
        with self.timed_write():
            (self.build / DONE).write_bytes(storage.to_json(done))
            publish(self.build, self.set_url, self.unit, self.writer)
        return done

    @contextlib.contextmanager
    def timed_write(self) -> Iterator[None]:
        """Count the time; what the disk or the object store refuses becomes a RunError of one line."""
        started = time.perf_counter()
        try:
            yield
        except (OSError, RunError) as e:
            self.cleanup.close()
            kept = "the units before it are kept, run again"
            if isinstance(e, FileNotFoundError) and not storage.exists(storage.join(self.set_url, SPEC)):
                kept = f"its {SPEC} is gone: was the store removed under the run? Run again, to begin anew"
            raise EnvironmentFault(f"{self.set_url}: cannot write unit {self.unit} ({e}); {kept}") from e
        finally:
            self.seconds += time.perf_counter() - started


def commit_unit(
    set_url: str, unit: str, frames: NDArray[Any], rows: Sequence[Row], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a unit whose frames are at hand, as a whole."""
    with UnitWriter(set_url, unit, frames.shape[1], str(frames.dtype)) as writer:
        writer.append(frames)
        return writer.commit(rows, facts)


def done_digest(done: Mapping[str, Any]) -> str:
    """Of a done.json but the digest itself: it vouches for the rest, so something must vouch for it."""
    return xxhash.xxh3_128_hexdigest(storage.to_json({k: v for k, v in done.items() if k != "done_xxh3"}))
