"""Decoding the audio of rows; what cannot be decoded fails its row. N frames, D dim, T samples."""

import time
from collections.abc import Sequence

from coat.extractors.expert import Expert
from coat.manifests.audio.clip import AudioError, resampled_length
from coat.manifests.audio.file import AudioFile
from coat.pipeline.plan.units import PlannedRow
from coat.pipeline.worker.decoded_row import DecodedRow


def decode_rows(expert: Expert, rows: Sequence[PlannedRow]) -> dict[str, DecodedRow]:
    """By digest, the rows of a unit that are spans of one file, which is downloaded and checked once."""
    decoded = {row.digest: DecodedRow(row) for row in rows}
    for row in decoded.values():
        if row.planned.fault:
            reason, _, message = row.planned.fault.partition(": ")
            row.fail(reason, message)
    wanted = [row for row in decoded.values() if row.status == "ok"]
    wanted.sort(key=lambda row: row.planned.utterance.offset)
    try:
        file = AudioFile(rows[0].utterance.audio) if wanted else None  # rows that repeat an id are not decoded
    except AudioError as e:
        for row in wanted:
            row.fail(e.reason, str(e))
    else:
        for row in wanted:
            assert file is not None
            started = time.perf_counter()
            decode_row(expert, row, file)
            row.decode_seconds = time.perf_counter() - started
    return decoded


def decode_row(expert: Expert, row: DecodedRow, file: AudioFile) -> None:
    """Give a row its waveform at the expert's rate, or mark it as long, or say why it has none."""
    u, spec = row.planned.utterance, expert.spec
    try:
        span = file.span(u.offset, u.duration)
        samples = resampled_length(span.samples, span.rate, spec.sample_rate)
        row.seconds = span.seconds
        if len(expert.windows(samples)) > 1:
            row.long = True
            return
        clip = span.decode()
    except AudioError as e:
        row.fail(e.reason, str(e))
        return
    row.source = clip.digest
    if samples < spec.min_samples:
        least = spec.min_samples / spec.sample_rate
        row.fail("too_short", f"{clip.seconds:.4f} s; {spec.expert} needs {least:.4f} s", status="skipped")
        return
    row.waveform_T = clip.at(spec.sample_rate)
