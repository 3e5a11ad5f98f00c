"""NeMo's tarred datasets: rows are joined with members as NeMo joins them.

The converter (scripts/speech_recognition/convert_to_tarred_audio_dataset.py) is no part of NeMo's wheel. `convert` does
what it does to names, offsets and files; what it wrote is read back by NeMo's own reader, which is the truth here.
"""

import io
import json
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError
from coat.manifests.sources.importing import ImportResult, import_manifest
from tests.manifests.conftest import RATE, encoded, sine
from tests.manifests.sources.importing import imported, jsonl, problems
from tests.manifests.sources.tars import add, wav, write_tar

Rows = list[dict[str, Any]]


def done(source: Path, out: Path, **options: Any) -> ImportResult:
    return import_manifest(str(source), str(out), **options)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """Nine rows of three recordings and six whole ones, as a manifest of NeMo's before it is converted."""
    (tmp_path / "src").mkdir()
    found = []
    for i in range(6):
        path = tmp_path / f"src/spk.{i % 2}_{i}.wav"
        path.write_bytes(encoded(sine(0.5 + 0.1 * i, 200.0 + 50 * i), "WAV", "PCM_16"))
        found.append({"audio_filepath": str(path), "offset": 0, "duration": round(0.5 + 0.1 * i, 3), "text": f"t{i}"})
    long = np.concatenate([sine(1.0, hz) for hz in (300.0, 500.0, 700.0)])
    (tmp_path / "src/long.flac").write_bytes(encoded(long, "FLAC", "PCM_16"))
    for i, offset in enumerate((0.0, 1.25, 2.5)):
        row = {"audio_filepath": str(tmp_path / "src/long.flac"), "offset": offset, "duration": 0.5, "text": f"l{i}"}
        found.append(row)
    return found


def convert(rows: Rows, folder: Path, shards: int, sliced: bool = False, codec: str = "") -> Path:
    """The manifest. `sliced` is --slice_with_offset, `codec` --force_codec."""
    (folder / "sharded_manifests").mkdir(parents=True)
    whole, each = [], len(rows) // shards
    for shard in range(shards):
        entries, count = [], dict[str, int]()
        with tarfile.open(folder / f"audio_{shard}.tar", "w", dereference=True) as tar:
            for entry in rows[shard * each : (shard + 1) * each]:
                base, _, ext = entry["audio_filepath"].rpartition(".")
                base = base.replace("/", "_").replace(".", "_")
                new = dict(entry)
                span = dict[str, Any]()
                if sliced:
                    at = "_".join(f"{float(entry[k])}".replace(".", "_") for k in ("offset", "duration"))
                    name = f"{base}_{at}.{codec or ext}"
                    span = {"start": int(entry["offset"] * RATE), "frames": int(entry["duration"] * RATE)}
                    new["source_audio_offset"] = new.pop("offset")
                elif f"{base}.{ext}" in count:
                    name = f"{base}-sub{count[f'{base}.{ext}']}.{ext}"
                else:
                    name = f"{base}.{codec or ext}"
                if sliced or f"{base}.{ext}" not in count:
                    data = Path(entry["audio_filepath"]).read_bytes()
                    if sliced or codec:
                        samples, rate = soundfile.read(entry["audio_filepath"], **span)
                        sink = io.BytesIO()
                        soundfile.write(sink, samples, rate, format=codec or ext)
                        data = sink.getvalue()
                    add(tar, name, data)
                count[f"{base}.{ext}"] = count.get(f"{base}.{ext}", 0) + 1
                entries.append(new | {"audio_filepath": name, "shard_id": shard})
        jsonl(folder / f"sharded_manifests/manifest_{shard}.json", *entries)
        whole += entries
    return jsonl(folder / "tarred_audio_manifest.json", *whole)


