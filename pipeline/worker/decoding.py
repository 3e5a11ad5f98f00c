"""Decoding the audio of rows; what cannot be decoded fails its row. N frames, D dim, T samples."""

import time
from collections.abc import Sequence

from coat.extractors.expert import Expert
from coat.manifests.audio.clip import AudioError, resampled_length
from coat.manifests.audio.file import AudioFile
from coat.pipeline.plan.units import PlannedRow
from coat.pipeline.worker.decoded_row import Heard


def decode_rows(expert: Expert, rows: Sequence[PlannedRow]) -> dict[str, Heard]:
    """By digest, the rows of a unit that are spans of one file, which is downloaded and checked once."""
    heard = {row.digest: Heard(row) for row in rows}
    for h in heard.values():
        if h.planned.fault:
            reason, _, message = h.planned.fault.partition(": ")
            h.fail(reason, message)
    wanted = [h for h in heard.values() if h.status == "ok"]
    wanted.sort(key=lambda h: h.planned.utterance.offset)
    try:
        file = AudioFile(rows[0].utterance.audio) if wanted else None  # rows that repeat an id are not heard
    except AudioError as e:
        for h in wanted:
            h.fail(e.reason, str(e))
    else:
        for h in wanted:
            assert file is not None
            started = time.perf_counter()
            decode_row(expert, h, file)
            h.decode_seconds = time.perf_counter() - started
    return heard


def decode_row(expert: Expert, heard: Heard, file: AudioFile) -> None:
    u, spec = heard.planned.utterance, expert.spec
    try:
        span = file.span(u.offset, u.duration)
        samples = resampled_length(span.samples, span.rate, spec.sample_rate)
        heard.seconds = span.seconds
        if len(expert.windows(samples)) > 1:
            heard.long = True
            return
        clip = span.decode()
    except AudioError as e:
        heard.fail(e.reason, str(e))
        return
    heard.source = clip.digest
    if samples < spec.min_samples:
        least = spec.min_samples / spec.sample_rate
        heard.fail("too_short", f"{clip.seconds:.4f} s; {spec.expert} needs {least:.4f} s", status="skipped")
        return
    heard.waveform_T = clip.at(spec.sample_rate)
