"""Audio in shards as FLAC, as it was, or left out; and long audio that is cut with the right span of every target."""

import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st

from coat.manifests import InputError, Manifest, ShardIndex, decode
from coat.manifests.shards.reading import read_samples
from coat.manifests.shards.tar import TarSample
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.gathering.pieces import END_SLACK_S, cut_into_pieces, piece_frames, piece_grid_s
from coat.pipeline.shard_checks.verification import verify_shards
from coat.pipeline.shards.build import build_shards
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_store import TargetStore
from coat.trainer import iterate_shards
from tests.pipeline.shards.test_sidecars import NAMES
from tests.trainer.helpers import SPECS

LEVEL = NAMES[:1]


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[str, str]:
    """Whole files of four formats and rates, stereo too, and a span of one."""
    rng = np.random.default_rng(0)
    root = tmp_path / "corpus"
    root.mkdir()
    rows: list[dict[str, Any]] = []
    for name, rate, channels in (("a.wav", 16000, 1), ("b.flac", 44100, 2), ("c.mp3", 24000, 1), ("d.ogg", 22050, 1)):
        soundfile.write(root / name, rng.uniform(-0.4, 0.4, (rate * 3, channels)), rate)
        rows.append({"id": name[0], "audio_filepath": name, "response": "noise"})
    rows.append({"id": "span", "audio_filepath": "b.flac", "offset": 0.5, "duration": 1.25})
    (root / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    extract(str(root / "m.jsonl"), str(tmp_path / "store"), LEVEL, resources=Resources(workers=0))
    return str(root / "m.jsonl"), str(tmp_path / "store")


def raw(out: Path) -> dict[str, TarSample]:
    index = ShardIndex.read(str(out))
    return {json.loads(s.members["json"])["id"]: s for shard in index.shards for s in read_samples(index, shard)}


def audio_suffix(sample: TarSample) -> str:
    return next((s for s in sample.members if s != "json" and not s.endswith(".npy")), "")


def test_flac_of_any_rate(mixed: tuple[str, str], tmp_path: Path) -> None:
    for rate in (16000, 24000):
        out = tmp_path / str(rate)
        index = build_shards(*mixed, ["level"], str(out), sample_rate=rate)
        assert index.sample_rate == rate
        heard = {s.id: s for s in iterate_shards(str(out))}
        for u in Manifest.read(mixed[0]):
            wanted = decode(u.audio, u.offset, u.duration).at(rate)
            assert heard[u.id].sample_rate == rate
            np.testing.assert_allclose(heard[u.id].samples_S, np.clip(wanted, -1, 1), atol=2**-15)
        assert not verify_shards(str(out)).damages


def test_files_as_they_were_and_spans_at_their_own_rate(mixed: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_shards(*mixed, ["level"], str(out), audio="original")
    samples = raw(out)
    suffixes = {name: audio_suffix(s) for name, s in samples.items()}
    assert suffixes == {"a": "wav", "b": "flac", "c": "mp3", "d": "ogg", "span": "flac"}
    for u in Manifest.read(mixed[0]):
        if u.id != "span":
            assert samples[u.id].members[suffixes[u.id]] == Path(u.audio).read_bytes()
    part = soundfile.info(io.BytesIO(samples["span"].members["flac"]))
    assert (part.samplerate, part.frames, part.channels) == (44100, round(44100 * 1.25), 1)
    for sample in iterate_shards(str(out)):
        (u,) = [u for u in Manifest.read(mixed[0]) if u.id == sample.id]
        clip = decode(u.audio, u.offset, u.duration)
        assert sample.sample_rate == clip.rate
        np.testing.assert_allclose(sample.samples_S, clip.samples_T, atol=2**-14)
    assert not verify_shards(str(out)).damages


def test_audio_left_out_is_read_where_it_lies(mixed: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    index = build_shards(*mixed, ["level"], str(out), audio="none", max_seconds=2.0)
    assert all(audio_suffix(s) == "" for s in raw(out).values())
    assert not verify_shards(str(out)).damages
    assert index.samples == 4 * 2 + 1
    utterances = {u.id: u for u in Manifest.read(mixed[0])}
    for sample in iterate_shards(str(out)):
        name, _, start = sample.id.partition("@")
        u = utterances[name]
        whole = decode(u.audio, u.offset, u.duration)
        first = round(float(start or 0) * whole.rate)
        assert sample.seconds == pytest.approx(1.5 if start else 1.25, abs=1e-3)
        wanted = whole.samples_T[first : first + len(sample.samples_S)]
        np.testing.assert_allclose(sample.samples_S, wanted, atol=1e-4 if name != "d" else 0.4)
        assert len(sample.targets["level"]) == round(sample.seconds * 100)
    Path(utterances["a"].audio).unlink()
    with pytest.raises(InputError, match=r"the audio that it names cannot be decoded .*no such file"):
        list(iterate_shards(str(out)))


def test_a_sample_cannot_name_a_file_where_the_set_has_audio_of_its_own(mixed: tuple[str, str], tmp_path: Path) -> None:
    """Else the json of a shard from strangers could have any file of this machine read."""
    out = tmp_path / "out"
    build_shards(*mixed, ["level"], str(out), audio="none")
    index = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps(index | {"audio": "flac"}))
    with pytest.raises(InputError, match="no audio member"):
        list(iterate_shards(str(out)))


@pytest.mark.parametrize("limit", [1.0, 1.37, 2.5])
def test_long_audio_is_cut_into_pieces_that_tile_it(limit: float, mixed: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_shards(*mixed, ["level"], str(out), 300_000, max_seconds=limit, layout="sidecar")
    assert not verify_shards(str(out)).damages
    level = TargetStore(mixed[1]).target_set("level")
    found: dict[str, list[Any]] = {}
    for sample, record in zip(iterate_shards(str(out)), raw(out).values(), strict=True):
        meta = json.loads(record.members["json"])
        found.setdefault(meta.get("utterance", sample.id), []).append((meta.get("start", 0.0), sample))
        assert sample.seconds <= limit + 1e-3
        assert len(sample.targets["level"]) == pytest.approx(sample.seconds * 100, abs=1)
        if "start" in meta:
            assert (sample.text, sample.response) == (None, None)  # they are of the whole
    for u in Manifest.read(mixed[0]):
        parts = [s for _, s in sorted(found[u.id], key=lambda item: item[0])]
        wanted = decode(u.audio, u.offset, u.duration).at(16000)
        np.testing.assert_allclose(np.concatenate([s.samples_S for s in parts]), np.clip(wanted, -1, 1), atol=2**-15)
        np.testing.assert_array_equal(np.concatenate([s.targets["level"] for s in parts]), level.read(u).frames)


def test_cuts_fall_where_every_experts_frames_begin_anew() -> None:
    rates = [SPECS["pitch"].rate_hz, SPECS["mel"].rate_hz]  # 62.5 and 20 frames a second
    events = SPECS["events"].rate_hz
    assert piece_grid_s(rates, 30.0) == pytest.approx(0.4)
    assert piece_grid_s([*rates, events], 30.0) == pytest.approx(2.0)
    assert piece_grid_s([*rates, events], 1.5) == 0.001  # then to half a frame


@example(seconds=1.00001, limit=1.0, rate=2.0, grid=1.0)  # 10 microseconds are no piece
@example(seconds=2.0001, limit=1.0, rate=50.0, grid=0.08)
@given(
    seconds=st.floats(0.05, 4000.0),
    limit=st.floats(1.0, 600.0),
    rate=st.sampled_from([2.0, 12.5, 50.0, 62.5, 93.75, 100.0, 31.25]),
    grid=st.sampled_from([0.001, 0.08, 0.4, 1.0]),
)
def test_pieces_tile_time_and_frames(seconds: float, limit: float, rate: float, grid: float) -> None:
    frames = int(seconds * rate) + 1
    row = Row("u", "a", "0", "s", seconds, 0, frames, "ok", None)
    of, start, length = cut_into_pieces(np.array([seconds]), limit, grid)
    if seconds <= limit + END_SLACK_S:
        assert np.isnan(length).all()
        return
    assert not of.any()
    assert start[0] == 0
    assert (length > 0).all()
    assert (length <= limit + END_SLACK_S + 1e-6).all()
    np.testing.assert_allclose(start[1:], (start + length)[:-1], atol=1e-5)
    assert start[-1] + length[-1] == pytest.approx(seconds, abs=1e-5)
    spans = [piece_frames(row, rate, float(a), float(n)) for a, n in zip(start, length, strict=True)]
    assert spans[0][0] == 0
    assert spans[-1][1] == frames
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    for (first, _), a in zip(spans, start, strict=True):
        assert abs(first / rate - a) <= 0.5 / rate + 1e-9  # right to half a frame
