"""Rows that are longer than a window, and rows that are spans of one file."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from coat.extractors import Options
from coat.manifests import decode, storage
from coat.manifests.audio import file as audio_file
from coat.manifests.audio import stream as audio_stream
from coat.manifests.audio.stream import Stream
from coat.pipeline.decoding import spool
from coat.pipeline.store.layout import ROWS
from coat.pipeline.store.rows import ROWS_SCHEMA
from coat.pipeline.store.target_set import Target
from coat.pipeline.store.target_store import TargetStore
from tests.integration.helpers import PEAK
from tests.manifests.conftest import write_with_ffmpeg
from tests.pipeline.experts import level
from tests.pipeline.extraction.test_extract import run

RATE = 44100


def long_file(path: Path, seconds: float, seed: int = 0) -> Path:
    """Stereo noise whose level changes."""
    n = round(seconds * RATE)
    noise = np.random.default_rng(seed).normal(scale=0.1, size=(n, 2))
    soundfile.write(path, noise * np.linspace(0.2, 1.0, n)[:, None], RATE, subtype="PCM_16")
    return path


def manifest_of(folder: Path, rows: list[dict]) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", **row}) + "\n" for i, row in enumerate(rows)))
    return path


def target(store: Path, expert: str, row: str = "r0") -> Target:
    return TargetStore(str(store)).target_set(expert.lower()).read(row)


def failures(store: Path, expert: str) -> dict[str, str]:
    rows = TargetStore(str(store)).target_set(expert.lower()).rows.values()
    return {r.id: str(r.error).split(":")[0] for r in rows if r.status != "ok"}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_stream, "PIECE_S", 0.7)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("expert", ["Windowed", "ScarceWindows", "Remembers"])
def test_a_long_row_has_the_frames_of_the_whole(tmp_path: Path, expert: str) -> None:
    long_file(tmp_path / "a.flac", 21.013)
    rows = [{"audio_filepath": "a.flac"}, {"audio_filepath": "a.flac", "offset": 3.3, "duration": 8.25}]
    manifest = manifest_of(tmp_path, [*rows, {"audio_filepath": "a.flac", "duration": 0.5}])
    summary = run(manifest, tmp_path / "store", expert, options=Options(dtype="float32"))
    assert (summary.ok, summary.failed) == (3, 0)
    assert summary.halvings == (2 if expert == "ScarceWindows" else 0)
    for i, row in enumerate([*rows, {"duration": 0.5}]):
        clip = decode(str(tmp_path / "a.flac"), row.get("offset", 0.0), row.get("duration"))
        expected = level(clip.at(16000))
        if expert == "Remembers":
            expected = np.cumsum(expected, axis=0)
        found = target(tmp_path / "store", expert, f"r{i}")
        assert found.frames.shape == expected.shape
        np.testing.assert_allclose(found.frames, expected, rtol=1e-5)
    stored = TargetStore(str(tmp_path / "store")).target_set(expert.lower()).rows.values()
    assert {r.id: r.source for r in stored}["r0"] == decode(str(tmp_path / "a.flac")).digest


def test_frames_of_a_long_row_wait_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SPOOL_BYTES", 1000)
    long_file(tmp_path / "a.flac", 9.0)
    run(manifest_of(tmp_path, [{"audio_filepath": "a.flac"}]), tmp_path / "store", "Windowed")
    expected = level(decode(str(tmp_path / "a.flac")).at(16000)).astype(np.float16)
    np.testing.assert_array_equal(target(tmp_path / "store", "Windowed").frames, expected)
    assert not list((tmp_path / "store" / "windowed").rglob("building"))


@pytest.mark.usefixtures("small_pieces")
def test_a_fault_in_the_middle_fails_the_row_alone(tmp_path: Path) -> None:
    data = bytearray(long_file(tmp_path / "a.flac", 12.0).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    (tmp_path / "damaged.flac").write_bytes(data)
    samples = np.zeros(12 * RATE)
    samples[9 * RATE] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    samples[9 * RATE : 10 * RATE] = 0.95
    soundfile.write(tmp_path / "loud.wav", samples, 44100, subtype="FLOAT")
    names = ["damaged.flac", "nan.wav", "loud.wav", "a.flac"]
    manifest = manifest_of(tmp_path, [{"audio_filepath": n, "duration": 12.0} for n in names])
    summary = run(manifest, tmp_path / "store", "PickyWindows")
    assert (summary.ok, summary.failed) == (1, 3)
    expected = {"r0": "truncated", "r1": "not_finite", "r2": "expert_error"}
    assert failures(tmp_path / "store", "PickyWindows") == expected
    assert len(target(tmp_path / "store", "PickyWindows", "r3").frames) == 1200


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.flac", "memory://bucket/a.wav"])
def test_spans_of_one_file_are_read_through_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    long_file(tmp_path / "a.wav", 30.0)
    samples, _ = soundfile.read(tmp_path / "a.wav")
    if "://" in name:
        storage.write_bytes(name, (tmp_path / "a.wav").read_bytes())
    else:
        soundfile.write(tmp_path / name, samples, RATE)
    path = name if "://" in name else str(tmp_path / name)
    rng = np.random.default_rng(0)
    spans = [(float(o), float(d)) for o, d in zip(rng.uniform(0, 28, 40), rng.uniform(0.2, 1.5, 40), strict=True)]
    rows = [{"audio_filepath": name, "offset": o, "duration": d} for o, d in spans]
    handles = []
    monkeypatch.setattr(audio_stream, "MP3_BLOCK_S", 10.0)

    class Counting(Stream):
        def open(self) -> audio_stream.Handle:
            handles.append(self)
            return super().open()

    monkeypatch.setattr(audio_file, "Stream", Counting)
    options = Options(dtype="float32")
    assert run(manifest_of(tmp_path, rows), tmp_path / "store", "Level", options=options).ok == len(spans)
    assert len(set(map(id, handles))) == 1  # a handle per span, or per block of an MP3; by one of them it is checked
    assert len(handles) == (3 if name == "a.mp3" else len(spans))
    stored = {r.id: r for r in TargetStore(str(tmp_path / "store")).target_set("level").rows.values()}
    for i, (offset, duration) in enumerate(spans):
        clip = decode(path, offset, duration)
        assert stored[f"r{i}"].source == clip.digest
        np.testing.assert_array_equal(target(tmp_path / "store", "Level", f"r{i}").frames, level(clip.at(16000)))


def test_a_bad_span_does_not_harm_the_others_of_its_file(tmp_path: Path) -> None:
    long_file(tmp_path / "a.flac", 5.0)
    rows = [{"audio_filepath": "a.flac", "offset": o, "duration": 1.0} for o in (0.0, 7.0, 2.5)]
    summary = run(manifest_of(tmp_path, [*rows, {"audio_filepath": "none.flac", "duration": 1.0}]), tmp_path / "store")
    assert (summary.ok, summary.failed) == (2, 2)
    assert failures(tmp_path / "store", "Level") == {"r1": "span", "r3": "missing"}


MEASURE = (
    PEAK
    + """
