"""One worker: decode -> batch -> expert -> commit, for one unit at a time.

Two units may be in hand at once: while one holds the expert, the next one's first batches decode and
the last one's frames are written. The expert and what it raises: `model.py`; what is read: `decoding.py`.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from coat.extractors.expert import Expert
from coat.manifests.errors import EnvironmentFault, InputError, one_line
from coat.pipeline.plan.units import PlannedRow, Unit
from coat.pipeline.store.rows import Row
from coat.pipeline.store.unit_writer import UnitWriter
from coat.pipeline.worker.batches import cut_batches
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.decoded_row import DecodedRow
from coat.pipeline.worker.decoding import decode_rows
from coat.pipeline.worker.evidence import Evidence, Patience, Witnesses
from coat.pipeline.worker.frame_checks import accept_frames
from coat.pipeline.worker.model import Model
from coat.pipeline.worker.prefetch import decode_ahead
from coat.pipeline.worker.report import UnitReport, failed_reasons
from coat.pipeline.worker.stage_clock import StageClock, timed

UNITS_IN_HAND = 2
DOWNLOADS = 64  # at once: at 50 ms each, some 1,000 files a second
BATCHES_TO_WRITE = 2  # that wait, with their frames in memory
REPORTED_ERRORS = 20  # errors of a unit that its report names; the store has them all
THE_EXPERTS = ("expert_error", "bad_shape", "oom")  # reasons of which a whole unit is not believed


class Worker:
    """Holds a loaded expert; `run` extracts and commits units, from up to UNITS_IN_HAND threads."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.stopped = threading.Event()  # set: units in hand are dropped at their next batch
        self.decoders = ThreadPoolExecutor(decode_threads(config), thread_name_prefix="decode")
        self.downloads = ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="download")
        self.writers = ThreadPoolExecutor(1, thread_name_prefix="write")  # one: rows are written in their order
        self.model = Model(config, self.decoders, self.stopped)
        self.witnesses = Witnesses()

    @property
    def expert(self) -> Expert:
        return self.model.expert

    def run(self, unit: Unit, witnesses: Sequence[str] = ()) -> UnitReport:
        """Extract and commit. `witnesses`: files that this or another worker has read before.

        EnvironmentFault where no row is to blame: nothing of the unit is committed then.
        """
        clock = StageClock()
        halvings = self.model.budget.halvings
        self.witnesses.add(witnesses)
        evidence = self.evidence()
        decoded = timed(self.decoded_batches(unit.rows, evidence), clock)
        try:
            with UnitWriter(self.config.set_url, unit.name, self.config.spec.dim, self.config.spec.dtype) as writer:
                written = self.model.in_thread(self.run_unit, decoded, writer, clock, evidence)
                rows = [row for batch in written for row in batch.result()]
                self.check_some_worked(rows)
                facts = {
                    "seconds": {n: round(getattr(clock, n), 3) for n in ("decode", "wait", "forward")},
                    "padded_audio_seconds": round(clock.padded_audio, 3),
                    "heard_audio_seconds": round(clock.unpadded_audio, 3),
                    "device": self.config.device,
                    "attempt": unit.attempt,
                }
                done = writer.commit(rows, facts)
                clock.write = writer.seconds
        except (OSError, InputError) as e:  # InputError: no access to the store, no driver for it on this node
            raise EnvironmentFault(f"unit {unit.name}: {type(e).__name__}: {one_line(e)}; see to that") from e
        return UnitReport(
            unit=unit.name,
            ok=done["ok"],
            failed=done["failed"],
            skipped=done["skipped"],
            frames=done["frames"],
            bytes=done["bytes"],
            audio_seconds=done["audio_seconds"],
            unit_seconds=time.perf_counter() - clock.started,
            decode_seconds=clock.decode,
            wait_seconds=clock.wait,
            forward_seconds=clock.forward,
            write_seconds=clock.write,
            padded_seconds=clock.padded_audio,
            halvings=self.model.budget.halvings - halvings,
            batch_seconds=None if math.isinf(self.model.budget.limit) else round(self.model.budget.limit, 3),
            errors=tuple(f"{r.id}: {r.error}" for r in rows if r.status == "failed")[:REPORTED_ERRORS],
            worker=f"{socket.gethostname()}:{os.getpid()}",
            reasons=failed_reasons(rows),
            witnesses=self.witnesses.of(row.utterance.audio for row in unit.rows),
        )

    def evidence(self) -> Evidence:
        patience = Patience(self.config.patience_s, self.stopped)
        return Evidence(patience, self.witnesses, self.config.accept_missing)

    def run_unit(
        self, batches: Iterable[list[DecodedRow]], writer: UnitWriter, clock: StageClock, evidence: Evidence
    ) -> list[Future[list[Row]]]:
        """All batches through the model, in its thread; what it gave is checked and written in another, meanwhile."""
        heard: list[DecodedRow] = []
        written: list[Future[list[Row]]] = []
        try:
            for batch in batches:
                self.model.run_batch(batch, clock, evidence)
                if len(written) >= BATCHES_TO_WRITE:  # the disk is slower than the model: its frames shall not pile up
                    written[-BATCHES_TO_WRITE].result()
                written.append(self.writers.submit(self.write_batch, batch, writer))
                heard += batch
                clock.decode += sum(row.decode_seconds for row in batch)
            evidence.check_not_all_missing(heard)
        except BaseException:
            wait(written)  # they use the writer, which is closed now
            raise
        return written

    def write_batch(self, batch: list[DecodedRow], writer: UnitWriter) -> list[Row]:
        for row in batch:
            if row.given_ND is not None:
                accept_frames(self.config.spec, row, row.given_ND)
                row.given_ND = None
        return [write_row(writer, row) for row in batch]

    def decoded_batches(self, rows: Sequence[PlannedRow], evidence: Evidence) -> Iterator[list[DecodedRow]]:
        """Batches in order, decoded ahead of the expert."""
        decode = partial(decode_rows, self.expert, evidence)
        return decode_ahead(self.decoders, self.downloads, decode, list(cut_batches(rows, self.expert)))

    def check_some_worked(self, rows: Sequence[Row]) -> None:
        """An expert that fails on every row of a unit is broken, not unlucky: nothing of that is recorded."""
        raised = [r for r in rows if r.reason in THE_EXPERTS]
        if len(raised) > 1 and not any(r.status == "ok" for r in rows):
            raise EnvironmentFault(
                f"{self.config.expert}: fails on each of {len(raised)} rows; the first: {raised[0].error}"
            )


def decode_threads(config: WorkerConfig) -> int:
    """Two at least: one reads from a slow store while the other decodes."""
    if config.decode_threads is not None:
        return config.decode_threads
    return max(2, (os.cpu_count() or 1) if config.device.startswith("cuda") else config.threads)


def write_row(writer: UnitWriter, row: DecodedRow) -> Row:
    """Give a row's frames to the unit; the Row says what became of it."""
    first, planned = writer.frames.frames, row.planned
    for block_ND in row.blocks():
        writer.append(block_ND)
    row.frames_ND = row.spool = None
    return Row(
        unit=writer.unit,
        id=planned.utterance.id,
        digest=planned.digest,
        source=row.source,
        seconds=row.seconds,
        first=first,
        frames=writer.frames.frames - first,
        status=row.status,
        error=row.error,
        decoder=row.decoder,
    )
