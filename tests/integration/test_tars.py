"""Corpora in tars are used as they lie: every command does with them what it does with the plain files."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coat.extractors.expert import Options
from coat.manifests.addresses import container
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import ManifestError
from coat.manifests.sources.importing import import_manifest
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.plan.unit_cuts import cut_units
from coat.pipeline.shards.build import build_shards
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.trainer import iterate_shards
from coat.trainer.generation.generate import read_clips
from tests.integration.helpers import coat, folder
from tests.manifests.sources.tars import as_json, write_tar
from tests.pipeline.conftest import Corpus, make_corpus

__all__ = ["make_corpus"]

LEVEL = ["tests.pipeline.experts:Level"]


def extracted(manifest: Path, store: Path) -> TargetSet:
    extract(str(manifest), str(store), LEVEL, options=Options(dtype="float32"), resources=Resources(workers=0))
    return TargetStore(str(store)).target_set("level")


def assert_same_frames(ours: TargetSet, our_manifest: Path, theirs: TargetSet, their_manifest: Path) -> None:
    """By id; the sound that was heard is the same, too."""
    plain = {u.id: u for u in Manifest.read(str(their_manifest))}
    rows = list(Manifest.read(str(our_manifest)))
    assert {u.id for u in rows} == set(plain)
    for u in rows:
        np.testing.assert_array_equal(ours.read(u).frames, theirs.read(plain[u.id]).frames)
        mine, other = ours.rows[u.digest], theirs.rows[plain[u.id].digest]
        assert (mine.status, mine.source) == (other.status, other.source)


@pytest.fixture
def plain(make_corpus: Corpus) -> Path:
    """24 clips of noise, FLAC of 16 bit."""
    return make_corpus(24)


@pytest.fixture
def tarred(plain: Path, tmp_path: Path) -> Path:
    """The manifest of the same clips in three tars, as WebDataset has them."""
    rows = list(Manifest.read(str(plain)))
    for n in range(3):
        members = []
        for u in rows[n::3]:
            members.append((f"{u.id}.flac", Path(u.audio).read_bytes()))
            members.append((f"{u.id}.json", as_json(duration=u.duration, prompt=u.prompt, response=u.response)))
        write_tar(tmp_path / f"tars/t-{n:02d}.tar", members)
    coat("manifest", "import", tmp_path / "tars/t-{00..02}.tar", tmp_path / "tars/m.jsonl")
    return tmp_path / "tars/m.jsonl"


@pytest.mark.slow
def test_every_command_takes_a_manifest_of_tars(plain: Path, tarred: Path, tmp_path: Path) -> None:
    store, theirs = tmp_path / "store", extracted(plain, tmp_path / "plain-store")
    ours = extracted(tarred, store)
    assert_same_frames(ours, tarred, theirs, plain)
    coat("verify", store)
    assert "no problems" in coat("manifest", "validate", tarred, "--deep").stdout
    stats = [json.loads(coat("manifest", "stats", m, "--json").stdout) for m in (plain, tarred)]
    assert stats[0]["seconds"] == stats[1]["seconds"]
    coat("manifest", "split", tarred, "train=0.5", "valid=0.5")
    parts = [list(Manifest.read(str(tarred.with_name(f"m.{n}.jsonl")))) for n in ("train", "valid")]
    assert sorted(u.id for part in parts for u in part) == sorted(u.id for u in Manifest.read(str(plain)))
    assert all(ours.read(u).frames.size for part in parts for u in part)  # they keep their targets
    where = ["--manifest", tarred, "--store", store]
    coat("inspect", *where, "--id", "c3", "--out", tmp_path / "c3.html")
    assert (tmp_path / "c3.html").stat().st_size > 10_000
    u = Manifest.read(str(tarred))[0]
    ((clip, _),) = read_clips(u.audio)  # as `coat generate --audio` does
    assert clip.digest == decode(u.audio).digest

    for audio in ("flac", "original"):
        found = []
        for name, manifest, targets in (("plain", plain, tmp_path / "plain-store"), ("tarred", tarred, store)):
            out = tmp_path / f"{name}-{audio}"
            coat("build-shards", "--manifest", manifest, "--store", targets, "--experts", "level", "--out", out,
                 "--audio", audio)  # fmt: skip
            coat("verify", out)
            found.append({s.id: s for s in iterate_shards(str(out))})
        assert found[0].keys() == found[1].keys()
        for identity, sample in found[0].items():
            other = found[1][identity]
            assert (sample.prompt, sample.response) == (other.prompt, other.response)
            np.testing.assert_array_equal(sample.samples_S, other.samples_S)
            np.testing.assert_array_equal(sample.targets["level"], other.targets["level"])

    assert "no rows sound different or are gone" in coat("verify", store, "--sources", tarred).stdout
    write_tar(Path(container(u.audio)), [(f"{u.id}.flac", Path(Manifest.read(str(plain))[1].audio).read_bytes())])
    said = coat("verify", store, "--sources", tarred, status=1).stdout
    assert f"{u.audio}: cannot be heard any more (unreadable: " in said
    assert "the tar was written anew" in said
    assert "8 rows sound different or are gone" in said


def test_rows_of_one_tar_are_in_the_same_units(tmp_path: Path) -> None:
    """Whatever their order in the manifest is: a tar is in two units only where a boundary goes through it."""
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"{tar}-{i}", "audio_filepath": f"{tar}.tar#offset={512 * (i + 1)}&size=9&member={i}.wav", "duration": d}
        for tar in range(20)
        for i, d in enumerate(rng.uniform(1, 20, 50).round(3).tolist())
    ]
    rng.shuffle(rows)
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = Manifest.read(str(tmp_path / "m.jsonl"))
    seconds = np.array([row["duration"] for row in rows])
    order, starts = cut_units(manifest, manifest.digests, seconds, np.ones(len(rows), bool), 1000.0)
    units = np.split(order, starts[1:])
    pairs = {(n, rows[i]["id"].split("-")[0]) for n, unit in enumerate(units) for i in unit}
    assert len(units) >= 10
    assert len(pairs) <= 20 + len(units) - 1


def texts_of(manifest: Path) -> dict[str, dict[str, Any]]:
    """All that rows say but where their audio lies."""
    place = ("audio_filepath", "offset", "duration")
    return {u.id: {k: v for k, v in u.to_row().items() if k not in place} for u in Manifest.read(str(manifest))}


@pytest.mark.slow
def test_shards_are_a_corpus(plain: Path, tmp_path: Path) -> None:
    """New experts hear what lies in the shards, and give the frames that the originals give."""
    rows = [json.loads(line) for line in plain.read_text().splitlines()]
    rows[0] |= {"choices": ["noise", "music"], "turns": [["Hm?", "Yes."]], "speaker": "s1", "text": "none"}
    rows.append(rows[1] | {"id": "a span/of it", "offset": 0.1, "duration": 0.1})
    rows.append({"id": "alone", "audio_filepath": None, "prompt": "Two and two?", "response": "Four."})
    plain.write_text("".join(json.dumps(row) + "\n" for row in rows))
    theirs = extracted(plain, tmp_path / "store")
    build_shards(str(plain), str(tmp_path / "store"), ["level"], str(tmp_path / "shards"), shard_size=500_000)
    result = import_manifest(str(tmp_path / "shards"), str(tmp_path / "m.jsonl"))
    assert (result.format, result.rows) == ("shards", 26)
    assert texts_of(tmp_path / "m.jsonl") == texts_of(plain)
    ours = extracted(tmp_path / "m.jsonl", tmp_path / "new")
    heard = [u for u in Manifest.read(str(tmp_path / "m.jsonl")) if not u.text_only]
    assert len(heard) == 25
    assert all(container(u.audio).endswith(".tar") for u in heard)
    by_id = {u.id: u for u in Manifest.read(str(plain))}
    for u in heard:
        np.testing.assert_array_equal(ours.read(u).frames, theirs.read(by_id[u.id]).frames)
        assert decode(u.audio).digest == decode(by_id[u.id].audio, by_id[u.id].offset, by_id[u.id].duration).digest
    (tmp_path / "shards/shard-000000.tar").write_bytes((tmp_path / "shards/shard-000000.tar").read_bytes()[:-3000])
    with pytest.raises(ManifestError) as e:
        import_manifest(str(tmp_path / "shards"), str(tmp_path / "n.jsonl"))
    assert any("but the index says" in p.message for p in e.value.problems)


@pytest.mark.slow
def test_pieces_of_shards_and_shards_without_audio(plain: Path, tmp_path: Path) -> None:
    extracted(plain, tmp_path / "store")
    for audio in ("flac", "none"):
        out = tmp_path / audio
        build_shards(str(plain), str(tmp_path / "store"), ["level"], str(out), audio=audio, max_seconds=1.0)
        import_manifest(str(out), str(tmp_path / f"{audio}.jsonl"))
        found = list(Manifest.read(str(tmp_path / f"{audio}.jsonl")))
        originals = {u.id: u for u in Manifest.read(str(plain))}
        assert len(found) == len({u.id for u in found}) > len(originals)
        for u in found:
            name, at, start = u.id.partition("@")
            whole = originals[name]
            assert bool(at) == ("utterance" in u.extra)
            if at:
                assert (u.extra["utterance"], u.extra["utterance_start"]) == (
                    name,
                    pytest.approx(float(start), abs=1e-3),
                )
                assert u.text is u.response is None
            if audio == "none":
                assert (u.audio, u.offset) == (whole.audio, pytest.approx(float(start or 0), abs=1e-3))
            clip, first = decode(u.audio, u.offset, u.duration), round(16000 * u.extra.get("utterance_start", 0.0))
            samples = decode(whole.audio).samples_T[first : first + len(clip.samples_T)]
            np.testing.assert_array_equal(clip.samples_T, samples)


@pytest.mark.real
def test_recordings_in_tars(tmp_path: Path) -> None:
    """FSDD: 3,000 recordings of digits in four tars, beside the folder of COAT_REAL_DIR."""
    tars = folder("COAT_REAL_DIR").resolve().parent / "data/fsdd"
    if not tars.is_dir():
        pytest.skip(f"{tars} is not there")
    coat("manifest", "import", tars / "fsdd-{0000..0003}.tar", tmp_path / "m.jsonl")
    rows = list(Manifest.read(str(tmp_path / "m.jsonl")))
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert len(rows) == len({u.id for u in rows}) == 3000
    assert all(u.text == names[u.extra["digit"]] and u.id.startswith(f"{u.extra['digit']}_") for u in rows)
    store = tmp_path / "store"
    done = coat("extract", "--expert", "pitch", "--manifest", tmp_path / "m.jsonl", "--store", store, "--json")
    (summary,) = json.loads(done.stdout)
    assert (summary["ok"], summary["failed"], summary["skipped"]) == (3000, 0, 0)
    with tarfile.open(tars / "fsdd-0002.tar") as tar:
        tar.extractall(tmp_path / "files", filter="data")
    sample = [u for u in rows if "fsdd-0002.tar" in u.audio][::25]
    for u in sample:
        assert (tmp_path / f"files/{u.id}.wav").exists()
    lines = [json.dumps(u.to_row() | {"audio_filepath": f"files/{u.id}.wav"}) + "\n" for u in sample]
    (tmp_path / "files.jsonl").write_text("".join(lines))
    files = tmp_path / "files-store"
    coat("extract", "--expert", "pitch", "--manifest", tmp_path / "files.jsonl", "--store", files)
    in_place, unpacked = (TargetStore(str(s)).target_set("pitch") for s in (store, files))
    for u, plain in zip(sample, Manifest.read(str(tmp_path / "files.jsonl")), strict=True):
        a, b = in_place.read(u), unpacked.read(plain)
        assert in_place.rows[u.digest].source == unpacked.rows[plain.digest].source
        assert a.frames.shape == b.frames.shape
        np.testing.assert_allclose(a.frames, b.frames, rtol=2e-3, atol=2e-3)  # other batches
