"""Decoding against samples that the test itself made."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from coat.manifests import storage
from coat.manifests.audio import stream as audio_stream
from coat.manifests.audio.clip import AudioError, Clip, resampled_length
from coat.manifests.audio.file import AudioFile, decode, probe
from tests.manifests.conftest import RATE, SOUND, WriteAudio, encoded, reason, sine, with_frame_count, write_with_ffmpeg

# Container, encoding, the largest error of a sample that its bits allow.
LOSSLESS = [
    ("WAV", "PCM_U8", 2**-7),
    ("WAV", "PCM_16", 2**-15),
    ("WAV", "PCM_24", 2**-23),
    ("WAV", "PCM_32", 2**-23),
    ("WAV", "FLOAT", 2**-23),
    ("WAV", "DOUBLE", 2**-23),
    ("FLAC", "PCM_S8", 2**-7),
    ("FLAC", "PCM_16", 2**-15),
    ("FLAC", "PCM_24", 2**-23),
    ("AIFF", "PCM_16", 2**-15),
    ("AIFF", "PCM_24", 2**-23),
    ("CAF", "PCM_16", 2**-15),
    ("AU", "PCM_16", 2**-15),
    ("W64", "PCM_16", 2**-15),
    ("RF64", "PCM_16", 2**-15),
]
LOSSY = [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]


@pytest.mark.parametrize(("container", "encoding", "step"), LOSSLESS)
def test_lossless_files_give_their_samples(tmp_path: Path, container: str, encoding: str, step: float) -> None:
    path = tmp_path / f"a.{container.lower()}"
    path.write_bytes(encoded(SOUND, container, encoding))
    clip = decode(str(path))
    assert (clip.rate, len(clip.samples_T), clip.samples_T.dtype) == (RATE, len(SOUND), np.float32)
    assert np.abs(clip.samples_T - SOUND).max() <= step
    info = probe(str(path))
    assert (info.seconds, info.rate, info.channels) == (3.0, RATE, 1)


@pytest.mark.parametrize(("container", "encoding"), LOSSY)
def test_lossy_files_keep_length_time_and_level(tmp_path: Path, container: str, encoding: str) -> None:
    tone = sine(2.0) * np.linspace(0.1, 1.0, 2 * RATE)
    path = tmp_path / f"a.{container.lower()}"
    path.write_bytes(encoded(tone, container, encoding))
    clip = decode(str(path))
    assert len(clip.samples_T) == len(tone)
    inner = slice(1000, -1000)  # codecs smear the ends
    assert np.corrcoef(clip.samples_T[inner], tone[inner])[0, 1] > 0.99


@pytest.mark.parametrize(("container", "encoding"), [(c, e) for c, e, _ in LOSSLESS] + LOSSY)
@pytest.mark.parametrize(("offset", "duration"), [(0.5, 1.0), (1.23456, 0.5), (2.0, None), (0.0, 0.01)])
def test_a_span_is_exactly_that_part_of_the_whole(
    tmp_path: Path, container: str, encoding: str, offset: float, duration: float | None
) -> None:
    # A tone that swells: in an MP3 its frames borrow bits from each other, which a bare seek gets wrong.
    path = tmp_path / f"a.{container.lower()}"
    path.write_bytes(encoded(sine(3.0) * np.linspace(0.05, 1.0, 3 * RATE), container, encoding))
    whole, span = decode(str(path)).samples_T, decode(str(path), offset, duration).samples_T
    start = round(offset * RATE)
    stop = len(whole) if duration is None else round((offset + duration) * RATE)
    assert len(span) == stop - start
    np.testing.assert_allclose(span, whole[start:stop], atol=1e-6)


@given(start=st.integers(0, 2 * RATE), length=st.integers(1, RATE), rate=st.sampled_from([8000, 16000, 44100]))
def test_spans_of_seconds_hit_samples(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, rate: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"count{rate}.wav"
    if not path.exists():
        soundfile.write(path, np.arange(3 * RATE, dtype=np.int32) << 8, rate, subtype="PCM_24")
    got = decode(str(path), start / rate, length / rate).samples_T
    np.testing.assert_array_equal(np.round(got * 2**23), np.arange(start, start + length))


def test_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.stack([SOUND * gain for gain in (1.0, 0.5, 0.25, -1.0, 0.0, 0.1, 0.2, 0.3)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, RATE, subtype="FLOAT")
    np.testing.assert_allclose(decode(str(tmp_path / "a.wav")).samples_T, channels.mean(axis=1), atol=1e-6)
    assert probe(str(tmp_path / "a.wav")).channels == 8


@pytest.mark.parametrize(("rate", "hz"), [(192_000, 1000.0), (8000, 440.0), (44_100, 3000.0), (22_050, 100.0)])
def test_resampling_keeps_frequency_and_level(tmp_path: Path, rate: int, hz: float) -> None:
    soundfile.write(tmp_path / "a.wav", sine(2.0, hz, rate), rate, subtype="FLOAT")
    samples = decode(str(tmp_path / "a.wav")).at(RATE)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 2 * RATE) <= 1
    middle = samples[RATE // 2 : RATE // 2 + RATE]  # one second: FFT bins are whole Hz
    spectrum = np.abs(np.fft.rfft(middle)) / (RATE / 2)
    assert spectrum.argmax() == hz
    assert spectrum.max() == pytest.approx(0.5, rel=1e-3)
    assert np.delete(spectrum, int(hz)).max() < 1e-4


def test_resampling_removes_what_would_alias(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sine(1.0, 20_000.0, 192_000), 192_000, subtype="FLOAT")
    assert np.abs(decode(str(tmp_path / "a.wav")).at(RATE)[500:-500]).max() < 1e-4


def test_the_digest_is_of_the_sound(tmp_path: Path) -> None:
    samples = np.round(SOUND * 2**15).astype(np.int16)
    for name, container, rate in (("a.wav", "WAV", RATE), ("b.flac", "FLAC", RATE), ("c.wav", "WAV", 8000)):
        (tmp_path / name).write_bytes(encoded(samples, container, "PCM_16", rate))
    a, b, c = (decode(str(tmp_path / n)).digest for n in ("a.wav", "b.flac", "c.wav"))
    assert a == b != c


def test_a_span_may_end_a_rounding_after_the_file(write_audio: WriteAudio) -> None:
    path = write_audio("a.wav", 1.0)
    assert len(decode(str(path), 0.5, 0.54).samples_T) == RATE // 2
    assert reason(path, 0.5, 0.6) == "span"


@pytest.mark.parametrize(("offset", "duration"), [(-0.1, None), (0.0, -1.0), (0.0, 0.0), (1.0, None), (5.0, 1.0)])
def test_spans_outside_the_file_are_refused(write_audio: WriteAudio, offset: float, duration: float | None) -> None:
    assert reason(write_audio("a.wav", 1.0), offset, duration) == "span"


@pytest.mark.parametrize("container", ["FLAC", "OGG", "WAV"])
def test_remote_files_decode_as_local_ones(tmp_path: Path, container: str) -> None:
    data = encoded(SOUND, container)
    (tmp_path / "a").write_bytes(data)
    storage.write_bytes("memory://bucket/a", data)
    local, remote = decode(str(tmp_path / "a"), 0.5, 1.0), decode("memory://bucket/a", 0.5, 1.0)
    np.testing.assert_array_equal(local.samples_T, remote.samples_T)
    assert probe("memory://bucket/a") == probe(str(tmp_path / "a"))
    assert reason("memory://bucket/none") == "missing"
    storage.write_bytes("memory://bucket/cut", data[: len(data) // 2])
    assert reason("memory://bucket/cut") == "truncated"


def test_an_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(AudioError("truncated", "a.wav: cut short")))
    assert (error.reason, str(error)) == ("truncated", "a.wav: cut short")


@pytest.fixture
def ffmpeg_files(tmp_path: Path) -> Path:
    """Two seconds of 440 Hz in forms that libsndfile cannot read."""
    tone = sine(2.0)
    for name, codec in (("a.m4a", "aac"), ("a.webm", "libopus"), ("a.aac", "aac")):
        write_with_ffmpeg(tmp_path / name, codec, tone)
    (tmp_path / "piped.flac").write_bytes(with_frame_count(encoded(tone, "FLAC"), 0))
    return tmp_path


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.aac", "piped.flac"])
def test_ffmpeg_reads_what_libsndfile_cannot(ffmpeg_files: Path, name: str) -> None:
    path = str(ffmpeg_files / name)
    clip, info = decode(path), probe(path)
    assert clip.seconds == pytest.approx(2.0, abs=0.15)  # AAC pads to whole frames
    assert (info.rate, info.channels) == (clip.rate, 1)
    assert info.seconds == pytest.approx(2.0, abs=0.15)
    second = clip.samples_T[clip.rate // 2 : clip.rate // 2 + clip.rate]
    assert np.abs(np.fft.rfft(second)).argmax() == 440
    np.testing.assert_allclose(decode(path, 0.5, 1.0).samples_T, second, atol=1e-6)


@pytest.mark.parametrize("name", ["a.m4a", "a.webm", "a.aac", "piped.flac"])
def test_cut_files_that_ffmpeg_reads(ffmpeg_files: Path, name: str) -> None:
    path = ffmpeg_files / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path) in ("truncated", "unreadable")  # an MP4 has its index at its end


@pytest.mark.real
def test_real_recordings_decode_to_their_durations() -> None:
    if "COAT_REAL_DIR" not in os.environ:
        pytest.skip("COAT_REAL_DIR is not set")
    from coat.manifests.corpus.manifest import Manifest

    for u in Manifest.read(str(Path(os.environ["COAT_REAL_DIR"], "manifest.jsonl"))):
        clip = decode(u.audio, u.offset, u.duration)
        assert clip.seconds == pytest.approx(u.duration, abs=0.05), u.id
        assert np.abs(clip.at(RATE)).max() > 1e-3, u.id


@pytest.mark.parametrize(("container", "encoding"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), *LOSSY])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
@pytest.mark.parametrize(("offset", "duration"), [(0.0, None), (0.7331, 1.9)])
def test_pieces_are_the_whole_bit_for_bit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    container: str,
    encoding: str,
    rate: int,
    offset: float,
    duration: float | None,
) -> None:
    path = tmp_path / "a"
    path.write_bytes(encoded(np.stack([SOUND, SOUND[::-1]], axis=1), container, encoding))
    monkeypatch.setattr(audio_stream, "PIECE_S", 0.31)
    monkeypatch.setattr(audio_stream, "MP3_BLOCK_S", 0.31)
    clip = decode(str(path), offset, duration)
    span = AudioFile(str(path)).span(offset, duration)
    assert (span.samples, span.rate, span.seconds) == (len(clip.samples_T), clip.rate, clip.seconds)
    pieces = list(span.pieces(rate))
    assert len(pieces) > 5
    assert max(len(p) for p in pieces) < 0.5 * rate
    np.testing.assert_array_equal(np.concatenate(pieces), clip.at(rate))
    assert sum(len(p) for p in pieces) == resampled_length(len(clip.samples_T), RATE, rate)
    assert span.digest == clip.digest
    start, whole_T = round(offset * RATE), soundfile.read(path, dtype="float32")[0].mean(axis=1)
    np.testing.assert_allclose(clip.samples_T, whole_T[start : start + span.samples], atol=1e-6)


def test_the_digest_is_what_it_has_always_been() -> None:
    """Stores hold it: xxh3 of the samples' bytes and the rate as text."""
    samples = np.arange(1000, dtype=np.float32)
    assert Clip(samples, 16000).digest == xxhash.xxh3_64_hexdigest(samples.tobytes() + b"16000")


