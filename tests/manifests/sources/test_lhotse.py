"""Lhotse's channels, recordings with supervisions, and Shar folders: against what lhotse itself hears and writes."""

import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from coat.manifests import storage
from coat.manifests.addresses import split_channel
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError
from coat.manifests.sources.formats import detect_format
from coat.manifests.sources.importing import import_manifest
from tests.manifests.conftest import RATE, sine
from tests.manifests.sources.importing import imported, jsonl, problems

lhotse = pytest.importorskip("lhotse")
from lhotse import CutSet, MultiCut, Recording, RecordingSet, SupervisionSegment, SupervisionSet  # noqa: E402
from lhotse.audio import AudioSource  # noqa: E402


@pytest.fixture
def stereo(tmp_path: Path) -> Recording:
    """Two tones of 2 s in one file."""
    soundfile.write(tmp_path / "st.wav", np.stack([sine(2.0, 300.0), sine(2.0, 500.0)], 1), RATE)
    return Recording.from_file(tmp_path / "st.wav")


@pytest.fixture
def in_two_files(tmp_path: Path) -> Recording:
    """The same in two files of one recording, whose channels are called 3 and 5."""
    for name, hz in (("x", 300.0), ("y", 500.0)):
        soundfile.write(tmp_path / f"{name}.wav", sine(2.0, hz), RATE)
    sources = [AudioSource("file", [c], str(tmp_path / f"{n}.wav")) for c, n in ((3, "x"), (5, "y"))]
    return Recording("two", sources, RATE, 2 * RATE, 2.0, channel_ids=[3, 5])


def supervised(recording: Any) -> MultiCut:
    """A cut of 1.5 s of both channels, on which two speakers are heard."""
    channels = list(recording.channel_ids or [])
    said = [
        SupervisionSegment(f"s{c}", recording.id, 0.1 + 0.5 * i, 0.4, channel=c, text=f"words {c}")
        for i, c in enumerate(channels)
    ]
    return MultiCut("c", 0.25, 1.5, channels, supervisions=said, recording=recording)


def sound(cut: Any) -> np.ndarray:
    """`[C, T]`, as lhotse loads it."""
    samples_CT = cut.load_audio()
    assert samples_CT is not None
    return samples_CT


def heard(row: Utterance) -> np.ndarray:
    return decode(row.audio, row.offset, row.duration).samples_T


