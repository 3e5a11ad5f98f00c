"""Spans of one file in several threads: the same samples, whatever the file is called."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import soundfile

from coat.extractors.expert import Options
from coat.manifests.audio.file import decode
from coat.pipeline.decoding.evidence import Evidence, Patience, Witnesses
from coat.pipeline.decoding.prefetch import decode_ahead, has_random_access
from coat.pipeline.decoding.row_decoding import decode_rows
from coat.pipeline.worker.config import WorkerConfig
from coat.pipeline.worker.hands import decode_threads
from tests.pipeline.experts import Level
from tests.pipeline.worker.helpers import planned_row

SPAN_S, RATE = 4.0, 22050


def write_noise(path: Path, seconds: int, subtype: str) -> Path:
    rng = np.random.default_rng(1)
    with soundfile.SoundFile(path, "w", RATE, 1, subtype) as f:
        for _ in range(seconds):  # libsndfile crashes where it is given much Vorbis at once
            f.write(0.1 * rng.standard_normal(RATE))
    return path


def decode_spans(path: Path, spans: int, threads: int) -> list[np.ndarray]:
    """Waveforms of spans of one file, in a shuffled order, three a batch."""
    starts = np.random.default_rng(0).permutation(spans) * SPAN_S
    rows = [planned_row(path, i, float(start), SPAN_S) for i, start in enumerate(starts)]
    batches = [rows[i : i + 3] for i in range(0, len(rows), 3)]
    evidence = Evidence(Patience(1.0, Event()), Witnesses(), accept_missing=False)
    with ThreadPoolExecutor(threads) as pool:
        ready = [*decode_ahead(pool, pool, partial(decode_rows, Level(Options()), evidence), batches)]
    assert [[row.planned for row in batch] for batch in ready] == batches
    found = [row.waveform_T for batch in ready for row in batch]
    for row, waveform_T in zip(rows, found, strict=True):
        assert waveform_T is not None
        assert np.array_equal(waveform_T, decode(str(path), row.utterance.offset, SPAN_S).at(16000))
    return [x for x in found if x is not None]


@pytest.mark.parametrize(("name", "subtype"), [("a.flac", "PCM_16"), ("a.ogg", "VORBIS"), ("a.mp3", "MPEG_LAYER_III")])
def test_spans_of_a_file_are_the_same_in_eight_threads(name: str, subtype: str, tmp_path: Path) -> None:
    assert has_random_access(name) is not name.endswith("mp3")
    path = write_noise(tmp_path / name, 150, subtype)
    one, eight = decode_spans(path, 36, 1), decode_spans(path, 36, 8)
    assert all(np.array_equal(a, b) for a, b in zip(one, eight, strict=True))


def test_an_mp3_that_is_called_wav_is_decoded_by_many_threads_at_once(tmp_path: Path) -> None:
    lie = write_noise(tmp_path / "a.mp3", 200, "MPEG_LAYER_III").rename(tmp_path / "a.wav")
    assert has_random_access(str(lie))
    decode_spans(lie, 48, 8)


def test_decode_threads_follow_the_worker_unless_they_are_given() -> None:
    def threads(device: str, cpus: int, given: int | None = None) -> int:
        return decode_threads(WorkerConfig("level", Options(), "set", Level(Options()).spec, device, cpus, given))

    assert [threads("cpu", 1), threads("cpu", 12), threads("cpu", 12, 1)] == [2, 12, 1]
    assert threads("cuda:0", 1) >= 2
    assert threads("cuda:0", 1, 48) == 48