@given(samples=st.integers(1, 100_000), rate=st.integers(4000, 192_000), wanted=st.sampled_from([8000, 16000, 24000]))
def test_the_length_of_resampled_audio_is_known_before(samples: int, rate: int, wanted: int) -> None:
    assert len(Clip(np.zeros(samples, np.float32), rate).at(wanted)) == resampled_length(samples, rate, wanted)


@pytest.mark.parametrize(("container", "encoding"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), *LOSSY])
def test_spans_of_one_file_do_not_depend_on_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, encoding: str
) -> None:
    monkeypatch.setattr(audio_stream, "MP3_BLOCK_S", 4.0)
    path = tmp_path / "a"
    sound = np.tile(SOUND, 5)
    path.write_bytes(encoded(sound * np.linspace(0.05, 1.0, len(sound)), container, encoding))
    whole_T = soundfile.read(path, dtype="float32")[0]
    file = AudioFile(str(path))
    rng = np.random.default_rng(0)
    for offset, duration in zip(rng.uniform(0, 13, 40), rng.uniform(0.1, 1.9, 40), strict=True):
        clip = file.span(offset, duration).decode()
        assert clip.digest == decode(str(path), offset, duration).digest
        start = round(offset * RATE)
        np.testing.assert_allclose(clip.samples_T, whole_T[start : start + len(clip.samples_T)], atol=1e-6)


@pytest.mark.parametrize("piece", [0.31, 30.0])
def test_pieces_of_damaged_audio_end_in_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: float
) -> None:
    monkeypatch.setattr(audio_stream, "PIECE_S", piece)
    data = bytearray(encoded(SOUND, "FLAC"))
    data[len(data) // 2 : len(data) // 2 + 5000] = bytes(5000)
    (tmp_path / "a.flac").write_bytes(data)
    samples = SOUND.copy()
    samples[2 * RATE] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    for name, expected in (("a.flac", "truncated"), ("a.wav", "not_finite")):
        with pytest.raises(AudioError) as e:
            list(AudioFile(str(tmp_path / name)).span().pieces(8000))
        assert e.value.reason == expected
