"""Reduced targets in shards: what a reader gets is what the reduction makes of what was extracted, in every layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coat.manifests import InputError, Manifest, ShardIndex
from coat.manifests.targets.coding import decode_frames, encode_frames
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.reductions.options import ReductionOptions
from coat.pipeline.shard_checks.verification import verify_shards
from coat.pipeline.shards.build import build_shards
from coat.pipeline.shards.recipe import Layout
from coat.pipeline.shards.sidecars import add_expert
from coat.pipeline.store.target_store import TargetStore
from coat.trainer import iterate_shards
from tests.integration.helpers import coat
from tests.pipeline.conftest import write_corpus
from tests.pipeline.shard_checks.test_verify import flip
from tests.pipeline.shards.test_builds import tree_of

SMALL = {"rate": "states=20", "pca": "6", "dtype": "int8", "topk": None}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """12 clips, heard by states (hidden states to a reduction), vad (probabilities) and pitch. Tests only read it."""
    folder = tmp_path_factory.mktemp("extracted")
    manifest, experts = write_corpus(folder / "corpus"), ["tests.pipeline.experts:States", "vad", "pitch"]
    extract(str(manifest), str(folder / "store"), experts, resources=Resources(workers=0))
    return str(manifest), str(folder / "store")


def build(store: tuple[str, str], out: Path, reduction_options: dict[str, Any] = SMALL, **more: Any) -> ShardIndex:
    return build_shards(
        *store,
        ["states", "vad", "pitch"],
        str(out),
        200_000,
        reduction_options=ReductionOptions.parse(**reduction_options),
        **more,
    )


@pytest.mark.parametrize("layout", ["joint", "sidecar"])
def test_readers_get_what_the_reduction_makes_of_the_extracted(
    layout: Layout, store: tuple[str, str], tmp_path: Path
) -> None:
    plain = build_shards(*store, ["states", "vad", "pitch"], str(tmp_path / "plain"), layout=layout)
    index = build(store, tmp_path / "out", layout=layout)
    states, vad, pitch = (index.experts[n] for n in ("states", "vad", "pitch"))
    assert states.reduction is not None
    assert (states.spec.rate_hz, states.spec.dtype, states.spec.dim) == (20, "float32", 32)
    assert states.extracted == plain.experts["states"].spec.fingerprint != states.spec.fingerprint
    assert (states.reduction.basis.components if states.reduction.basis else 0, states.reduction.dtype) == (6, "int8")
    assert vad.reduction is not None
    assert (vad.reduction.scaling, vad.reduction.rate_hz) == ("frame", None)
    assert pitch.reduction is None  # int8 was asked of all that it suits
    sets = {name: TargetStore(store[1]).target_set(name) for name in index.experts}
    utterances = {u.id: u for u in Manifest.read(store[0])}
    samples = list(iterate_shards(str(tmp_path / "out")))
    assert {s.id for s in samples} == utterances.keys()
    masked = 0
    for s in samples:
        for name, found in s.targets.items():
            extracted, how = sets[name].read(utterances[s.id]).frames, index.experts[name].reduction
            truth = decode_frames(encode_frames(extracted, how), how) if how else extracted
            known = np.asarray(np.isfinite(found).all(axis=1))
            np.testing.assert_array_equal(found[known], truth[known])
            assert known[:-1].all()
            masked += not known[-1]
            if how and not known[-1]:
                assert how.rate.coverage(len(extracted))[-1] < 0.5
    assert 0 < masked < len(samples)
    assert index.bytes < plain.bytes


def test_bytes_are_the_same_by_workers_and_mended_to_the_same(store: tuple[str, str], tmp_path: Path) -> None:
    index = build(store, tmp_path / "out", layout="sidecar")
    build(store, tmp_path / "two", layout="sidecar", workers=2)
    whole = tree_of(tmp_path / "out")
    assert tree_of(tmp_path / "two") == whole
    assert verify_shards(index.path).damages == ()
    flip(tmp_path / "out/sidecars/states/shard-000000.tar", 700)
    assert verify_shards(index.path, repair=True).repaired == 1
    assert tree_of(tmp_path / "out") == whole
    joint = build(store, tmp_path / "joint")
    flip(tmp_path / "joint/shard-000001.tar", 700)
    assert [d.file for d in verify_shards(joint.path).damages] == ["shard-000001.tar"]
    assert verify_shards(joint.path, repair=True).repaired == 1
    assert verify_shards(joint.path).damages == ()


def test_an_expert_is_added_reduced_as_if_built_with_the_others(store: tuple[str, str], tmp_path: Path) -> None:
    build_shards(*store, ["vad"], str(tmp_path / "out"), layout="sidecar")
    add_expert(str(tmp_path / "out"), store[1], "states", reduction_options=ReductionOptions.parse(rate="20", pca="6"))
    build_shards(
        *store,
        ["vad", "states"],
        str(tmp_path / "both"),
        layout="sidecar",
        reduction_options=ReductionOptions.parse(rate="states=20", pca="6"),
    )
    added, both = tree_of(tmp_path / "out"), tree_of(tmp_path / "both")
    del added["recipe.json"], both["recipe.json"]
    assert added == both


def test_pieces_of_long_audio_hold_the_frames_of_the_whole(store: tuple[str, str], tmp_path: Path) -> None:
    reduction_options = ReductionOptions.parse(rate="states=20", dtype="states=float32")
    build_shards(*store, ["states"], str(tmp_path / "whole"), reduction_options=reduction_options, seed=None)
    build_shards(
        *store, ["states"], str(tmp_path / "cut"), reduction_options=reduction_options, seed=None, max_seconds=1.3
    )
    pieces: dict[str, list[np.ndarray]] = {}
    for s in iterate_shards(str(tmp_path / "cut")):
        pieces.setdefault(s.id.partition("@")[0], []).append(s.targets["states"])
    assert max(map(len, pieces.values())) > 1
    for s in iterate_shards(str(tmp_path / "whole")):
        np.testing.assert_allclose(np.concatenate(pieces[s.id]), s.targets["states"], rtol=1e-6, atol=1e-6)


def test_the_command_tells_what_is_left(store: tuple[str, str], tmp_path: Path) -> None:
    command = ["build-shards", "--manifest", store[0], "--store", store[1], "--experts", "states,vad,pitch"]
    shown = coat(*command, "--out", str(tmp_path / "out"), "--pca", "states=8", "--dtype", "states=int8")
    assert "8 of 32 components, int8 by frame" in " ".join(shown.stdout.split())
    fidelity = json.loads((tmp_path / "out/index.json").read_text())["experts"]["states"]["fidelity"]
    assert f"{fidelity['original']['cosine']:.4f}" in shown.stdout
    assert 0.9 < fidelity["original"]["cosine"] < 1
    assert fidelity["bytes_per_hour"] == 3600 * 100 * (8 + 4)


@pytest.mark.parametrize(
    ("reduction_options", "message"),
    [
        ({"rate": "fast"}, "--rate fast: expected frames a second"),
        ({"pca": "states=0"}, "--pca states=0: expected components"),
        ({"pca": "states=8,states=9"}, "--pca states=8,states=9"),
        ({"dtype": "int2"}, "--dtype int2: expected one of float32, float16, int8, int4"),
        ({"rate": "whisper=5"}, "--rate whisper: not among the experts of these shards"),
        ({"rate": "states=500"}, "states: rate 500.0 Hz: expected one up to 100 Hz"),
        ({"pca": "states=300"}, "--pca states=300: expected 1 to 32 components"),
        ({"pca": "vad=1"}, "vad: principal components are of representations"),
        ({"topk": "states=4"}, "states: topk 4: it is for events' 32 probabilities"),
        ({"whiten": "states"}, "--whiten states: it is of principal components"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    reduction_options: dict[str, Any], message: str, store: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as e:
        build(store, tmp_path / "out", reduction_options)
    assert message in str(e.value)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()
