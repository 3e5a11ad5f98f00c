"""Files that were damaged, joined and lied about: by chance (the fuzzer of benchmarks), and what it once found."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import fuzz_audio
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import decode, probe
from tests.manifests.conftest import encoded, reason, sine, with_frame_count

FILES = 400
KINDS = [*fuzz_audio.SOUNDFILE_KINDS, *fuzz_audio.FFMPEG_KINDS]


def test_no_crash_no_hang_and_no_silent_loss() -> None:
    """Other files than in a run by hand: seed 1,000."""
    first = 1000 * 1_000_000
    verdicts = list(fuzz_audio.judged(range(first, first + FILES), workers=1))
    assert sorted(v.number for v in verdicts) == list(range(first, first + FILES))
    assert [v for v in verdicts if v.is_fault] == []
    counted = [v.outcome for v in verdicts]
    assert min(counted.count("decoded"), counted.count("refused")) > FILES // 10


def test_a_process_that_dies_is_named_with_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer would see a crash of C."""
    monkeypatch.setattr(fuzz_audio, "judge", die_at_3)
    verdicts = {v.number: v.outcome for v in fuzz_audio.judged(range(6), workers=1)}
    assert verdicts == {**dict.fromkeys(range(6), "decoded"), 3: "died"}


def die_at_3(number: int, path: Path, file: fuzz_audio.Tampered) -> fuzz_audio.Verdict:
    import os

    if number == 3:
        os.abort()
    return fuzz_audio.Verdict(number, file.kind, file.how, "decoded")


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_of_all_kinds_are_decoded(kind: str, tmp_path: Path) -> None:
    for number in range(4):
        data, seconds = fuzz_audio.whole(kind, number)
        (tmp_path / "a").write_bytes(data)
        assert decode(str(tmp_path / "a")).seconds == pytest.approx(seconds, abs=fuzz_audio.TOLERANCE_S)
        assert probe(str(tmp_path / "a")).seconds == pytest.approx(seconds, abs=fuzz_audio.TOLERANCE_S)


@pytest.mark.parametrize("other", ["AU", "CAF", "AAC", "WMA", "MP3", "W64 PCM_16"])
@pytest.mark.parametrize("kind", ["WebM", "WebM live", "Matroska", "AAC", "WMA", "FLAC", "MP3"])
def test_another_file_behind_one_is_decoded_or_named(kind: str, other: str, tmp_path: Path) -> None:
    parts = [fuzz_audio.whole(k, 0) for k in (kind, other, kind)]
    (tmp_path / "a").write_bytes(b"".join(data for data, _ in parts))
    try:
        assert decode(str(tmp_path / "a")).seconds >= sum(s for _, s in parts) - 3 * fuzz_audio.TOLERANCE_S
    except AudioError as e:
        assert e.reason in ("unreadable", "truncated")  # noqa: PT017  either is right
    assert not isinstance(probe_or_error(tmp_path / "a"), Exception)


def probe_or_error(path: Path) -> Exception | None:
    try:
        probe(str(path))
    except AudioError:
        return None
    except Exception as e:  # noqa: BLE001  that is what is looked for
        return e
    return None


def test_an_mp3_whose_length_libsndfile_guesses_too_long(tmp_path: Path) -> None:
    """A bare one of CBR: by its bytes it would have a fifth of a frame more."""
    data, _ = fuzz_audio.whole("MP3 bare", 0)
    (tmp_path / "a.mp3").write_bytes(data)
    guessed = soundfile.info(str(tmp_path / "a.mp3")).frames
    clip = decode(str(tmp_path / "a.mp3"))
    assert 0 < guessed - len(clip.samples_T) < 576
    assert probe(str(tmp_path / "a.mp3")).seconds == clip.seconds


def test_a_flac_whose_header_states_another_rate_or_fewer_samples(tmp_path: Path) -> None:
    flac = encoded(sine(0.25), "FLAC")
    fast = flac[:18] + struct.pack(">I", 256_000 << 12 | int.from_bytes(flac[18:22], "big") & 0xFFF) + flac[22:]
    (tmp_path / "a.flac").write_bytes(fast)
    for read in (decode, probe):
        with pytest.raises(AudioError, match="its header states 256000 Hz, its frames 16000 Hz"):
            read(str(tmp_path / "a.flac"))
    (tmp_path / "a.flac").write_bytes(with_frame_count(flac, 256))
    with pytest.raises(AudioError, match=r"promises 0\.016 s, and its frames hold more"):
        decode(str(tmp_path / "a.flac"))


@pytest.mark.parametrize("rate", [8000, 11025, 12345, 22050, 44100, 96000, 655350])
@pytest.mark.parametrize("samples", [1, 100, 192, 4095, 4096, 4097, 8192, 10_000])
def test_flacs_of_all_rates_and_lengths(rate: int, samples: int, tmp_path: Path) -> None:
    sound_T = np.random.default_rng(0).uniform(-0.5, 0.5, samples)
    soundfile.write(tmp_path / "a.flac", sound_T, rate)
    assert len(decode(str(tmp_path / "a.flac")).samples_T) == samples
    assert probe(str(tmp_path / "a.flac")).rate == rate


def test_a_box_of_no_length_is_no_endless_loop(tmp_path: Path) -> None:
    data, _ = fuzz_audio.whole("M4A in fragments", 0)
    (tmp_path / "a.m4a").write_bytes(bytes(4) + data[4:])
    assert reason(tmp_path / "a.m4a") in ("unreadable", "truncated")


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    out = io.BytesIO()
    soundfile.write(out, sine(0.5), 16000, format="WAV", subtype="PCM_16")
    data = bytearray(out.getvalue())
    data[20:22] = struct.pack("<H", 0x7777)
    (tmp_path / "a.wav").write_bytes(bytes(data))
    for read in (decode, probe):
        with pytest.raises(AudioError, match="codec that neither"):
            read(str(tmp_path / "a.wav"))