def read_by_nemo(manifest: Any, tars: Any) -> list[tuple[str, np.ndarray]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapters = pytest.importorskip("nemo.collections.common.data.lhotse.nemo_adapters", reason="NeMo is not here")
        found = adapters.LazyNeMoTarredIterator(manifest_path=manifest, tar_paths=tars)
        return sorted((c.supervisions[0].text, c.load_audio()[0]) for c in found)


def read_here(rows: list[Utterance]) -> list[tuple[str, np.ndarray]]:
    return sorted((u.text or "", decode(u.audio, u.offset, u.duration).samples_T) for u in rows)


def assert_same(ours: list[tuple[str, np.ndarray]], theirs: list[tuple[str, np.ndarray]]) -> None:
    assert [text for text, _ in ours] == [text for text, _ in theirs]
    for (_, a), (_, b) in zip(ours, theirs, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize(("sliced", "codec"), [(False, ""), (True, ""), (True, "flac")])
def test_rows_are_what_nemo_reads(sliced: bool, codec: str, rows: Rows, tmp_path: Path) -> None:
    manifest = convert(rows, tmp_path / "t", 3, sliced, codec)
    sharded = str(tmp_path / "t/sharded_manifests/manifest__OP_0..2_CL_.json")
    tars = str(tmp_path / "t/audio__OP_0..2_CL_.tar")
    theirs = read_by_nemo(sharded, tars)
    assert len(theirs) == 9
    found = imported(manifest, tmp_path / "m.jsonl")
    assert_same(read_here(found), theirs)
    assert_same(read_here(imported(Path(sharded), tmp_path / "m.jsonl")), theirs)
    assert_same(read_here(imported(manifest, tmp_path / "m.jsonl", tars=tars)), theirs)
    assert_same(read_here(imported(tmp_path / "t", tmp_path / "m.jsonl")), theirs)
    assert_same(read_here(imported(manifest, tmp_path / "c.jsonl", copy=True)), theirs)
    assert len(list((tmp_path / "c_audio").iterdir())) == (9 if sliced else 7)
    assert [u.extra["shard_id"] for u in found] == [n for n in range(3) for _ in range(3)]
    if not sliced:
        assert [u.id.rsplit("_", 1)[-1] for u in found[6:]] == ["long", "long@1.250", "long@2.500"]
        assert {u.audio for u in found[6:]} == {found[6].audio}


def test_what_has_no_other_side_is_named(rows: Rows, tmp_path: Path) -> None:
    manifest = convert(rows, tmp_path / "t", 3)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines.pop(1)
    first_member = lines[0]["audio_filepath"]
    lines[0]["audio_filepath"] = "none.wav"
    lines[3]["shard_id"] = 7
    lines[4]["shard_id"] = "x"
    lines[5]["_skipme"] = True
    jsonl(manifest, *lines)
    first, second, third = problems(manifest, tmp_path / "m.jsonl")
    assert first == f"1: none.wav: no such member in {tmp_path}/t/audio_0.tar"
    assert second == f"4: shard_id 7: no tar of that number among 3 ({tmp_path}/t/audio_0.tar, ...); --tars"
    assert third == "5: shard_id is 'x'; expected the number of a tar"
    result = done(manifest, tmp_path / "m.jsonl", skip_bad=True)
    assert result.rows == 4
    notes = "\n".join(result.notes)
    assert "members that no row names, left out (as NeMo does): 4" in notes
    assert f"({first_member!r} in {tmp_path}/t/audio_0.tar, " in notes
    assert "rows with _skipme, left out (as NeMo does): 1" in notes
    write_tar(tmp_path / "t/audio_9.tar", [("z.wav", wav())])
    notes = "\n".join(done(manifest, tmp_path / "m.jsonl", skip_bad=True).notes)
    assert f"tars that no row asks for, not opened: 1 ({tmp_path}/t/audio_9.tar, ...)" in notes


def test_tars_elsewhere_or_nowhere(rows: Rows, tmp_path: Path) -> None:
    manifest = convert(rows, tmp_path / "t", 3)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for n in range(3):
        (tmp_path / f"t/audio_{n}.tar").rename(moved / f"part-{n:05d}.tar")
    with pytest.raises(InputError, match=r"no audio_0.tar in .*--tars says where its tars are") as e:
        done(manifest, tmp_path / "m.jsonl")
    assert "\n" not in str(e.value)
    assert len(imported(manifest, tmp_path / "m.jsonl", tars=f"{moved}/part-{{00000..00002}}.tar")) == 9
    with pytest.raises(InputError, match="3 of 4 are there"):
        done(manifest, tmp_path / "m.jsonl", tars=f"{moved}/part-{{00000..00003}}.tar")
    (moved / "x").mkdir()
    (moved / "x/part-00001.tar").write_bytes(b"")
    with pytest.raises(InputError, match="both are shard 1"):
        done(manifest, tmp_path / "m.jsonl", tars=f"{moved}/**/*.tar")
    with pytest.raises(InputError, match="for a manifest of NeMo's"):
        done(moved / "part-00001.tar", tmp_path / "m.jsonl", tars=f"{moved}/*.tar")


def test_buckets(rows: Rows, tmp_path: Path) -> None:
    for bucket, part in enumerate((rows[:3], rows[3:]), start=1):
        convert(part, tmp_path / f"t/bucket{bucket}", 1)
    expected = [f"t{i}" for i in range(6)] + ["l0", "l1", "l2"]
    for source in ("t", "t/bucket_OP_1..2_CL_/tarred_audio_manifest.json", "t/bucket{1..2}"):
        assert [u.text for u in imported(tmp_path / source, tmp_path / "m.jsonl")] == expected
    pattern = str(tmp_path / "t/bucket_OP_1..2_CL_/tarred_audio_manifest.json")
    tars = str(tmp_path / "t/bucket_OP_1..2_CL_/audio__OP_0..0_CL_.tar")
    assert [u.text for u in imported(Path(pattern), tmp_path / "m.jsonl", tars=tars)] == expected


def test_rows_without_a_shard_and_names_without_a_suffix(tmp_path: Path) -> None:
    """As NeMo's classic datasets join: by base names without suffixes, in whatever tar."""
    for n in range(2):
        write_tar(tmp_path / f"t-{n}.tar", [(f"x{n}.flac", encoded(sine(0.1 + 0.1 * n), "FLAC"))])
    manifest = jsonl(tmp_path / "m.json", *({"audio_filepath": f"/data/x{n}.wav", "text": f"{n}"} for n in (1, 0)))
    found = imported(manifest, tmp_path / "m.jsonl", tars=str(tmp_path / "t-*.tar"))
    assert [(u.id, u.text, u.duration) for u in found] == [("x1", "1", 0.2), ("x0", "0", 0.1)]
    write_tar(tmp_path / "t-0.tar", [("x0.flac", wav()), ("x0.mp3", wav())])
    (line,) = problems(manifest, tmp_path / "n.jsonl", tars=str(tmp_path / "t-*.tar"))
    assert line.startswith("2: /data/x0.wav: several members of that name in 2 tars")


def test_tars_that_rows_come_back_to(rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of several tars in turns, of which one is in memory: the same, and each member counts once."""
    manifest = convert(rows, tmp_path / "t", 3)
    lines = manifest.read_text().splitlines()
    order = [0, 3, 6, 1, 4, 7, 2, 5]
    manifest.write_text("".join(lines[i] + "\n" for i in order))
    expected = done(manifest, tmp_path / "a.jsonl")
    monkeypatch.setattr("coat.manifests.sources.tars.nemo.KEPT_MEMBERS", 1)
    found = done(manifest, tmp_path / "b.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert found.notes == expected.notes
    assert len(list(Manifest.read(str(tmp_path / "b.jsonl")))) == 8


def test_a_damaged_tar_is_named_once(rows: Rows, tmp_path: Path) -> None:
    manifest = convert(rows, tmp_path / "t", 3)
    tar = tmp_path / "t/audio_1.tar"
    tar.write_bytes(tar.read_bytes()[:-20_000])
    lines = problems(manifest, tmp_path / "m.jsonl")
    assert len(lines) == 2
    assert "the tar ends" in lines[0]
    assert "no such member" in lines[1]
