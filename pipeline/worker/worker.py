"""One expert of a worker: decode -> batch -> expert -> commit, unit by unit.

Two units may be in hand at once: while one holds the expert, the next one's first batches decode and
the last one's frames are written. The expert and what it raises: `model.py`; several experts: `crew.py`.
"""

import itertools
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial

from coat.extractors.expert import Expert
from coat.manifests.errors import EnvironmentFault, InputError, one_line
from coat.pipeline.decoding.decoded_row import DecodedRow
from coat.pipeline.decoding.evidence import Evidence, Patience
from coat.pipeline.decoding.prefetch import decode_ahead
from coat.pipeline.decoding.row_decoding import decode_rows
from coat.pipeline.decoding.shared_audio import CutAudio, SharedFile
from coat.pipeline.plan.units import PlannedRow, Unit
from coat.pipeline.store.rows import Row
from coat.pipeline.store.unit_writer import UnitWriter
from coat.pipeline.worker.batches import cut_batches
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.frame_checks import accept_frames
from coat.pipeline.worker.hands import Hands
from coat.pipeline.worker.model import Model
from coat.pipeline.worker.report import UnitReport, failed_reasons
from coat.pipeline.worker.stage_clock import StageClock, timed

BATCHES_TO_WRITE = 2  # that wait, with their frames in memory
REPORTED_ERRORS = 20  # errors of a unit that its report names; the store has them all
THE_EXPERTS = ("expert_error", "bad_shape", "oom")  # reasons of which a whole unit is not believed


class Worker:
    """Holds a loaded expert; `run` extracts and commits units, from up to UNITS_IN_HAND threads."""

    def __init__(self, config: WorkerConfig, hands: Hands | None = None) -> None:
        self.config = config
        self.hands = hands or Hands(config)
        self.writers = ThreadPoolExecutor(1, thread_name_prefix="write")  # one: rows are written in their order
        self.model = Model(config, self.hands)
        self.alone = itertools.count(1)  # numbers of units that belong to no cut

    @property
    def expert(self) -> Expert:
        return self.model.expert

    def run(
        self, unit: Unit, witnesses: Sequence[str] = (), number: int | None = None, shared: CutAudio | None = None
    ) -> UnitReport:
        """Extract and commit. `witnesses`: files that this or another worker has read before. `number`: of its cut,
        among those of this worker; `shared`: the cut's audio, where several experts are given it.

        EnvironmentFault where no row is to blame: nothing of the unit is committed then.
        """
        clock = StageClock()
        halvings = self.model.budget.halvings
        self.hands.witnesses.add(witnesses)
        evidence = self.evidence(shared)
        batches = list(cut_batches(unit.rows, self.expert))
        decoded = timed(self.decoded_batches(batches, evidence, shared), clock)
        written: list[Future[list[Row]]] = []
        try:
            with UnitWriter(self.config.set_url, unit.name, self.config.spec.dim, self.config.spec.dtype) as writer:
                steps = self.steps(batches, decoded, writer, clock, evidence, written)
                self.hands.models.run(next(self.alone) if number is None else number, steps)
                rows = [row for batch in written for row in batch.result()]
                self.check_some_worked(rows)
                facts = {
                    "seconds": {
                        "decode": round(clock.cost.seconds, 3),
                        "wait": round(clock.wait, 3),
                        "forward": round(clock.forward, 3),
                    },
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
            expert=self.config.expert,
            ok=done["ok"],
            failed=done["failed"],
            skipped=done["skipped"],
            frames=done["frames"],
            bytes=done["bytes"],
            audio_seconds=done["audio_seconds"],
            unit_seconds=time.perf_counter() - clock.started,
            decode_seconds=clock.cost.seconds,
            clips=clock.cost.clips,
            requests=clock.cost.requests,
            saved_seconds=clock.cost.saved_seconds,
            saved_clips=clock.cost.saved_clips,
            saved_requests=clock.cost.saved_requests,
            wait_seconds=clock.wait,
            forward_seconds=clock.forward,
            write_seconds=clock.write,
            padded_seconds=clock.padded_audio,
            halvings=self.model.budget.halvings - halvings,
            batch_seconds=None if math.isinf(self.model.budget.limit) else round(self.model.budget.limit, 3),
            errors=tuple(f"{r.id}: {r.error}" for r in rows if r.status == "failed")[:REPORTED_ERRORS],
            worker=f"{socket.gethostname()}:{os.getpid()}",
            reasons=failed_reasons(rows),
            witnesses=self.hands.witnesses.of(row.utterance.audio for row in unit.rows),
        )

    def patience(self) -> Patience:
        return Patience(self.config.patience_s, self.hands.stopped)

    def evidence(self, shared: CutAudio | None = None) -> Evidence:
        patience = shared.patience if shared else self.patience()
        return Evidence(patience, self.hands.witnesses, self.config.accept_missing)

    def steps(
        self,
        batches: Sequence[Sequence[PlannedRow]],
        decoded: Iterator[list[DecodedRow]],
        writer: UnitWriter,
        clock: StageClock,
        evidence: Evidence,
        written: list[Future[list[Row]]],
    ) -> Iterator[tuple[float, str]]:
        """Batch by batch through the model, in its thread; what it gave is checked and written in another, meanwhile.

        Gives the first row of each batch before it is run; the batches that are being written go to `written`.
        """
        heard: list[DecodedRow] = []
        try:
            for planned in batches:
                yield planned[0].seconds, planned[0].digest
                batch = self.model.run_batch(next(decoded), clock, evidence)
                if len(written) >= BATCHES_TO_WRITE:  # the disk is slower than the model: its frames shall not pile up
                    written[-BATCHES_TO_WRITE].result()
                for row in batch:
                    clock.cost.add(row.cost)
                heard += batch
                written.append(self.writers.submit(self.write_batch, batch, writer))
            evidence.check_not_all_missing(heard)
        except BaseException:
            wait(written)  # they use the writer, which is closed now
            raise

    def write_batch(self, batch: list[DecodedRow], writer: UnitWriter) -> list[Row]:
        for row in batch:
            if row.given_ND is not None:
                accept_frames(self.config.spec, row, row.given_ND)
                row.given_ND = None
        return [write_row(writer, row) for row in batch]

    def decoded_batches(
        self, batches: list[list[PlannedRow]], evidence: Evidence, shared: CutAudio | None = None
    ) -> Iterator[list[DecodedRow]]:
        """Batches in order, decoded ahead of the expert."""
        hands = self.hands
        decode = partial(decode_rows, self.expert, evidence, shared=shared, name=self.config.expert)
        return decode_ahead(hands.decoders, hands.downloads, decode, batches, shared.file if shared else SharedFile)

    def check_some_worked(self, rows: Sequence[Row]) -> None:
        """An expert that fails on every row of a unit is broken, not unlucky: nothing of that is recorded."""
        raised = [r for r in rows if r.reason in THE_EXPERTS]
        if len(raised) > 1 and not any(r.status == "ok" for r in rows):
            raise EnvironmentFault(
                f"{self.config.expert}: fails on each of {len(raised)} rows; the first: {raised[0].error}"
            )


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
