"""Files that were joined, sizes that promise something else, writers that were not closed: no sound is lost unsaid."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from coat.manifests import storage
from coat.manifests.audio import mp3_frames
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import AudioFile, decode, probe
from coat.manifests.audio.flac_frames import coded_number
from coat.manifests.audio.ogg_pages import ENDS, ended
from tests.manifests.conftest import RATE, encoded, reason, sine, with_frame_count, write_with_ffmpeg

FORMS = [
    ("WAV", "PCM_16"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
TWO, THREE = sine(2.0), sine(3.0, 300.0)
ID3V1 = b"TAG" + bytes(125)
ID3V2 = b"ID3\3\0\0\0\0\0\x0a" + bytes(10)


@pytest.mark.parametrize(("container", "encoding"), FORMS)
def test_joined_files_give_the_sound_of_all(tmp_path: Path, container: str, encoding: str) -> None:
    parts = [encoded(sound, container, encoding) for sound in (TWO, THREE)]
    alone = []
    for i, data in enumerate(parts):
        (tmp_path / f"{i}").write_bytes(data)
        alone.append(decode(str(tmp_path / f"{i}")).samples_T)
    path = str(tmp_path / "joined")
    Path(path).write_bytes(b"".join(parts))
    file = AudioFile(path)
    span = file.span()
    assert (file.samples, len(file.streams), span.decode().seconds, span.decoder) == (5 * RATE, 2, 5.0, "libsndfile")
    assert probe(path).seconds == 5.0
    np.testing.assert_array_equal(decode(path).samples_T, np.concatenate(alone))
    np.testing.assert_allclose(decode(path, 1.5, 1.0).samples_T, np.concatenate(alone)[24000:40000], atol=1e-6)
    storage.write_bytes("memory://bucket/joined", b"".join(parts))
    assert decode("memory://bucket/joined").digest == decode(path).digest
    (tmp_path / "tagged").write_bytes(ID3V1.join(parts) + ID3V1)
    assert decode(str(tmp_path / "tagged")).digest == decode(path).digest


@pytest.mark.parametrize(("container", "encoding"), [f for f in FORMS if f[0] != "MP3"])
def test_bytes_of_no_stream_are_noticed(tmp_path: Path, container: str, encoding: str) -> None:
    junk = np.random.default_rng(0).bytes(5000)
    (tmp_path / "a").write_bytes(encoded(TWO, container, encoding) + junk)
    assert reason(tmp_path / "a") in ("unreadable", "truncated")
    with pytest.raises(AudioError):
        probe(str(tmp_path / "a"))


@pytest.mark.parametrize(("container", "encoding"), FORMS)
def test_tags_and_padding_are_no_sound(tmp_path: Path, container: str, encoding: str) -> None:
    data = encoded(TWO, container, encoding)
    (tmp_path / "a").write_bytes(data)
    for tail in (ID3V1, bytes(3000), b"\n"):
        (tmp_path / "b").write_bytes(data + tail)
        assert decode(str(tmp_path / "b")).digest == decode(str(tmp_path / "a")).digest


def test_mixed_joins_and_rates(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(encoded(TWO, "FLAC") + encoded(THREE, "WAV") + encoded(TWO, "OGG"))
    assert decode(str(path)).seconds == 7.0
    path.write_bytes(ID3V2 + encoded(TWO, "FLAC") + ID3V2 + encoded(THREE, "FLAC"))
    assert decode(str(path)).seconds == 5.0
    path.write_bytes(encoded(TWO, "FLAC") + encoded(THREE, "WAV", rate=8000))
    with pytest.raises(AudioError, match="2 files in one, of 16000 Hz and 8000 Hz; split it"):
        decode(str(path))


@pytest.mark.parametrize("riff", [None, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("data_size", [None, 0, 0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_that_was_streamed(tmp_path: Path, riff: int | None, data_size: int | None) -> None:
    whole = bytearray(encoded(TWO, "WAV", "PCM_16"))
    closed = decode_bytes(tmp_path, whole)
    at = whole.find(b"data") + 4
    if riff is not None:
        whole[4:8] = struct.pack("<I", riff)
    if data_size is not None:
        whole[at : at + 4] = struct.pack("<I", data_size)
    np.testing.assert_array_equal(decode_bytes(tmp_path, whole), closed)
    assert len(decode_bytes(tmp_path, whole + whole)) == 4 * RATE


def decode_bytes(folder: Path, data: bytes | bytearray) -> np.ndarray:
    (folder / "bytes").write_bytes(data)
    return decode(str(folder / "bytes")).samples_T


def test_sizes_that_state_less_are_told(tmp_path: Path) -> None:
    wav = bytearray(encoded(TWO, "WAV", "PCM_16"))
    at = wav.find(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", 32000)
    (tmp_path / "a.wav").write_bytes(wav)
    (tmp_path / "a.flac").write_bytes(with_frame_count(encoded(TWO, "FLAC"), RATE))
    with pytest.raises(AudioError, match="belong to no stream"):
        decode(str(tmp_path / "a.wav"))
    for read in (decode, probe):
        with pytest.raises(AudioError, match=r"promises 1\.000 s, and its frames hold more"):
            read(str(tmp_path / "a.flac"))


def test_a_data_chunk_that_is_empty_is_meant_where_chunks_follow(tmp_path: Path) -> None:
    empty = encoded(np.zeros(0), "WAV", "PCM_16") + b"LIST\4\0\0\0INFO"
    (tmp_path / "a.wav").write_bytes(empty)
    assert reason(tmp_path / "a.wav") == "empty"


@pytest.mark.parametrize("encoding", ["GSM610", "G721_32", "NMS_ADPCM_16"])
def test_codecs_that_cannot_seek(tmp_path: Path, encoding: str) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, sine(2.0, rate=8000), 8000, subtype=encoding)
    whole = decode(path)
    assert whole.seconds == pytest.approx(2.0, abs=0.02)  # they code whole blocks
    assert probe(path).seconds == whole.seconds
    np.testing.assert_array_equal(decode(path, 0.7, 0.5).samples_T, whole.samples_T[5600:9600])
    assert np.abs(np.fft.rfft(whole.samples_T[:8000])).argmax() == 440


@pytest.mark.parametrize("encoding", ["OPUS", "VORBIS"])
def test_an_ogg_that_was_not_closed(tmp_path: Path, encoding: str) -> None:
    data = encoded(TWO, "OGG", encoding)
    at = data.rfind(b"OggS")
    page = bytearray(data[at:])
    assert ended(io.BytesIO(data), at) == ()
    page[5] &= ~ENDS
    (flag_at, flag), (crc_at, crc) = ended(io.BytesIO(data[:at] + page), at)
    assert (flag_at, flag, crc_at) == (at + 5, data[at + 5 : at + 6], at + 22)
    assert crc == data[at + 22 : at + 26]  # libogg's own
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", bitwise_crc(bytes(page)))
    np.testing.assert_array_equal(decode_bytes(tmp_path, data[:at] + page), decode_bytes(tmp_path, data))


def bitwise_crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


@pytest.mark.parametrize("loud_first", [True, False])
def test_an_mp3_without_a_xing_header_has_all_its_frames(tmp_path: Path, loud_first: bool) -> None:
    """libsndfile takes its length for that of its first bit rate."""
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, 5 * RATE)
    sound = np.concatenate([noise, np.zeros(5 * RATE)][:: 1 if loud_first else -1])
    data = encoded(sound, "MP3")
    bare = data[mp3_frames.frame_bytes(data[:4]) :]
    path = str(tmp_path / "a.mp3")
    Path(path).write_bytes(bare)
    file = AudioFile(path)
    span = file.span()
    assert (len(span.decode().samples_T), span.decoder) == (mp3_frames.count_samples(bare), "ffmpeg")
    assert file.samples / RATE == pytest.approx(10.0, abs=0.1)  # the encoder's delay, which no header states
    assert probe(path).seconds == file.samples / RATE
    heard = decode(path).samples_T
    loud, quiet = (np.abs(part).mean() for part in (heard[RATE : 4 * RATE], heard[6 * RATE : 9 * RATE]))
    assert (loud > 0.3 > 0.01 > quiet) == loud_first


def test_two_sounds_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "two.mka"
    with av.open(str(path), "w", format="matroska") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, RATE), np.int16), format="s16", layout="mono")
            frame.sample_rate = RATE
            container.mux(stream.encode(frame))
    with pytest.raises(AudioError, match="2 streams of audio at once"):
        decode(str(path))


@pytest.mark.parametrize(("name", "codec"), [("a.m4a", "aac"), ("a.webm", "libopus"), ("a.aac", "aac")])
def test_joined_files_that_ffmpeg_reads(tmp_path: Path, name: str, codec: str) -> None:
    for i, sound in enumerate((TWO, THREE)):
        write_with_ffmpeg(tmp_path / f"{i}{name}", codec, sound)
    path = tmp_path / name
    path.write_bytes(b"".join((tmp_path / f"{i}{name}").read_bytes() for i in range(2)))
    clip = decode(str(path))
    assert clip.seconds == pytest.approx(5.0, abs=0.2)
    assert probe(str(path)).seconds == pytest.approx(clip.seconds, abs=0.05)
    last = clip.samples_T[-2 * clip.rate : -clip.rate]
    assert np.abs(np.fft.rfft(last)).argmax() == 300


@pytest.mark.parametrize("number", [0, 127, 128, 2047, 2048, 65535, 65536, 0x10FFFF])
def test_frame_numbers_are_coded_as_utf_8(number: int) -> None:
    assert coded_number(number) == chr(number).encode()
