"""Addresses: what is read at one is what the file holds there; what is not there is said. Against tarfile, Arrow."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

from coat.manifests import addresses
from coat.manifests.addresses import ByteRange, ParquetCell, TarMember, WholeFile
from coat.manifests.audio.file import AudioFile, decode, probe
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import ManifestError
from tests.manifests.conftest import RATE, encoded, reason, sine, write_with_ffmpeg

Sound = tuple[str, bytes]
NAMES = ["a.wav", "deep/er/b.flac", "Grüße.wav", "x" * 140 + ".wav", "ü" * 70 + ".flac", "with blank & # =%.wav"]


@pytest.fixture(scope="module")
def sounds() -> list[Sound]:
    return [
        (name, encoded(sine(0.5, 200.0 + 40 * i), name[-4:].strip(".").upper(), "PCM_16"))
        for i, name in enumerate(NAMES)
    ]


def make_tar(path: Path, sounds: list[Sound], form: int = tarfile.PAX_FORMAT) -> list[TarMember]:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in sounds:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(path) as tar:
        return [TarMember(str(path), m.offset_data, m.size, m.name) for m in tar]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_of_a_tar(form: int, sounds: list[Sound], tmp_path: Path) -> None:
    for member, (name, data) in zip(make_tar(tmp_path / "a.tar", sounds, form), sounds, strict=True):
        assert addresses.parse(str(member)) == member
        assert (member.member, member.size(), member.open().getvalue()) == (name, len(data), data)
        assert (decode(str(member)).samples_T == soundfile.read(io.BytesIO(data), dtype="float32")[0]).all()
        assert probe(str(member)).seconds == 0.5


def test_a_name_in_latin_1(tmp_path: Path) -> None:
    data = encoded(sine(0.1), "WAV")
    (member,) = make_tar(
        tmp_path / "a.tar", [(b"caf\xe9.wav".decode("utf-8", "surrogateescape"), data)], tarfile.GNU_FORMAT
    )
    assert str(member).encode()  # text
    assert addresses.parse(str(member)).open() is not None
    assert addresses.parse(str(member)) == member


def test_a_tar_that_was_written_anew_is_no_other_sound(sounds: list[Sound], tmp_path: Path) -> None:
    members = make_tar(tmp_path / "a.tar", sounds)
    make_tar(tmp_path / "a.tar", [("y" + name[1:], data) for name, data in sounds])
    with pytest.raises(ValueError, match="written anew"):
        members[0].open()
    assert reason(str(members[0])) == "unreadable"
    make_tar(tmp_path / "a.tar", sounds[::-1])
    assert [reason(str(m)) for m in members] == ["unreadable"] * len(members)
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:3000])
    assert reason(str(members[-1])) == "truncated"
    (tmp_path / "a.tar").unlink()
    assert reason(str(members[0])) == "missing"


@pytest.mark.parametrize("rows", [1, 2, 6])
def test_cells_of_a_parquet_table(rows: int, sounds: list[Sound], tmp_path: Path) -> None:
    cells = [{"audio": {"bytes": data, "path": name}, "alone": data, "n": 1} for name, data in sounds]
    cells[3]["audio"] = None
    cells[4]["audio"] = {"bytes": None, "path": "x.wav"}
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(pa.Table.from_pylist(cells), path, row_group_size=rows)
    for i, (_, data) in enumerate(sounds):
        for column in ("audio.bytes", "alone"):
            cell = ParquetCell(path, i // rows, column, i % rows)
            assert addresses.parse(str(cell)) == cell
            assert cell.open().getvalue() == (b"" if i in (3, 4) and column == "audio.bytes" else data)
    for wrong, said in [
        (ParquetCell(path, 9, "alone", 0), "none of number 9"),
        (ParquetCell(path, 0, "alone", rows), f"{rows} rows, none of number {rows}"),
        (ParquetCell(path, 0, "n", 0), "no column n of bytes"),
        (ParquetCell(path, 0, "audio", 0), "no column audio of bytes"),
        (ParquetCell(path, 0, "none", 0), "it has audio"),
    ]:
        with pytest.raises(ValueError, match=said):
            wrong.open()
        assert reason(str(wrong)) == "unreadable"
    assert reason(str(ParquetCell(path, 3 // rows, "audio.bytes", 3 % rows))) == "empty"


def test_a_parquet_table_that_was_written_anew_is_read_anew(sounds: list[Sound], tmp_path: Path) -> None:
    cell = ParquetCell(str(tmp_path / "a.parquet"), 0, "a", 0)
    for _, data in sounds[:2]:
        pyarrow.parquet.write_table(pa.table({"a": [data]}), cell.url)
        assert cell.open().getvalue() == data
    Path(cell.url).write_bytes(b"PAR1 no more")
    assert reason(str(cell)) == "unreadable"


def test_spans_of_bytes(tmp_path: Path) -> None:
    data = encoded(sine(0.25), "FLAC")
    (tmp_path / "a.bin").write_bytes(b"x" * 1000 + data + b"y" * 10)
    span = ByteRange(str(tmp_path / "a.bin"), 1000, len(data))
    assert addresses.parse(str(span)) == span
    assert decode(str(span)).seconds == 0.25
    assert reason(f"{tmp_path}/a.bin#offset=1000&size={len(data) + 11}") == "truncated"
    assert reason(f"{tmp_path}/a.bin#offset=0&size={2**50}") == "truncated"
    assert reason(f"{tmp_path}/a.bin#offset=1000&size=0") == "empty"


def test_channels(tmp_path: Path) -> None:
    left_T, right_T = sine(0.5, 300.0), sine(0.5, 500.0)
    for name in ("a.wav", "a.flac", "a.mp3", "a.ogg"):
        soundfile.write(tmp_path / name, np.stack([left_T, right_T], 1), RATE)
        whole_TC, _ = soundfile.read(tmp_path / name, dtype="float32")
        for channel in (0, 1):
            span = AudioFile(f"{tmp_path}/{name}#channel={channel}").span()
            assert (span.decode().samples_T == whole_TC[:, channel]).all(), name
        assert (decode(f"{tmp_path}/{name}").samples_T == whole_TC.mean(axis=1)).all()
        assert reason(f"{tmp_path}/{name}#channel=2") == "channels"
    (member,) = make_tar(tmp_path / "a.tar", [("a.flac", (tmp_path / "a.flac").read_bytes())])
    assert decode(f"{member}&channel=1").digest == decode(f"{tmp_path}/a.flac#channel=1").digest


def test_channels_through_ffmpeg(tmp_path: Path) -> None:
    path = f"{tmp_path}/a.m4a"
    write_with_ffmpeg(Path(path), "aac", np.stack([sine(1.0, 300.0), sine(1.0, 500.0)], 1))
    for channel, hz in ((0, 300), (1, 500)):
        clip = decode(f"{path}#channel={channel}")
        peak = np.abs(np.fft.rfft(clip.samples_T[:RATE])).argmax()
        assert abs(peak - hz) <= 1
    assert reason(f"{path}#channel=2") == "channels"
    write_with_ffmpeg(tmp_path / "b.m4a", "aac", np.stack([sine(1.0), -sine(1.0)], 1))
    assert reason(tmp_path / "b.m4a") == "channels"


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_channels_that_cancel_are_noticed(name: str, tmp_path: Path) -> None:
    """And what is nearly so, or silent, is not taken for it."""
    rng = np.random.default_rng(0)
    sound_T, other_T = rng.uniform(-0.5, 0.5, (2, RATE))
    for scale, cancels in ((-1.0, True), (-0.8, False), (0.0, False), (1.0, False)):
        soundfile.write(tmp_path / name, np.stack([sound_T, scale * sound_T], 1), RATE)
        if cancels:
            assert reason(tmp_path / name) == "channels"
            assert decode(f"{tmp_path}/{name}#channel=0").seconds >= 1.0
        else:
            assert decode(str(tmp_path / name)).seconds >= 1.0
    for quiet in (np.stack([sound_T, other_T], 1), np.stack([1e-5 * sound_T, -1e-5 * sound_T], 1), np.zeros((RATE, 2))):
        soundfile.write(tmp_path / name, quiet, RATE)
        assert decode(str(tmp_path / name)).seconds >= 1.0


def test_a_hash_in_a_name_is_a_name(tmp_path: Path) -> None:
    for name in ("C#minor.wav", "a#b=c.wav", "take #2.wav", "a#offset.wav", "x#y=1&size=2"):
        assert addresses.parse(name) == WholeFile(name)
        assert not addresses.is_address(name)
        assert addresses.container(name) == name
    (tmp_path / "C#minor.wav").write_bytes(encoded(sine(), "WAV"))
    assert decode(f"{tmp_path}/C#minor.wav#channel=0").seconds == 1.0


WRONG = [
    "#offset=1",
    "#offset=-1&size=2",
    "#offset=1&size=x",
    "#offset=1&offset=1&size=2",
    "#row=1&column=a",
    "#row_group=1&column=a&row=99999999999999999",
    "#offset=1&size=2&row=3",
    "#channel=left",
    "#member=a",
]


@pytest.mark.parametrize("spans", [True, False])
@pytest.mark.parametrize("wrong", WRONG)
def test_an_address_that_says_nothing_is_named_with_its_row(wrong: str, spans: bool, tmp_path: Path) -> None:
    """By both readers of manifests."""
    right = ["a.tar#offset=512&size=3&member=a.wav", "a.tar#size=3&offset=512", "b.wav#channel=1", "c#d.wav"]
    right += ["a.parquet#row_group=0&column=audio.bytes&row=3&channel=0"]
    lines = [json.dumps({"id": str(i), "audio_filepath": path}) for i, path in enumerate(right)]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines) + "\n")
    assert list(Manifest.read(str(path), spans=spans).audio_filepaths.to_pylist()) == right
    path.write_text("\n".join([*lines, json.dumps({"id": "x", "audio_filepath": f"a.tar{wrong}"})]) + "\n")
    with pytest.raises(ManifestError, match=r"m\.jsonl:6: audio_filepath is"):
        Manifest.read(str(path), spans=spans)


def test_groups() -> None:
    texts = [
        "a.wav",
        "b.tar#offset=512&size=1&member=x",
        "b.tar#offset=1024&size=1&member=y&channel=1",
        "a.wav#channel=0",
    ]
    texts += ["c.parquet#row_group=1&column=a&row=0", "c.parquet#row_group=1&column=a&row=7", "c#d.wav"]
    expected = ["a.wav", "b.tar", "b.tar", "a.wav", "c.parquet#row_group=1", "c.parquet#row_group=1", "c#d.wav"]
    assert [addresses.group_of(text) for text in texts] == expected
    assert addresses.groups_of(pa.array(texts, pa.large_string())).to_pylist() == expected
