"""Decoding the audio of rows; what cannot be decoded fails its row. N frames, D dim, T samples."""

import io
import time
from collections.abc import Sequence

from coat.extractors.expert import Expert
from coat.manifests.audio.clip import AudioError, resampled_length
from coat.manifests.audio.file import AudioFile
from coat.pipeline.plan.units import PlannedRow
from coat.pipeline.worker.decoded_row import DecodedRow
from coat.pipeline.worker.evidence import Evidence


def decode_rows(expert: Expert, evidence: Evidence, rows: Sequence[PlannedRow]) -> dict[str, DecodedRow]:
    """By digest, the rows of a unit that are spans of one file, which is downloaded and checked once.

    ReadFault where the machine, and not the file, may be at fault.
    """
    decoded = {row.digest: DecodedRow(row) for row in rows}
    for row in decoded.values():
        if row.planned.fault:
            reason, _, message = row.planned.fault.partition(": ")
            row.fail(reason, message)
    wanted = [row for row in decoded.values() if row.status == "ok"]
    wanted.sort(key=lambda row: row.planned.utterance.offset)
    if not wanted:
        return decoded  # rows that repeat an id are not decoded
    audio = rows[0].utterance.audio
    try:
        file = evidence.believed(audio, lambda data: open_file(audio, data))
    except AudioError as e:
        for row in wanted:
            row.fail(e.reason, str(e))
        return decoded
    for row in wanted:
        started = time.perf_counter()
        try:
            evidence.believed(audio, lambda data, row=row: decode_row(expert, row, open_file(audio, data, file)))
        except AudioError as e:
            row.fail(e.reason, str(e))
        row.decode_seconds = time.perf_counter() - started
    evidence.witnesses.add([audio] if any(row.status == "ok" for row in wanted) else [])
    return decoded


def open_file(audio: str, data: bytes | None, opened: AudioFile | None = None) -> AudioFile:
    """The one that is open, or that of bytes which were read for a second look."""
    if data is not None:
        return AudioFile(audio, io.BytesIO(data))
    return opened or AudioFile(audio)


def decode_row(expert: Expert, row: DecodedRow, file: AudioFile) -> None:
    """Give a row its waveform at the expert's rate, or mark it as long. AudioError where there is none."""
    u, spec = row.planned.utterance, expert.spec
    span = file.span(u.offset, u.duration)
    samples = resampled_length(span.samples, span.rate, spec.sample_rate)
    row.seconds = span.seconds
    if len(expert.windows(samples)) > 1:
        row.long = True
        return
    clip = span.decode()
    row.source = clip.digest
    if samples < spec.min_samples:
        least = spec.min_samples / spec.sample_rate
        row.fail("too_short", f"{clip.seconds:.4f} s; {spec.expert} needs {least:.4f} s", status="skipped")
        return
    row.waveform_T = clip.at(spec.sample_rate)