def test_a_multicut_mixed_and_by_channels(stereo: Any, tmp_path: Path) -> None:
    cut = supervised(stereo)
    CutSet.from_cuts([cut, cut.drop_supervisions().with_id("bare")]).to_file(tmp_path / "cuts.jsonl")
    *said, bare = imported(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl")
    assert [(u.id, u.text) for u in said] == [("c-0", "words 0"), ("c-1", "words 1")]
    np.testing.assert_allclose(heard(bare), sound(cut).mean(axis=0), atol=1e-6)
    for channel in (0, 1):
        rows = imported(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl", channel=channel)
        assert [(u.id, u.text) for u in rows] == [("c", f"words {channel}"), ("bare", None)]
        for u in rows:
            np.testing.assert_allclose(heard(u), sound(cut)[channel], atol=1e-6)
    rows = imported(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl", channel="each")
    assert [u.id for u in rows] == ["c-ch0", "c-ch1", "bare-ch0", "bare-ch1"]
    assert [split_channel(u.audio)[1] for u in rows] == [0, 1, 0, 1]
    (line, _) = problems(tmp_path / "cuts.jsonl", tmp_path / "no.jsonl", channel=2)
    assert "no source has channel 2 (they have [0, 1])" in line


def test_a_monocut_is_of_its_channel(stereo: Any, in_two_files: Any, tmp_path: Path) -> None:
    """Whatever channel is asked for."""
    cuts: list[Any] = [*stereo.to_cut().to_mono(), *in_two_files.to_cut().to_mono()]
    CutSet.from_cuts(c.with_id(f"c{i}") for i, c in enumerate(cuts)).to_file(tmp_path / "cuts.jsonl")
    for channel in ("mix", "each", 1):
        rows = imported(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl", channel=channel)
        for u, cut in zip(rows, cuts, strict=True):
            np.testing.assert_allclose(heard(u), sound(cut)[0], atol=1e-6)


def test_channels_in_several_files(in_two_files: Any, tmp_path: Path) -> None:
    cut = supervised(in_two_files)
    CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl")
    (line,) = problems(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl")
    assert "lie in several files ([3] and [5]): --channel each" in line
    rows = imported(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl", channel="each")
    assert [(u.id, u.text) for u in rows] == [("c-ch3", "words 3"), ("c-ch5", "words 5")]
    for u, samples_T in zip(rows, sound(cut), strict=True):
        np.testing.assert_allclose(heard(u), samples_T, atol=1e-6)
    (u,) = imported(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl", channel=5)
    assert u.text == "words 5"


def test_a_part_of_the_channels_is_no_mean(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "4.wav", np.stack([sine(1.0, 100.0 + c) for c in range(4)], 1), RATE)
    cut = MultiCut("c", 0, 1.0, [1, 2], recording=Recording.from_file(tmp_path / "4.wav"))
    CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl")
    assert "the mean of channels [1, 2] of [0, 1, 2, 3]" in problems(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl")[0]
    (u,) = imported(tmp_path / "cuts.jsonl", tmp_path / "m.jsonl", channel=2)
    np.testing.assert_allclose(heard(u), sound(cut)[1], atol=1e-6)


@pytest.fixture
def manifests(stereo: Any, tmp_path: Path) -> Path:
    """Recordings and supervisions, beside each other: two are supervised, one is not."""
    recordings = [stereo]
    for name, seconds in (("a", 1.0), ("b", 1.5)):
        soundfile.write(tmp_path / f"{name}.wav", sine(seconds), RATE)
        recordings.append(Recording.from_file(tmp_path / f"{name}.wav"))
    said = [SupervisionSegment(f"s{c}", "st", 0.5 * c, 0.5, channel=c, text=f"words {c}", speaker="x") for c in (0, 1)]
    said.append(SupervisionSegment("all", "st", 0.0, 2.0, channel=[0, 1], text="both"))
    said.append(SupervisionSegment("sa", "a", 0.25, 0.5, text="more", custom={"snr": 3}))
    folder = tmp_path / "lists"
    folder.mkdir()
    RecordingSet.from_recordings(recordings).to_file(folder / "c_recordings_dev.jsonl.gz")
    SupervisionSet.from_segments(said).to_file(folder / "c_supervisions_dev.jsonl.gz")
    return folder


@pytest.mark.parametrize("given", ["recordings", "supervisions"])
def test_recordings_with_supervisions(given: str, manifests: Path, tmp_path: Path) -> None:
    source = manifests / f"c_{given}_dev.jsonl.gz"
    assert detect_format(str(source)) == "lhotse-recordings"
    rows = imported(source, tmp_path / "m.jsonl")
    assert [(u.id, u.offset, u.duration, u.text) for u in rows] == [
        ("s0", 0.0, 0.5, "words 0"),
        ("s1", 0.5, 0.5, "words 1"),
        ("all", 0.0, 2.0, "both"),
        ("sa", 0.25, 0.5, "more"),
        ("b", 0.0, 1.5, None),
    ]
    assert (rows[0].extra, rows[3].extra) == ({"speaker": "x"}, {"snr": 3})
    stereo_CT = np.stack([sine(2.0, 300.0), sine(2.0, 500.0)])
    for u, expected_T in zip(rows, (stereo_CT[0, :8000], stereo_CT[1, 8000:16000], stereo_CT.mean(0)), strict=False):
        np.testing.assert_allclose(heard(u), expected_T, atol=1e-4)
    each = imported(source, tmp_path / "m.jsonl", channel="each")
    assert [u.id for u in each] == ["s0", "s1", "all-ch0", "all-ch1", "sa", "b"]


def test_recordings_alone_and_supervisions_alone(manifests: Path, tmp_path: Path) -> None:
    (manifests / "c_supervisions_dev.jsonl.gz").rename(tmp_path / "other_supervisions.jsonl.gz")
    rows = imported(manifests / "c_recordings_dev.jsonl.gz", tmp_path / "m.jsonl")
    assert [(u.id, u.duration) for u in rows] == [("st", 2.0), ("a", 1.0), ("b", 1.5)]
    with pytest.raises(InputError, match=r"its recordings are not beside it; expected .*other_recordings\.jsonl\.gz"):
        import_manifest(str(tmp_path / "other_supervisions.jsonl.gz"), str(tmp_path / "m.jsonl"))


def test_supervisions_that_fit_nothing_are_named(manifests: Path, tmp_path: Path) -> None:
    path = manifests / "c_supervisions_dev.jsonl.gz"
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    lines[0]["recording_id"] = "nobody"
    lines[1]["start"] = 7.0
    lines[2]["channel"] = 9
    lines[3]["channel"] = "left"
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    found = problems(path, tmp_path / "m.jsonl")
    assert "recording 'nobody' is not in" in found[0]
    assert any("no source has channel 9" in line for line in found)
    assert any("channel is 'left'" in line for line in found)


@pytest.fixture
def shar(stereo: Any, tmp_path: Path) -> tuple[Path, list[Any]]:
    """Five cuts in three shards, of a span and of channels too; and what lhotse hears of them."""
    cuts: list[Any] = [supervised(stereo), *[c.with_id(f"left{i}") for i, c in enumerate(stereo.to_cut().to_mono())]]
    soundfile.write(tmp_path / "a.wav", sine(3.0, 222.0), RATE)
    mono = Recording.from_file(tmp_path / "a.wav").to_cut()
    cuts += [mono.truncate(offset=0.5, duration=1.25).with_id("deep/er.a"), mono.with_id("whole")]
    (tmp_path / "shar").mkdir()
    CutSet.from_cuts(cuts).to_shar(tmp_path / "shar", fields={"recording": "wav"}, shard_size=2)
    return tmp_path / "shar", cuts


def test_a_shar_folder(shar: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, cuts = shar
    assert detect_format(str(folder)) == "shar"
    rows = imported(folder, tmp_path / "m.jsonl")
    assert [u.id for u in rows] == ["c-0", "c-1", "left0", "left1", "deep/er.a", "whole"]
    assert all("recording.00000" in u.audio_filepath for u in rows)
    for u, cut in zip(rows[2:], cuts[1:], strict=True):
        np.testing.assert_allclose(heard(u), sound(cut)[0], atol=1e-4)
    for u, s in zip(rows, cuts[0].supervisions, strict=False):
        expected_CT = cuts[0].truncate(offset=s.start, duration=s.duration).load_audio()
        np.testing.assert_allclose(heard(u), expected_CT.mean(axis=0), atol=1e-4)
    each = imported(folder, tmp_path / "m.jsonl", channel="each")
    for u, samples_T in zip(each[:2], sound(cuts[0]), strict=True):
        np.testing.assert_allclose(heard(u), samples_T, atol=1e-4)


def test_a_shar_folder_in_a_store(shar: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, _ = shar
    for file in folder.iterdir():
        storage.write_bytes(f"memory://bucket/shar/{file.name}", file.read_bytes())
    here = imported(folder, tmp_path / "here.jsonl")
    import_manifest("memory://bucket/shar", str(tmp_path / "there.jsonl"))
    there = list(Manifest.read(str(tmp_path / "there.jsonl")))
    assert [(u.id, u.text, u.duration) for u in there] == [(u.id, u.text, u.duration) for u in here]
    assert all(u.audio.startswith("memory://bucket/shar/recording.0") for u in there)
    assert [decode(u.audio, u.offset, u.duration).digest for u in there] == [
        decode(u.audio, u.offset, u.duration).digest for u in here
    ]


def test_a_shar_folder_whose_files_do_not_belong_together(shar: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, _ = shar
    first, second = (folder / f"recording.00000{i}.tar" for i in range(2))
    whole = first.read_bytes()

    def said() -> str:
        with pytest.raises(InputError) as e:
            import_manifest(str(folder), str(tmp_path / "m.jsonl"))
        assert not (tmp_path / "m.jsonl").exists()
        return str(e.value)

    first.write_bytes(second.read_bytes())
    assert "has 'left1' where" in said()
    for size in (len(whole) // 2, 700, 512 * (len(whole) // 1024)):
        first.write_bytes(whole[:size])
        assert "recording.000000.tar" in said()
    first.unlink()
    assert "3 files of cuts and 2 tars" in said()


def test_a_cut_of_a_shar_folder_without_audio(tmp_path: Path) -> None:
    (tmp_path / "shar").mkdir()
    row = {"id": "a", "start": 0, "duration": 1.0, "channel": 0, "type": "MonoCut", "supervisions": []}
    (tmp_path / "shar/cuts.000000.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode() + b"\n"))
    with tarfile.open(tmp_path / "shar/recording.000000.tar", "w") as tar:
        for name in ("a.nodata", "a.nometa"):  # as lhotse's TarWriter has it
            tar.addfile(tarfile.TarInfo(name))
    assert "the cut has no recording" in problems(tmp_path / "shar", tmp_path / "m.jsonl")[0]


def test_channels_of_any_corpus(stereo: Any, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mono.wav", sine(1.0), RATE)
    rows = jsonl(tmp_path / "c.jsonl", {"audio": "st.wav", "id": "s"}, {"audio": "mono.wav"}, {"audio": "st.wav"})
    assert [u.id for u in imported(rows, tmp_path / "m.jsonl", channel="each")] == [
        "s-ch0",
        "s-ch1",
        "mono",
        "st-ch0",
        "st-ch1",
    ]
    one = imported(rows, tmp_path / "m.jsonl", channel=0)
    np.testing.assert_allclose(heard(one[2]), sine(2.0, 300.0), atol=1e-4)
    (line,) = [p for p in problems(rows, tmp_path / "no.jsonl", channel=1) if "mono" in p]
    assert "one channel, counted from 0; there is no channel 1" in line
