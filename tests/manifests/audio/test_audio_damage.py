"""Audio that cannot be decoded: each for its own reason, in one line."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import decode, probe
from tests.manifests.conftest import RATE, SOUND, WriteAudio, encoded, reason, with_frame_count


@pytest.mark.parametrize("container", ["FLAC", "WAV", "AIFF", "AU", "W64", "RF64", "OGG", "MP3"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.75, 0.99])
def test_a_file_that_is_cut_short_is_truncated(tmp_path: Path, container: str, share: float) -> None:
    data = encoded(SOUND, container)
    path = tmp_path / f"a.{container.lower()}"
    path.write_bytes(data[: int(len(data) * share)])
    assert reason(path) == "truncated"


@pytest.mark.parametrize("size", [4, 10, 42, 60, 86, 200, -1, -3])
def test_a_flac_may_be_cut_anywhere(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.flac").write_bytes(encoded(SOUND, "FLAC")[:size])
    assert reason(tmp_path / "a.flac") == "truncated"


@pytest.mark.parametrize(("container", "size"), [("WAV", 30), ("WAV", 60), ("AIFF", 30), ("RF64", 60), ("OGG", 30)])
def test_a_cut_inside_the_header(tmp_path: Path, container: str, size: int) -> None:
    path = tmp_path / f"a.{container.lower()}"
    path.write_bytes(encoded(SOUND, container)[:size])
    assert reason(path) == "truncated"
    with pytest.raises(AudioError) as e:
        probe(str(path))
    assert e.value.reason == "truncated"


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_from_a_pipe_is_whole_though_its_sizes_are_placeholders(tmp_path: Path, size: int) -> None:
    data = bytearray(encoded(SOUND, "WAV", "PCM_16"))
    at = data.find(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    (tmp_path / "a.wav").write_bytes(data)
    assert len(decode(str(tmp_path / "a.wav")).samples_T) == len(SOUND)


@pytest.mark.parametrize("frames", [2**36 - 1, 10**5])
def test_a_flac_whose_header_promises_more_is_truncated(tmp_path: Path, frames: int) -> None:
    (tmp_path / "a.flac").write_bytes(with_frame_count(encoded(SOUND, "FLAC"), frames))
    assert reason(tmp_path / "a.flac") == "truncated"


def test_damage_in_the_middle_of_a_flac(tmp_path: Path) -> None:
    data = bytearray(encoded(SOUND, "FLAC"))
    data[len(data) // 2 : len(data) // 2 + 5000] = bytes(5000)
    (tmp_path / "a.flac").write_bytes(data)
    assert reason(tmp_path / "a.flac") == "truncated"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.au", "a.raw", "a"])
def test_text_under_any_name_is_unreadable(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is no sound.\n" * 20)
    assert reason(tmp_path / name) == "unreadable"
    with pytest.raises(AudioError) as e:
        probe(str(tmp_path / name))
    assert e.value.reason == "unreadable"


def test_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    soundfile.write(tmp_path / "b.wav", np.zeros(0), RATE)
    assert reason(tmp_path / "a.wav") == reason(tmp_path / "b.wav") == reason(tmp_path / "b.wav", 0.0, 1.0) == "empty"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    samples = SOUND.copy()
    samples[RATE] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert reason(tmp_path / "a.wav") == "not_finite"
    assert len(decode(str(tmp_path / "a.wav"), 1.5).samples_T) == 1.5 * RATE  # outside the span it does no harm


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("none.wav", "missing"),
        ("a.wav/b.wav", "missing"),
        ("nul\0.wav", "unreadable"),
        (".", "unreadable"),
        ("https://example.org/a.wav", "unreadable"),
        ("simplecache::s3://bucket/a.wav", "unreadable"),
    ],
)
def test_places_without_audio(
    write_audio: WriteAudio, monkeypatch: pytest.MonkeyPatch, path: str, expected: str
) -> None:
    monkeypatch.chdir(write_audio("a.wav").parent)
    assert reason(path) == expected


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert reason(tmp_path / "a.wav") == "unreadable"


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    wav = bytearray(encoded(SOUND, "WAV", "PCM_16"))
    wav[20:22] = (1000).to_bytes(2, "little")  # the format
    (tmp_path / "a.wav").write_bytes(wav)
    for read in (decode, probe):
        with pytest.raises(AudioError) as e:
            read(str(tmp_path / "a.wav"))
        assert e.value.reason == "unreadable"
