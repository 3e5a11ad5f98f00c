"""Shards: equal bytes from equal inputs, readable by others, and honest about what is missing."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from webdataset.compat import WebDataset

from coat.manifests import InputError, Manifest, RunError, ShardIndex, decode
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shards.build import build_shards
from coat.pipeline.store.frames_reader import open_frames
from coat.pipeline.store.target_store import TargetStore
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run, write_bad_corpus


@pytest.fixture
def store(make_corpus: Corpus, tmp_path: Path) -> tuple[str, str]:
    """A manifest of 12 clips, and a store with the targets of two experts."""
    manifest = make_corpus()
    names = ["tests.pipeline.experts:Level", "tests.pipeline.experts:Scarce"]
    extract(str(manifest), str(tmp_path / "store"), names, resources=Resources(workers=0))
    return str(manifest), str(tmp_path / "store")


def samples_of(out: Path) -> list[dict]:
    """As a reader that is not ours gives them: raw bytes by extension."""
    urls = sorted(str(p) for p in out.glob("*.tar"))
    return list(WebDataset(urls, shardshuffle=False, empty_check=False))


def test_plain_webdataset_reads_audio_text_and_targets(store: tuple[str, str], tmp_path: Path) -> None:
    manifest, targets = store
    index = build_shards(manifest, targets, ["level", "scarce"], str(tmp_path / "out"), shard_size=200_000)
    assert len(index.shards) > 2
    samples = {s["__key__"]: s for s in samples_of(tmp_path / "out")}
    assert samples.keys() == {u.id for u in Manifest.read(manifest)}
    level = TargetStore(targets).target_set("level")
    for u in Manifest.read(manifest):
        s = samples[u.id]
        record = json.loads(s["json"])
        assert (record["id"], record["prompt"], record["response"]) == (u.id, u.prompt, u.response)
        audio, rate = soundfile.read(io.BytesIO(s["flac"]), dtype="float32")
        assert rate == 16000
        np.testing.assert_allclose(audio, decode(u.audio).samples_T, atol=2**-15)
        frames = np.load(io.BytesIO(s["level.npy"]), allow_pickle=False)
        np.testing.assert_array_equal(frames, level.read(u).frames)
        assert record["targets"] == {"level": len(frames), "scarce": len(frames)}


def test_the_index_tells_what_is_in_the_tars(store: tuple[str, str], tmp_path: Path) -> None:
    manifest, targets = store
    built = build_shards(manifest, targets, ["level"], str(tmp_path / "out"))
    index = ShardIndex.read(str(tmp_path / "out"))
    assert index == built
    assert index.samples == 12
    assert index.seconds == pytest.approx(Manifest.read(manifest).seconds)
    assert index.bytes == sum(p.stat().st_size for p in (tmp_path / "out").glob("*.tar"))
    frames = np.concatenate([TargetStore(targets).target_set("level").dask().compute()]).astype(np.float64)
    np.testing.assert_allclose(index.experts["level"].mean, frames.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(index.experts["level"].std, frames.std(0), rtol=1e-9)


def test_equal_inputs_give_equal_bytes_on_ray_too(store: tuple[str, str], tmp_path: Path) -> None:
    manifest, targets = store
    for name, workers in (("a", 0), ("b", 0), ("c", 2)):
        out = str(tmp_path / name)
        build_shards(manifest, targets, ["level", "scarce"], out, shard_size=200_000, workers=workers)
    trees = [
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
        for n in "abc"
    ]
    assert trees[0] == trees[1] == trees[2]


def test_order_is_shuffled_by_seed_or_kept(store: tuple[str, str], tmp_path: Path) -> None:
    manifest, targets = store
    orders = {}
    for name, seed in (("kept", None), ("zero", 0), ("one", 1)):
        build_shards(manifest, targets, ["level"], str(tmp_path / name), seed=seed)
        orders[name] = [s["__key__"] for s in samples_of(tmp_path / name)]
    assert orders["kept"] == [u.id for u in Manifest.read(manifest)]
    assert len({tuple(o) for o in orders.values()}) == 3


def test_missing_targets_fail_are_masked_or_skipped(tmp_path: Path) -> None:
    manifest, targets = str(write_bad_corpus(tmp_path / "corpus")), str(tmp_path / "store")
    run(Path(manifest), Path(targets))
    with pytest.raises(InputError, match=r"8 of 55 utterances lack a target: missing \(level missing: "):
        build_shards(manifest, targets, ["level"], str(tmp_path / "fail"))
    assert not (tmp_path / "fail").exists()

    masked = build_shards(manifest, targets, ["level"], str(tmp_path / "mask"), missing="mask")
    assert masked.samples == 47 + 1  # the clip that is too short for the expert has audio all the same
    assert masked.experts["level"].samples == 47
    skipped = build_shards(manifest, targets, ["level"], str(tmp_path / "skip"), missing="skip")
    assert (skipped.samples, skipped.skipped) == (47, 8)
    keys = {s["__key__"]: json.loads(s["json"])["id"] for s in samples_of(tmp_path / "skip")}
    assert {"../outside", "a.dot"} <= set(keys.values())
    assert not [k for k in keys if "." in k or "/" in k]


def test_audio_that_changed_since_extraction_is_noticed(store: tuple[str, str], tmp_path: Path) -> None:
    manifest, targets = store
    audio = Path(manifest).parent / "audio" / "c4.flac"
    samples, rate = soundfile.read(audio)
    soundfile.write(audio, samples[::-1], rate)
    with pytest.raises(InputError, match=r"c4 \(changed: .* its sound changed since level was extracted"):
        build_shards(manifest, targets, ["level"], str(tmp_path / "out"))
    assert not (tmp_path / "out" / "index.json").exists()
    index = build_shards(manifest, targets, ["level"], str(tmp_path / "out"), missing="mask")
    assert (index.samples, index.experts["level"].samples) == (12, 11)


def test_a_set_is_replaced_only_when_asked(store: tuple[str, str], tmp_path: Path) -> None:
    manifest, targets = store
    out = str(tmp_path / "out")
    build_shards(manifest, targets, ["level"], out, shard_size=100_000)
    many = len(list((tmp_path / "out").glob("*.tar")))
    with pytest.raises(InputError, match="holds a shard set already"):
        build_shards(manifest, targets, ["level"], out)
    build_shards(manifest, targets, ["level"], out, overwrite=True)
    assert len(list((tmp_path / "out").glob("*.tar"))) == 1 < many


@pytest.mark.parametrize(
    ("experts", "message"),
    [([], "at least one"), (["pitch"], "no targets of pitch; it has level, scarce"), (["level@00"], "level@00")],
)
def test_experts_that_are_not_there(experts: list[str], message: str, store: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        build_shards(*store, experts, str(tmp_path / "out"))


def test_damaged_targets_stop_the_build_with_the_remedy(store: tuple[str, str], tmp_path: Path) -> None:
    manifest, targets = store
    shard = next(Path(targets).glob("level/*/units/*/frames.zarr/c/0/0"))
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(data)
    open_frames.cache_clear()
    with pytest.raises(RunError, match="coat verify --repair"):
        build_shards(manifest, targets, ["level"], str(tmp_path / "out"))


def test_tars_do_not_go_among_other_files(store: tuple[str, str], tmp_path: Path) -> None:
    manifest, targets = store
    with pytest.raises(InputError, match="not of a shard set"):
        build_shards(manifest, targets, ["level"], targets, overwrite=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another place"):
        build_shards(manifest, targets, ["level"], str(tmp_path / "file"))
