"""Sidecars: an expert more is a set of tars more, nothing else changes, and what does not belong is never joined."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from coat.manifests import InputError, Manifest, ShardIndex
from coat.manifests.shards import samples_table
from coat.manifests.shards.reading import read_samples
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shards.build import build_shards
from coat.pipeline.shards.sidecars import add_expert
from coat.pipeline.store.target_store import TargetStore
from coat.trainer import iterate_shards
from coat.trainer.data.stream import ShardStream
from tests.pipeline.conftest import Corpus
from tests.pipeline.shards.test_builds import tree_of

NAMES = ["tests.pipeline.experts:Level", "tests.pipeline.experts:Scarce", "tests.pipeline.experts:Picky"]


@pytest.fixture
def store(make_corpus: Corpus, tmp_path: Path) -> tuple[str, str]:
    """12 clips; picky has no target of those that are longer than 3 s."""
    manifest = make_corpus()
    extract(str(manifest), str(tmp_path / "store"), NAMES, resources=Resources(workers=0))
    return str(manifest), str(tmp_path / "store")


def build(store: tuple[str, str], out: Path, experts: list[str], seed: int = 0) -> ShardIndex:
    return build_shards(*store, experts, str(out), 200_000, seed=seed, layout="sidecar")


def test_an_expert_that_is_added_touches_no_file_and_ends_as_if_built_with_the_others(
    store: tuple[str, str], tmp_path: Path
) -> None:
    build(store, tmp_path / "out", ["level"])
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    index = add_expert(str(tmp_path / "out"), store[1], "scarce")
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before
    assert set(index.experts) == {"level", "scarce"}
    build(store, tmp_path / "both", ["level", "scarce"])
    added, both = tree_of(tmp_path / "out"), tree_of(tmp_path / "both")
    del added["recipe.json"], both["recipe.json"]  # they say which experts the command named
    assert added == both


def test_a_joint_set_can_be_extended_too_and_reads_as_one(store: tuple[str, str], tmp_path: Path) -> None:
    build_shards(*store, ["level"], str(tmp_path / "out"), 200_000)
    add_expert(str(tmp_path / "out"), store[1], "scarce")
    sets = {name: TargetStore(store[1]).target_set(name) for name in ("level", "scarce")}
    utterances = {u.id: u for u in Manifest.read(store[0])}
    samples = list(iterate_shards(str(tmp_path / "out")))
    assert {s.id for s in samples} == utterances.keys()
    for s in samples:
        assert s.targets.keys() == sets.keys()
        for name, frames in s.targets.items():
            np.testing.assert_array_equal(frames, sets[name].read(utterances[s.id]).frames)


def test_samples_without_a_target_fail_or_are_masked(store: tuple[str, str], tmp_path: Path) -> None:
    build(store, tmp_path / "out", ["level"])
    with pytest.raises(InputError, match="of 12 samples lack a target of picky"):
        add_expert(str(tmp_path / "out"), store[1], "picky")
    assert not (tmp_path / "out/sidecars/picky").exists()
    with pytest.raises(InputError, match="samples of a set are fixed"):
        add_expert(str(tmp_path / "out"), store[1], "picky", missing="skip")
    index = add_expert(str(tmp_path / "out"), store[1], "picky", missing="mask")
    have = {s.id for s in iterate_shards(str(tmp_path / "out")) if "picky" in s.targets}
    longer = {u.id for u in Manifest.read(store[0]) if (u.duration or 0) > 3}
    assert longer
    assert have == {u.id for u in Manifest.read(store[0])} - longer
    assert index.experts["picky"].samples == len(have)
    with pytest.raises(InputError, match="has targets of picky already"):
        add_expert(str(tmp_path / "out"), store[1], "picky")


def test_a_sidecar_that_was_cut_off_is_finished_without_redoing_its_tars(
    store: tuple[str, str], tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(info: object) -> None:
        raise StopError

    build(store, tmp_path / "whole", ["level", "scarce"])
    index = build(store, tmp_path / "out", ["level"])
    with pytest.raises(StopError):
        add_expert(str(tmp_path / "out"), store[1], "scarce", on_shard=stop)
    assert set(ShardIndex.read(str(tmp_path / "out")).experts) == {"level"}
    folder = tmp_path / "out/sidecars/scarce"
    torn, *kept = sorted(folder.glob("*.tar"))
    assert len(kept) == len(index.shards) - 1
    (folder / "building" / f"{torn.name}.json").unlink()  # as of a kill between a tar and its record
    before = [tar.stat().st_mtime_ns for tar in kept]
    fresh: list[object] = []
    add_expert(str(tmp_path / "out"), store[1], "scarce", on_shard=fresh.append)
    assert len(fresh) == 1
    assert [tar.stat().st_mtime_ns for tar in kept] == before
    assert tree_of(tmp_path / "out/sidecars") == tree_of(tmp_path / "whole/sidecars")


def test_what_does_not_belong_together_is_never_joined(store: tuple[str, str], tmp_path: Path) -> None:
    build(store, tmp_path / "a", ["level", "scarce"])
    build(store, tmp_path / "b", ["level"], seed=1)
    shutil.copytree(tmp_path / "a/sidecars/scarce", tmp_path / "b/sidecars/scarce")
    with pytest.raises(InputError, match=r"scarce: made for other shards .* add-expert` scarce again"):
        ShardIndex.read(str(tmp_path / "b"))

    tars = sorted((tmp_path / "a/sidecars/scarce").glob("*.tar"))  # of one set, but one for another
    data = [t.read_bytes() for t in tars]
    index = ShardIndex.read(str(tmp_path / "a"))
    tars[0].write_bytes(data[1])
    with pytest.raises(InputError, match=r"scarce/shard-000000.tar: .*(not in this order|the index says)"):
        list(read_samples(index, index.shards[0]))
    tars[0].unlink()
    with pytest.raises(InputError, match="no such shard, but the index names it"):
        list(read_samples(index, index.shards[0]))
    assert len(list(read_samples(index, index.shards[0], experts=["level"]))) == index.shards[0].samples


def test_training_stops_at_a_sidecar_of_other_samples(store: tuple[str, str], tmp_path: Path) -> None:
    """Samples that a broken tar has lost may be left out; targets of other samples may not be taken for theirs."""
    build(store, tmp_path / "out", ["level", "scarce"])
    sides = sorted((tmp_path / "out/sidecars/scarce").glob("*.tar"))
    one, other = sides[0].read_bytes(), sides[1].read_bytes()
    sides[0].write_bytes(other)
    sides[1].write_bytes(one)
    stream = ShardStream(ShardIndex.read(str(tmp_path / "out")), seed=0, shuffle=4)
    with pytest.raises(InputError, match=r"(not in this order|samples, but the index says)"):
        list(islice(stream, 12))


def test_audio_that_changed_since_the_shards_is_noticed_without_decoding(
    store: tuple[str, str], make_corpus: Corpus, tmp_path: Path
) -> None:
    build(store, tmp_path / "out", ["level"])
    other = make_corpus(folder="other", seed=1)
    extract(str(other), str(tmp_path / "store2"), ["tests.pipeline.experts:Scarce"], resources=Resources(workers=0))
    with pytest.raises(InputError, match=r"12 of 12 samples lack a target of scarce: .*heard other audio"):
        add_expert(str(tmp_path / "out"), str(tmp_path / "store2"), "scarce")


def test_a_set_that_is_built_anew_does_not_keep_the_sidecars_of_the_old_one(
    store: tuple[str, str], tmp_path: Path
) -> None:
    build(store, tmp_path / "out", ["level", "scarce"])
    (tmp_path / "out/index.json").unlink()
    build(store, tmp_path / "out", ["level"], seed=1)
    assert set(ShardIndex.read(str(tmp_path / "out")).experts) == {"level"}
    build_shards(*store, ["level"], str(tmp_path / "out"), overwrite=True)
    assert not (tmp_path / "out/sidecars").exists()


def test_samples_read_some_at_a_time_give_the_same_sidecar(
    store: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for out in ("plain", "out"):
        build(store, tmp_path / out, ["level"])
    add_expert(str(tmp_path / "plain"), store[1], "picky", missing="mask")
    monkeypatch.setattr(samples_table, "READ_ROWS", 3)
    index = add_expert(str(tmp_path / "out"), store[1], "picky", missing="mask")
    assert len(index.shards) > 2
    assert tree_of(tmp_path / "out") == tree_of(tmp_path / "plain")
    with index.open_samples() as samples:
        parts = list(samples.tables(["id", "shard"]))
        assert len(samples) == 12
    assert max(map(len, parts)) == 3
    assert pa.concat_tables(parts).combine_chunks() == index.table().select(["id", "shard"]).combine_chunks()


def test_samples_that_are_damaged_are_not_read(store: tuple[str, str], tmp_path: Path) -> None:
    build(store, tmp_path / "out", ["level"])
    file = tmp_path / "out" / samples_table.SAMPLES_NAME
    data = file.read_bytes()
    file.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])
    with pytest.raises(InputError, match="does not have the digest of"):
        add_expert(str(tmp_path / "out"), store[1], "scarce")
    file.unlink()
    with pytest.raises(InputError, match="no such file"):
        add_expert(str(tmp_path / "out"), store[1], "scarce")