import sys
from coat.pipeline import Resources, extract
(s,) = extract(sys.argv[1], sys.argv[2], ["tests.pipeline.experts:Level"], resources=Resources(workers=0))
assert s.ok == 1, s
print(peak() / 2**20)
"""
)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Of 12 minutes of 44.1 kHz stereo, 260 MB as float32, no more than a few windows are held at once."""

    def peak_mb(name: str, blocks: int) -> float:
        folder = tmp_path / name
        folder.mkdir()
        block = np.random.default_rng(0).normal(scale=0.1, size=(30 * RATE, 2))
        with soundfile.SoundFile(folder / "a.flac", "w", RATE, 2, subtype="PCM_16") as f:
            for i in range(blocks):
                f.write(block * (i + 1) / blocks)
        arguments = [str(manifest_of(folder, [{"audio_filepath": "a.flac"}])), str(folder / "store")]
        done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
        return float(done.stdout)

    short, long = peak_mb("short", 1), peak_mb("long", 25)
    print(f"peak of 30 s: {short:.0f} MB, of 12 minutes: {long:.0f} MB")
    assert long - short < 120
    found = TargetStore(str(tmp_path / "long" / "store")).target_set("level").read("r0").frames
    np.testing.assert_array_equal(found, level(decode(str(tmp_path / "long" / "a.flac")).at(16000)).astype(np.float16))


def test_rows_say_what_decoded_them_and_those_of_earlier_versions_are_read(tmp_path: Path) -> None:
    long_file(tmp_path / "a.wav", 2.0)
    long_file(tmp_path / "long.wav", 30.0)
    write_with_ffmpeg(tmp_path / "a.m4a", "aac", soundfile.read(tmp_path / "a.wav")[0][:, 0], RATE)
    names = ["a.wav", "a.m4a", "long.wav", "none.wav"]
    run(manifest_of(tmp_path, [{"audio_filepath": n} for n in names]), tmp_path / "store", "Level")
    targets = TargetStore(str(tmp_path / "store")).target_set("level")
    (unit,) = targets.done.names
    rows = targets.read_rows(unit)
    found = {r.id: r.decoder for r in rows}
    assert found == {"r0": "libsndfile", "r1": "ffmpeg", "r2": "libsndfile", "r3": None}
    url = targets.unit_url(unit, ROWS)
    pq.write_table(pq.read_table(url).select(ROWS_SCHEMA.names), url)
    assert [replace(r, decoder=None) for r in rows] == targets.read_rows(unit)
