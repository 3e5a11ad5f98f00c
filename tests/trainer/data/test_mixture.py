"""Several sets: shares of the samples, epochs of each, exact resume, limits, counts, and targets that must agree."""

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.manifests import InputError, ShardIndex
from coat.trainer import TrainConfig
from coat.trainer.config.sections import DataSetConfig, ThinkingConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.loader import Loader, loader_of
from coat.trainer.export.model_card import public_config
from coat.trainer.model.experts import chosen_experts
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from tests.trainer.data.bare import bare_loader, bare_shards, batches, data_of
from tests.trainer.helpers import SPECS, toy_sample, write_shards

SIZES = {"a": [5, 3, 6], "b": [2, 3], "c": [1]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    for name, sizes in SIZES.items():
        bare_shards(root / name, sizes, prefix=name)
    return {name: root / name for name in SIZES}


def drawn(data: DataSets, number: int) -> list[str]:
    """Sets of the first samples."""
    return [raw.place.data_set for raw in islice(data.stream(), number) if raw.place]


def test_each_set_has_its_share_to_one_sample(folders: dict[str, Path]) -> None:
    weights: dict[str, Any] = {"a": {"weight": 5.0}, "b": {"weight": 2.5}, "c": {"weight": 0.5}}
    data = data_of(folders, **weights)
    assert data.shares == [0.625, 0.3125, 0.0625]
    sets = drawn(data, 4096)
    for block in range(4):
        counts = Counter(sets[1024 * block : 1024 * (block + 1)])
        assert counts == {"a": 640, "b": 320, "c": 64}
    runs = [len(run) for run in "".join(name if name == "c" else " " for name in sets).split()]
    assert max(runs) <= 4  # they are mixed, not in turn
    assert "c: 6.2% of the samples drawn, from 1 samples" in data.describe()[2]


@pytest.mark.parametrize(("temperature", "ratio"), [(1.0, 14 / 5), (2.0, (14 / 5) ** 0.5), (1e9, 1.0)])
def test_temperature_evens_sizes_out(folders: dict[str, Path], temperature: float, ratio: float) -> None:
    shares = data_of(folders, temperature=temperature).shares
    assert shares[0] / shares[1] == pytest.approx(ratio, rel=1e-6)
    assert sum(shares) == pytest.approx(1)


@settings(max_examples=15, deadline=None)
@given(
    budget=st.none() | st.integers(7, 20), stop=st.integers(0, 15), rank=st.integers(0, 1),
    workers=st.tuples(*[st.integers(0, 3)] * 3), ahead=st.tuples(*[st.integers(1, 5)] * 2),
)  # fmt: skip
def test_killed_at_any_batch_it_goes_on(
    folders: dict[str, Path], budget: int | None, stop: int, rank: int, workers: tuple[int, ...], ahead: tuple[int, ...]
) -> None:
    """With other threads and another number of shards that are read ahead, too."""
    two = {name: folders[name] for name in ("a", "b")}  # c has a shard for one rank alone

    def made(workers: int, ahead: int) -> Loader:
        settings = {"batch_tokens": budget, "workers": workers, "shards_ahead": ahead}
        return bare_loader(data_of(two, **settings), rank, 2)

    whole = list(islice(batches(made(workers[0], ahead[0])), 30))
    killed = made(workers[1], ahead[1])
    assert list(islice(batches(killed), stop)) == whole[:stop]
    state = json.loads(json.dumps(killed.state_dict()))
    resumed = made(workers[2], ahead[0])
    resumed.load_state_dict(state)
    assert list(islice(batches(resumed), 15)) == whole[stop : stop + 15]
    for name in ("a", "b"):  # counts are of the batches that were given
        given = sum(i[0] == name for ids, _ in whole[: stop + 15] for i in ids)
        assert resumed.given[f"{name}/samples"] == given
        seconds = sum((1 + int(i[1:]) % 7) / 16000 for ids, _ in whole[: stop + 15] for i in ids if i[0] == name)
        assert resumed.given[f"{name}/audio_s"] == pytest.approx(seconds)


def test_every_set_has_epochs_of_its_own(folders: dict[str, Path]) -> None:
    seen: dict[str, list[str]] = {name: [] for name in SIZES}
    for raw in islice(data_of(folders, temperature=2.0).stream(), 200):
        assert raw.place is not None
        seen[raw.place.data_set].append(raw.key)
    for name, keys in seen.items():
        size = sum(SIZES[name])
        for epoch in range(len(keys) // size):
            assert len(set(keys[epoch * size : (epoch + 1) * size])) == size, name


def test_weights_may_change_and_each_set_goes_on_where_it_was(folders: dict[str, Path]) -> None:
    equal: dict[str, Any] = {"a": {"weight": 1}, "b": {"weight": 1}, "c": {"weight": 1}}
    most_a: dict[str, Any] = {"a": {"weight": 98}, "b": {"weight": 1}, "c": {"weight": 1}}
    first = bare_loader(data_of(folders, **equal))
    read = [i for ids, _ in islice(batches(first), 12) for i in ids]
    second = bare_loader(data_of(folders, **most_a))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    later = [i for ids, _ in islice(batches(second), 40) for i in ids]
    assert sum(i[0] == "a" for i in later) > 70
    in_a = [i for i in read + later if i[0] == "a"]
    assert all(len(set(in_a[e : e + 14])) == 14 for e in range(0, len(in_a) - 13, 14))


def mixed(student: Student, folders: dict[str, Path], **data: Any) -> Loader:
    found = data_of(folders, **data)
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    names = chosen_experts(found.index, None, {})
    return loader_of(found, Collator(student, block, found.index, names))


def without(sample: dict[str, Any], *experts: str) -> dict[str, Any]:
    return {**sample, "targets": {n: t for n, t in sample["targets"].items() if n not in experts}}


def only(path: Path, *experts: str) -> Path:
    """The index of a set that has these experts alone."""
    index = ShardIndex.read(str(path))
    replace(index, experts={n: e for n, e in index.experts.items() if n in experts}).write(str(path))
    return path


@pytest.fixture
def two_sets(tmp_path: Path) -> dict[str, Path]:
    """Of speech with mel and pitch, and of sounds with mel and events; keys s000... and s010..."""
    speech = [without(toy_sample(i), "events", "prosody") for i in range(4)]
    sounds = [without(toy_sample(10 + i, 0.6 + 0.4 * i), "pitch", "prosody") for i in range(4)]
    return {
        "speech": only(write_shards(tmp_path / "speech", speech), "mel", "pitch"),
        "sounds": only(write_shards(tmp_path / "sounds", sounds), "mel", "events"),
    }


def test_a_set_without_an_expert_has_no_loss_of_it(student: Student, two_sets: dict[str, Path]) -> None:
    made = mixed(student, two_sets, batch_size=4)
    assert set(made.collator.experts) == {"mel", "pitch", "events"}
    seen = set()
    for batch in islice(made, 6):
        for b, identity in enumerate(batch.ids):
            kind = "speech" if identity < "s010" else "sounds"
            seen.add(kind)
            has = {name for name, target in batch.targets.items() if target.mask_BN[b].any()}
            assert has == {"mel", "pitch" if kind == "speech" else "events"}
    assert seen == {"speech", "sounds"}


def test_means_and_deviations_are_over_the_frames_of_all_sets(two_sets: dict[str, Path], tmp_path: Path) -> None:
    mel = [toy_sample(i)["targets"]["mel"] for i in range(4)]
    mel += [toy_sample(10 + i, 0.6 + 0.4 * i)["targets"]["mel"] for i in range(4)]
    frames = np.concatenate(mel).astype(np.float64)
    found = data_of(two_sets).index.experts["mel"]
    assert found.frames == len(frames)
    assert np.allclose(found.mean, frames.mean(0))
    assert np.allclose(found.std, frames.std(0))
    write_shards(tmp_path / "a", [toy_sample(0)])
    write_shards(tmp_path / "b", [toy_sample(1)])
    prosody = data_of({"a": tmp_path / "a", "b": tmp_path / "b"}).index.experts["prosody"]
    assert prosody.std[3] == 0.0  # a dimension that never varies stays left out


def test_targets_that_disagree_are_refused_with_both_names(two_sets: dict[str, Path], tmp_path: Path) -> None:
    index = ShardIndex.read(str(two_sets["sounds"]))
    mel = replace(index.experts["mel"], spec=replace(SPECS["mel"], version=2))
    replace(index, experts={**index.experts, "mel": mel}).write(str(two_sets["sounds"]))
    said = (
        rf"{two_sets['speech']} and {two_sets['sounds']} .*speech and sounds.*: targets of mel differ \(\w+ and \w+\)"
    )
    with pytest.raises(InputError, match=said):
        data_of(two_sets)
    config = data_of({"a": two_sets["speech"]}).config.model_copy(update={"sets": sets_of(two_sets)})
    with pytest.raises(InputError, match=said):
        DataSets.open(config, ["mel", "pitch"])
    assert set(DataSets.open(config, ["pitch"]).index.experts) == {"pitch", "events"}


def sets_of(folders: dict[str, Path]) -> tuple[DataSetConfig, ...]:
    return tuple(DataSetConfig(name=name, shards=str(path)) for name, path in folders.items())


def test_a_card_names_no_place_of_a_set(two_sets: dict[str, Path], tmp_path: Path) -> None:
    data = {"sets": [one.model_dump() for one in sets_of(two_sets)], "exclude_file": str(tmp_path / "ids")}
    config = {"student": {"path": "s"}, "data": data, "run": {"out": "o"}}
    card = public_config(TrainConfig.from_dict(config, "test"))
    assert 'name = "speech"' in card
    assert str(tmp_path) not in card


def test_a_set_may_have_limits_of_its_own(student: Student, two_sets: dict[str, Path]) -> None:
    made = mixed(student, two_sets, max_seconds=1.7, sounds={"max_seconds": 0.9})
    seen = {i for batch in islice(made, 12) for i in batch.ids}
    assert seen == {"s000", "s001", "s002", "s003", "s010"}  # s011 has 1.0 s
    assert made.given["sounds/skipped/too_long"] == made.skipped["too_long"] > 0
    assert made.given["speech/skipped/too_long"] == 0
    made = mixed(student, two_sets, sounds={"max_tokens": 100})
    assert {i for batch in islice(made, 12) for i in batch.ids} <= {"s000", "s001", "s002", "s003", "s010"}
    assert made.given["sounds/skipped/too_many_tokens"] > 0


def test_what_a_set_gave_is_counted(student: Student, two_sets: dict[str, Path]) -> None:
    made = mixed(student, two_sets, batch_size=3)
    samples, seconds, tokens = Counter[str](), Counter[str](), Counter[str]()
    for batch in islice(made, 5):
        for b, identity in enumerate(batch.ids):
            name = "speech" if identity < "s010" else "sounds"
            samples[name] += 1
            seconds[name] += float(batch.seconds_B[b])  # type: ignore[assignment]
            tokens[name] += int(batch.inputs["attention_mask"][b].sum())
    for name in two_sets:
        assert made.given[f"{name}/samples"] == samples[name]
        assert made.given[f"{name}/tokens"] == tokens[name]
        assert made.given[f"{name}/audio_s"] == pytest.approx(seconds[name], abs=1e-4)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "shards .*and sets are both missing"),
        ({"shards": "x", "sets": [{"name": "a", "shards": "y"}]}, "both given.*takes it away"),
        ({"sets": [{"name": "a", "shards": "y"}, {"name": "a", "shards": "z"}]}, "two sets are named a"),
        ({"sets": [{"name": "a", "shards": "y", "weight": 1}, {"name": "b", "shards": "z"}]}, "b without a weight"),
        ({"sets": [{"name": "a/b", "shards": "y"}]}, r"data\.sets\.0\.name"),
        ({"sets": [{"name": "a", "shards": "y", "weight": 0}]}, r"data\.sets\.0\.weight"),
    ],
)
def test_sets_that_cannot_be_mixed_are_one_line(data: dict[str, Any], said: str) -> None:
    config = {"student": {"path": "s"}, "data": data, "run": {"out": "o"}}
    with pytest.raises(InputError, match=said) as caught:
        TrainConfig.from_dict(config, "train.toml")
    assert "\n" not in str(caught.value)
