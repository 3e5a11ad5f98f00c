"""Decoding the audio of rows; what cannot be decoded fails its row. N frames, D dim, T samples."""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from coat.extractors.expert import Expert, Waveform
from coat.manifests.audio.clip import AudioError, Clip, resampled_length
from coat.manifests.audio.file import AudioFile
from coat.pipeline.decoding.decoded_row import DecodedRow, Source
from coat.pipeline.decoding.evidence import Evidence
from coat.pipeline.decoding.shared_audio import KEPT_BYTES, CutAudio, SharedFile, open_file
from coat.pipeline.plan.units import PlannedRow


def decode_rows(
    expert: Expert,
    evidence: Evidence,
    file: SharedFile,
    rows: Sequence[PlannedRow],
    shared: CutAudio | None = None,
    name: str = "",
) -> dict[str, DecodedRow]:
    """Spans of one file, by digest. `shared`: with other experts, among which this one has that name.

    ReadFault where the machine, and not the file, may be at fault.
    """
    decoded = {row.digest: DecodedRow(row) for row in rows}
    for row in sorted(decoded.values(), key=lambda row: row.planned.utterance.offset):
        if row.planned.fault:  # a row that repeats an id is not decoded
            reason, _, message = row.planned.fault.partition(": ")
            row.fail(reason, message)
            continue
        started, opened = time.perf_counter(), None
        try:
            opened = file.open(evidence, row.cost, name)
            if shared is None or not take_shared(expert, evidence, opened, row, shared, name):
                row.cost.clips += 1
                evidence.believed(file.audio, partial(decode_row, expert, row, opened))
        except AudioError as e:
            row.fail(e.reason, str(e))
        else:
            evidence.witnesses.add([file.audio] if row.status == "ok" else [])
        finally:
            if opened:
                opened.let_go()  # where it was not decoded; those that wait for others would be too many
        row.cost.seconds = time.perf_counter() - started - row.cost.waited
    return decoded


def decode_row(expert: Expert, row: DecodedRow, opened: AudioFile, data: bytes | None) -> None:
    """Give a row its waveform at the expert's rate, or mark it as long. AudioError where there is none."""
    u, spec = row.planned.utterance, expert.spec
    file = open_file(u.audio, data, opened)
    span = file.span(u.offset, u.duration)
    row.seconds = span.seconds
    if is_long(expert, span.samples, span.rate):
        row.long = file
        return
    clip = span.decode()
    give(expert, row, clip, Source(clip.digest, span.decoder), clip.at(spec.sample_rate))


def take_shared(
    expert: Expert, evidence: Evidence, opened: AudioFile, row: DecodedRow, shared: CutAudio, name: str
) -> bool:
    """As `decode_row`, of a clip that is decoded once for all experts of the cut; False where it is too long for that.

    It is decoded as a whole also where it is longer than the expert's window.
    """
    u, digest = row.planned.utterance, row.planned.digest
    span = opened.span(u.offset, u.duration)
    row.seconds = span.seconds
    if span.samples * np.dtype(np.float32).itemsize > KEPT_BYTES:
        return False

    def decode(data: bytes | None) -> tuple[Clip, str | None]:
        read = span if data is None else open_file(u.audio, data).span(u.offset, u.duration)
        return read.decode(), read.decoder

    try:
        clip, source, waveform_T = shared.sound(
            digest, expert.spec.sample_rate, lambda: evidence.believed(u.audio, decode), row.cost
        )
    finally:
        shared.had(name, digest)
    row.seconds = clip.seconds
    if is_long(expert, len(clip.samples_T), clip.rate):
        row.long = waveform_T, source
    else:
        give(expert, row, clip, source, waveform_T)
    return True


def is_long(expert: Expert, samples: int, rate: int) -> bool:
    return len(expert.windows(resampled_length(samples, rate, expert.spec.sample_rate))) > 1


def give(expert: Expert, row: DecodedRow, clip: Clip, source: Source, waveform_T: Waveform) -> None:
    """Give a row its waveform, unless it is too short for the expert."""
    spec = expert.spec
    row.source, row.decoder = source
    if len(waveform_T) < spec.min_samples:
        least = spec.min_samples / spec.sample_rate
        row.fail("too_short", f"{clip.seconds:.4f} s; {spec.expert} needs {least:.4f} s", status="skipped")
        return
    row.waveform_T = waveform_T
