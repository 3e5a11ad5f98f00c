"""Target specs and shard indexes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coat.manifests.errors import InputError
from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.info import ExpertInfo, ShardInfo
from coat.manifests.targets.spec import TargetSpec

SPEC = TargetSpec(
    expert="pitch",
    version=1,
    family="pitch",
    kind="pitch",
    dim=2,
    rate_hz=62.5,
    start_s=0.008,
    sample_rate=16000,
    min_samples=256,
    channels=("log2_f0", "voiced"),
    settings={"b": [1, 2], "a": 0.5},
)
INFO = ExpertInfo(spec=SPEC, samples=2, frames=100, mean=(0.0, 1.0), std=(1.0, 0.5))
INDEX = ShardIndex(
    path="shards",
    layout="joint",
    sample_rate=16000,
    shards=(
        ShardInfo(name="shard-000000.tar", samples=1, bytes=10, seconds=1.5, xxh3="aa"),
        ShardInfo(name="shard-000001.tar", samples=1, bytes=20, seconds=2.0, xxh3="bb"),
    ),
    experts={"pitch": INFO},
    skipped=1,
)


def test_the_fingerprint_does_not_change_between_versions_of_coat() -> None:
    assert SPEC.fingerprint == "638e2903dc15d396"  # targets on disk are found by it


def test_the_fingerprint_is_of_all_but_the_checkpoint() -> None:
    assert replace(SPEC, checkpoint="/elsewhere").fingerprint == SPEC.fingerprint
    assert replace(SPEC, settings={"a": 0.5, "b": [1, 2]}).fingerprint == SPEC.fingerprint
    changes: list[dict[str, Any]] = [
        {"expert": "x"},
        {"version": 2},
        {"family": "prosody"},
        {"kind": "scalars"},
        {"dim": 3, "channels": ()},
        {"rate_hz": 50.0},
        {"start_s": 0.0},
        {"sample_rate": 8000},
        {"min_samples": 1},
        {"weights": "w"},
        {"layer": "3"},
        {"dtype": "float32"},
        {"precision": "bfloat16"},
        {"channels": ("f0", "voiced")},
        {"settings": {"a": 0.6}},
    ]
    prints = {replace(SPEC, **c).fingerprint for c in changes}
    assert len(prints) == len(changes)
    assert SPEC.fingerprint not in prints


def test_whole_numbers_are_the_same_rate() -> None:
    assert replace(SPEC, rate_hz=50).fingerprint == replace(SPEC, rate_hz=50.0).fingerprint
    assert replace(SPEC, start_s=0).fingerprint == replace(SPEC, start_s=0.0).fingerprint


def test_a_spec_survives_json() -> None:
    back = TargetSpec.from_dict(json.loads(json.dumps(SPEC.to_dict())))
    assert back == SPEC
    assert back.fingerprint == SPEC.fingerprint


def test_frame_times_and_bytes() -> None:
    np.testing.assert_allclose(SPEC.times(3), [0.008, 0.024, 0.040])
    assert SPEC.bytes_per_second() == 62.5 * 2 * 2
    assert SPEC.with_dtype("float32").bytes_per_second() == 62.5 * 2 * 4


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "x"},
        {"kind": "x"},
        {"dtype": "int8"},
        {"dim": 0},
        {"dim": "2"},
        {"rate_hz": 0.0},
        {"rate_hz": float("nan")},
        {"rate_hz": float("inf")},
        {"start_s": float("nan")},
        {"sample_rate": 0},
        {"channels": ["one"]},
        {"channels": None},
        {"unknown": 1},
    ],
)
def test_specs_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"pitch|spec\.json"):
        TargetSpec.from_dict({**SPEC.to_dict(), **changes}, "spec.json")
    with pytest.raises(InputError, match=r"spec\.json: not a target spec"):
        TargetSpec.from_dict({k: v for k, v in SPEC.to_dict().items() if k != "dim"}, "spec.json")


def test_an_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    index = replace(INDEX, path=str(tmp_path))
    index.write(str(tmp_path))
    back = ShardIndex.read(str(tmp_path))
    assert back == index
    assert (back.samples, back.seconds, back.bytes) == (2, 3.5, 30)


@pytest.mark.parametrize(
    "name",
    ["../x.tar", "/etc/x.tar", "a/b.tar", "..\\x.tar", ".x.tar", "x.txt", "", "http://x/y.tar", 5, None, ["x.tar"]],
)
def test_an_index_may_only_name_tars_beside_it(tmp_path: Path, name: Any) -> None:
    data = INDEX.to_dict()
    data["shards"][0]["name"] = name
    (tmp_path / "index.json").write_text(json.dumps(data))
    with pytest.raises(InputError):
        ShardIndex.read(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [{"format": "x"}, {"shards": None}, {"shards": ["a"]}, {"shards": [{}]}, {"experts": []}, {"experts": {"p": {}}}],
)
def test_indexes_that_are_not_whole(tmp_path: Path, changes: dict[str, Any]) -> None:
    (tmp_path / "index.json").write_text(json.dumps({**INDEX.to_dict(), **changes}))
    with pytest.raises(InputError, match=r"index\.json"):
        ShardIndex.read(str(tmp_path))


@pytest.mark.parametrize("text", ["", "[]", "{", "5"])
def test_files_that_are_no_index(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InputError, match=r"index\.json"):
        ShardIndex.read(str(tmp_path))


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="build-shards"):
        ShardIndex.read(str(tmp_path))
