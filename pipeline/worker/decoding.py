"""Decoding the audio of rows; what cannot be decoded fails its row. N frames, D dim, T samples."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock

from coat.extractors.expert import Expert
from coat.manifests import storage
from coat.manifests.audio.clip import AudioError, resampled_length
from coat.manifests.audio.file import AudioFile
from coat.pipeline.plan.units import PlannedRow
from coat.pipeline.worker.decoded_row import DecodedRow
from coat.pipeline.worker.evidence import Evidence


class SharedFile:
    """A file that several threads decode spans of. The first of them opens it: it is downloaded and checked once."""

    def __init__(self, audio: str) -> None:
        self.audio, self.lock = audio, Lock()
        self.opened: AudioFile | AudioError | None = None
        self.download: Future[bytes | None] | None = None

    def download_in(self, pool: ThreadPoolExecutor) -> None:
        """Ask a store for the bytes, so that they are here when a thread comes to decode them."""
        if self.download is None and "://" in self.audio:
            self.download = pool.submit(read_remote, self.audio)

    def downloaded(self) -> bytes | None:
        """None where there are none: opening the file then reads it again, and judges what is wrong."""
        download, self.download = self.download, None  # a second try reads anew
        return download.result() if download and not download.exception() else None

    def open(self, evidence: Evidence) -> AudioFile:
        """AudioError where it cannot be decoded; ReadFault where the machine, and not the file, may be at fault."""
        with self.lock:
            if self.opened is None:
                try:
                    self.opened = evidence.believed(
                        self.audio, lambda data: AudioFile(self.audio, self.downloaded() if data is None else data)
                    )
                except AudioError as e:
                    self.opened = e
        if isinstance(self.opened, AudioError):
            raise self.opened
        return self.opened


def read_remote(audio: str) -> bytes | None:
    return None if storage.is_local(audio) else storage.read_bytes(audio)


def decode_rows(
    expert: Expert, evidence: Evidence, file: SharedFile, rows: Sequence[PlannedRow]
) -> dict[str, DecodedRow]:
    """Spans of one file, by digest. ReadFault where the machine, and not the file, may be at fault."""
    decoded = {row.digest: DecodedRow(row) for row in rows}
    for row in sorted(decoded.values(), key=lambda row: row.planned.utterance.offset):
        if row.planned.fault:  # a row that repeats an id is not decoded
            reason, _, message = row.planned.fault.partition(": ")
            row.fail(reason, message)
            continue
        started = time.perf_counter()
        try:
            decode = partial(decode_row, expert, row, file.open(evidence))
            evidence.believed(file.audio, decode)
        except AudioError as e:
            row.fail(e.reason, str(e))
        else:
            evidence.witnesses.add([file.audio] if row.status == "ok" else [])
        row.decode_seconds = time.perf_counter() - started
    return decoded


def decode_row(expert: Expert, row: DecodedRow, opened: AudioFile, data: bytes | None) -> None:
    """Give a row its waveform at the expert's rate, or mark it as long. AudioError where there is none."""
    u, spec = row.planned.utterance, expert.spec
    file = opened if data is None else AudioFile(u.audio, data)  # bytes that were read for a second look
    span = file.span(u.offset, u.duration)
    samples = resampled_length(span.samples, span.rate, spec.sample_rate)
    row.seconds = span.seconds
    if len(expert.windows(samples)) > 1:
        row.long = True
        return
    clip = span.decode()
    row.source, row.decoder = clip.digest, span.decoder
    if samples < spec.min_samples:
        least = spec.min_samples / spec.sample_rate
        row.fail("too_short", f"{clip.seconds:.4f} s; {spec.expert} needs {least:.4f} s", status="skipped")
        return
    row.waveform_T = clip.at(spec.sample_rate)
