"""Windows that are permuted: a budget of bytes, changed bounds, and runs of before there was one."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.manifests import InputError
from coat.trainer.config.sections import DataConfig
from coat.trainer.data.stream import ShardStream
from tests.trainer.data.bare import bare_loader, bare_shards, batches, data_of

SIZES = [5, 3, 6, 2, 4]


def order_of_before(sizes: list[int], seed: int, shuffle: int, rank: int, ranks: int, epochs: int) -> list[str]:
    """The order as the first coat had it, written down once more: windows of `shuffle` samples."""
    firsts = np.cumsum([0, *sizes])
    keys = []
    for epoch in range(epochs):
        shards = np.random.default_rng([0xC0A7, seed, epoch]).permutation(len(sizes))[rank::ranks]
        own = [f"s{i:03d}" for n in shards for i in range(firsts[n], firsts[n + 1])]
        for window in range(-(-len(own) // shuffle)):
            part = own[window * shuffle : (window + 1) * shuffle]
            order = np.random.default_rng([0xC0A7, seed, epoch, rank, window]).permutation(len(part))
            keys += [part[i] for i in order]
    return keys


@pytest.mark.parametrize("rank", [0, 1])
def test_without_many_bytes_the_order_is_that_of_before(tmp_path: Path, rank: int) -> None:
    stream = ShardStream(bare_shards(tmp_path, SIZES), seed=3, shuffle=4, rank=rank, ranks=2)
    expected = order_of_before(SIZES, 3, 4, rank, 2, 4)
    assert [s.key for s in islice(stream, len(expected))] == expected


@pytest.mark.parametrize("position", [0, 1, 4, 7, 20])
def test_a_checkpoint_of_before_goes_on_exactly_and_without_a_budget(tmp_path: Path, position: int) -> None:
    """Though windows of new runs are bounded by bytes, here to some three samples."""
    index = bare_shards(tmp_path, SIZES)
    shards = [(s.name, s.samples, s.xxh3) for s in index.shards]
    identity = xxhash.xxh3_64_hexdigest(json.dumps([0xC0A7, shards, 3, 7, 0, 1]).encode())
    old = {"epoch": 0, "position": position, "identity": identity, "batch": 0, "skipped": {"too_long": 2}}
    expected = order_of_before(SIZES, 3, 7, 0, 1, 4)[position:]
    made = bare_loader(data_of({"": tmp_path}, shuffle=7, seed=3, batch_size=1))
    made.stream.max_bytes = 500
    made.load_state_dict(old)
    seen = [ids[0] for ids, _ in islice(batches(made), 5)]
    assert made.skipped == {"too_long": 2}
    again = bare_loader(data_of({"": tmp_path}, shuffle=7, seed=3, batch_size=1))
    again.load_state_dict(json.loads(json.dumps(made.state_dict())))
    seen += [ids[0] for ids, _ in islice(batches(again), 40)]
    assert seen == expected[:45]
    other = bare_loader(data_of({"": tmp_path}, shuffle=6, seed=3))
    with pytest.raises(InputError, match="changed since this run stopped"):
        other.load_state_dict(old)


@settings(max_examples=15, deadline=None)
@given(
    bounds=st.tuples(st.integers(1, 9), st.integers(200, 3000)),
    later=st.tuples(st.integers(1, 9), st.integers(1, 3000)),
    budget=st.none() | st.integers(7, 20), stop=st.integers(0, 12), seed=st.integers(0, 2),
)  # fmt: skip
def test_bounds_may_change_between_two_windows(
    tmp_path_factory: pytest.TempPathFactory,
    bounds: tuple[int, int],
    later: tuple[int, int],
    budget: int | None,
    stop: int,
    seed: int,
) -> None:
    """Killed at any batch and with the same bounds, the order is the same; with others, each sample comes once an
    epoch all the same.
    """
    folder = tmp_path_factory.mktemp("shards")
    bare_shards(folder, SIZES)

    def made(shuffle: int, size: int) -> Any:
        data = {"shuffle": shuffle, "shuffle_bytes": size, "batch_tokens": budget, "seed": seed}
        return bare_loader(data_of({"": folder}, **data))

    whole = [ids for ids, _ in islice(batches(made(*bounds)), 40)]
    killed = made(*bounds)
    before = [ids for ids, _ in islice(batches(killed), stop)]
    state = json.loads(json.dumps(killed.state_dict()))
    assert before == whole[:stop]
    resumed = made(*bounds)
    resumed.load_state_dict(state)
    assert [ids for ids, _ in islice(batches(resumed), 40 - stop)] == whole[stop:]
    changed = made(*later)
    changed.load_state_dict(state)
    read = [i for ids in before for i in ids]
    for ids, _ in batches(changed):
        read += ids
        if len(read) >= 3 * sum(SIZES):
            break
    epochs = [read[: sum(SIZES)], read[sum(SIZES) : 2 * sum(SIZES)]]
    assert all(len(set(epoch)) == sum(SIZES) for epoch in epochs)


def test_a_window_has_no_more_bytes_than_its_budget_and_one_sample(tmp_path: Path) -> None:
    index = bare_shards(tmp_path, SIZES)
    stream = ShardStream(index, seed=0, shuffle=100, shuffle_bytes=700)
    while stream.epoch < 2:
        window = stream.next_window().samples
        sizes = [raw.bytes for raw in window]
        in_tar_order = sorted(zip([raw.place.number for raw in window if raw.place], sizes, strict=True))
        assert sum(sizes) - max(sizes) < 700, in_tar_order
    whole = ShardStream(index, seed=0, shuffle=100, shuffle_bytes=10**6)
    assert len(whole.next_window().samples) == sum(SIZES)


def test_sizes_are_read_as_people_write_them() -> None:
    assert DataConfig.model_validate({"shards": "x", "shuffle_bytes": "2GiB"}).shuffle_bytes == 2**31
    assert (
        DataConfig.model_validate({"shards": "x", "shuffle_bytes": 1000}).model_dump(mode="json")["shuffle_bytes"]
        == 1000
    )
    with pytest.raises(ValueError, match="shuffle_bytes"):
        DataConfig.model_validate({"shards": "x", "shuffle_bytes": "0B"})


def test_a_cursor_of_another_deal_is_refused(tmp_path: Path) -> None:
    index = bare_shards(tmp_path, SIZES)
    cursor = ShardStream(index, seed=0, shuffle=4, rank=1, ranks=2).cursor
    with pytest.raises(InputError, match="changed since this run stopped"):
        ShardStream(index, seed=0, shuffle=4, rank=0, ranks=2).seek(cursor)
    left = {0: np.arange(sum(SIZES)) > 7}
    with pytest.raises(InputError, match="changed since this run stopped"):
        ShardStream(index, seed=0, shuffle=4, rank=1, ranks=2, left=left).seek(cursor)
