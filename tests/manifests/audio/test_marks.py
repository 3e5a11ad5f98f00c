"""What is looked for in the bytes of a file, against slower ways to find it."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests.audio import marks, source
from coat.manifests.audio.file import AudioFile
from coat.manifests.audio.flac_frames import CRC16, crc16
from coat.manifests.audio.marks import BLOCK_BYTES, FILES, MP3_FILES, OVERLAP, next_file
from coat.manifests.audio.mp3_frames import count_samples, frame_bytes, frame_samples
from tests.manifests.conftest import RATE, encoded, sine

FORMS = [
    ("WAV", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip


def by_regular_expressions(data: bytes, at: int) -> int:
    return min((m.start() for mark in MP3_FILES if (m := mark.pattern.search(data, at))), default=len(data))


@pytest.mark.parametrize(("container", "encoding"), FORMS)
@pytest.mark.parametrize("before", [0, 1, 777, BLOCK_BYTES - OVERLAP - 3, BLOCK_BYTES - 2, BLOCK_BYTES + 5])
def test_another_file_is_found_wherever_it_begins(container: str, encoding: str, before: int) -> None:
    junk = np.random.default_rng(before).bytes(before)
    data = junk + encoded(sine(0.2), container, encoding)
    found = next_file(io.BytesIO(data), 0, len(data), MP3_FILES)
    assert found == by_regular_expressions(data, 0)
    assert found == before


def test_words_by_chance_are_no_files() -> None:
    words = b"".join(mark.word * 3 for mark in FILES) + b"\xff\xfb\x90\0Xing"
    for odd in (b"", b"x"):
        data = odd + words * 10
        assert next_file(io.BytesIO(data), 0, len(data), MP3_FILES) == len(data)
        assert by_regular_expressions(data, 0) == len(data)


def test_a_mark_of_a_word_has_at_least_three_bytes() -> None:
    assert all(len(mark.word) >= 3 and isinstance(mark.pattern, re.Pattern) for mark in MP3_FILES)


def test_the_checksum_of_flac_frames() -> None:
    assert crc16(b"123456789") == 0xFEE8  # the check value of CRC-16/UMTS
    rng = np.random.default_rng(0)
    for size in (0, 1, 63, 64, 65, 200, 5000):
        data, slow = rng.bytes(size), 0x1234
        for byte in data:
            slow = slow << 8 & 0xFF00 ^ CRC16[slow >> 8 ^ byte]
        assert crc16(data, 0x1234) == slow


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_mp3_frames_are_counted_also_around_what_is_none(rate: int) -> None:
    data = encoded(sine(1.0, rate=rate), "MP3", rate=rate)
    at, frames = 0, 0
    while at + 4 <= len(data):
        at, frames = at + frame_bytes(data[at : at + 4]), frames + 1
    assert count_samples(data) == frames * frame_samples(data)
    third = frame_bytes(data[:4])
    third += frame_bytes(data[third : third + 4])
    with_more = b"\xff\xfb" + data[:third] + b"\xff\0junk" + data[third:] + b"\xff\xfb\x90"
    assert count_samples(with_more) == count_samples(data)
    assert count_samples(b"") == count_samples(b"\xff" * 50) == 0


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", sine(1.0), RATE)
    before = len(os.listdir("/proc/self/fd"))
    file = AudioFile(str(tmp_path / "a.flac"))
    assert len(os.listdir("/proc/self/fd")) == before + 1  # it waits for the first span
    file.let_go()
    assert len(os.listdir("/proc/self/fd")) == before
    first = file.span().decode()
    file = AudioFile(str(tmp_path / "a.flac"))
    assert [file.span().decode().digest for _ in range(2)] == [first.digest] * 2
    assert len(os.listdir("/proc/self/fd")) == before
    (tmp_path / "a.flac").write_bytes((tmp_path / "a.flac").read_bytes() * 2)
    file = AudioFile(str(tmp_path / "a.flac"))
    assert (len(file.streams), len(os.listdir("/proc/self/fd"))) == (2, before)  # of many parts none is kept


def test_a_long_file_is_searched_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "HELD_BYTES", 1000)
    path = tmp_path / "a.flac"
    soundfile.write(path, sine(1.0), RATE)
    assert path.stat().st_size > source.HELD_BYTES
    assert [AudioFile(str(path)).samples for _ in range(2)] == [RATE, RATE]
    path.write_bytes(path.read_bytes() * 3)
    assert AudioFile(str(path)).samples == 3 * RATE
    assert marks.file_size(io.BytesIO(path.read_bytes())) == path.stat().st_size
