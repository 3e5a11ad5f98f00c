"""Other ranks, or shards that lost and gained samples: no sample comes twice in an epoch, and none is missed."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coat.manifests import InputError
from coat.trainer.config.sections import ONE_SET
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.loader import Loader
from coat.trainer.data.redeal import set_cursors
from coat.trainer.data.resuming import Resuming
from coat.trainer.data.sample_record import RunData
from tests.trainer.data.bare import bare_loader, bare_shards, batches, data_of

SIZES = st.lists(st.integers(1, 6), min_size=3, max_size=6)


def given_by(loaders: list[Loader], numbers: list[int]) -> list[str]:
    """What the first batches of each rank hold."""
    return [i for loader, n in zip(loaders, numbers, strict=True) for ids, _ in islice(batches(loader), n) for i in ids]


def go_on(data: DataSets, run: Path, states: list[dict[str, Any]], ranks: int) -> tuple[list[Loader], list[str]]:
    loaders = [bare_loader(data, rank, ranks) for rank in range(ranks)]
    said = [Resuming(data, RunData(run), states, rank, ranks).go_on(loader) for rank, loader in enumerate(loaders)]
    assert all(lines == said[0] for lines in said)
    return loaders, said[0]


def states_of(loaders: list[Loader]) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(loader.state_dict())) for loader in loaders]


def last_epoch(loaders: list[Loader]) -> int:
    """That some rank has begun."""
    return max(set_cursors(loader.cursor)[ONE_SET].epoch for loader in loaders)


def to_the_end_of(loaders: list[Loader], epoch: int) -> list[str]:
    """All that is left up to there, of all ranks; it is read by the stream, batches or not."""
    left = []
    for loader in loaders:
        stream = loader.stream.fork()
        stream.seek(loader.cursor.stream)
        window = loader.cursor.window
        if window:  # what is left of the window in hand
            wanted = {place.number for place in window.left}
            left += [s.key for s in stream.next_window(window.length).samples if s.place and s.place.number in wanted]
        while (raw := next(stream)).place and raw.place.epoch <= epoch:  # type: ignore[union-attr]
            left.append(raw.key)
        stream.close()
    return left


@example(sizes=[1, 1, 1], ranks=(3, 1, 2), budget=None, steps=[0, 0, 1, 0, 0, 0], size=None)  # two epochs dealt twice
@settings(max_examples=25, deadline=None)
@given(
    sizes=SIZES, ranks=st.tuples(*[st.integers(1, 3)] * 3), budget=st.none() | st.integers(7, 20),
    steps=st.lists(st.integers(0, 7), min_size=6, max_size=6), size=st.none() | st.integers(300, 900),
)  # fmt: skip
def test_each_sample_comes_once_an_epoch_whatever_the_ranks(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    ranks: tuple[int, int, int],
    budget: int | None,
    steps: list[int],
    size: int | None,
) -> None:
    """Twice other ranks, stopped anywhere: every epoch that some rank has begun has each sample once."""
    folder = tmp_path_factory.mktemp("shards")
    bare_shards(folder / "set", sizes)
    data = data_of({"": folder / "set"}, batch_tokens=budget, shuffle_bytes=size)
    loaders = [bare_loader(data, rank, ranks[0]) for rank in range(ranks[0])]
    read = given_by(loaders, steps[: ranks[0]])
    last = last_epoch(loaders)
    for number in ranks[1:]:
        loaders, _ = go_on(data, folder, states_of(loaders), number)
        read += given_by(loaders, steps[3 : 3 + number])
        last = max(last, last_epoch(loaders))
    counts = Counter(read + to_the_end_of(loaders, last))
    assert set(counts.values()) == {last + 1}
    assert len(counts) == sum(sizes)


def test_what_goes_on_with_other_ranks_resumes_exactly(tmp_path: Path) -> None:
    """And what was left is kept with the run, not in the checkpoint."""
    bare_shards(tmp_path / "set", [5, 3, 6, 4])
    data = data_of({"": tmp_path / "set"})
    first = [bare_loader(data, rank, 2) for rank in range(2)]
    given_by(first, [2, 3])
    states = states_of(first)
    (alone,), lines = go_on(data, tmp_path, states, 1)
    assert lines == [
        "1 rank in place of 2: shards are dealt anew, and no sample comes twice in an epoch; "
        "8 of 18 samples are left of epoch 1 of shards"
    ]
    whole = [ids for ids, _ in islice(batches(alone), 20)]
    (alone,), _ = go_on(data, tmp_path, states, 1)
    assert [ids for ids, _ in islice(batches(alone), 2)] == whole[:2]
    state = states_of([alone])
    assert len(json.dumps(state)) < 500
    (again,), lines = go_on(data, tmp_path, state, 1)
    assert lines == []
    assert [ids for ids, _ in islice(batches(again), 18)] == whole[2:]


def test_counts_of_all_ranks_go_on(tmp_path: Path) -> None:
    bare_shards(tmp_path / "a", [4, 4], "a")
    bare_shards(tmp_path / "b", [4, 4], "b")
    data = data_of({"a": tmp_path / "a", "b": tmp_path / "b"})
    first = [bare_loader(data, rank, 2) for rank in range(2)]
    given_by(first, [3, 2])
    first[0].skipped["lost"] = 3
    states = states_of(first)
    states[0]["skipped"] = {"lost": 3}
    loaders, lines = go_on(data, tmp_path, states, 1)
    assert sum(loaders[0].given[f"{name}/samples"] for name in "ab") == 10
    assert loaders[0].skipped == {"lost": 3}
    assert "left of epoch 1 of a; " in lines[0]
    read = Counter(given_by(loaders, [30]))
    assert max(read.values()) <= 60 // 8 + 2


def test_another_seed_is_refused(tmp_path: Path) -> None:
    bare_shards(tmp_path / "set", [5, 3, 6, 4])
    first = [bare_loader(data_of({"": tmp_path / "set"}), rank, 2) for rank in range(2)]
    with pytest.raises(InputError, match="not the shards that this run stopped with"):
        go_on(data_of({"": tmp_path / "set"}, seed=4), tmp_path, states_of(first), 1)
    with pytest.raises(InputError, match="4 shards for 5 ranks"):
        go_on(data_of({"": tmp_path / "set"}), tmp_path, states_of(first), 5)
