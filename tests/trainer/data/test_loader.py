"""The order is a function of (seed, epoch): over ranks, workers, shards and sizes, and wherever a run was killed."""

import json
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.manifests import InputError, ShardIndex
from coat.trainer.config.sections import DataConfig, ThinkingConfig
from coat.trainer.data.batching import group_by_length
from coat.trainer.data.collator import Collator
from coat.trainer.data.loader import LOGGED_PER_REASON, Loader
from coat.trainer.data.samples import BadSample
from coat.trainer.data.stream import ShardStream
from coat.trainer.model.batch import Batch
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from tests.trainer.data.bare import Padded, bare_shards, batches
from tests.trainer.helpers import SPECS, toy_sample, write_shards

EXAMPLES = settings(max_examples=30, deadline=None)
SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=6)  # samples by shard


def stream_loader(stream: ShardStream, size: int, budget: int | None, workers: int) -> Loader:
    data = {"shards": "x", "batch_size": size, "batch_tokens": budget, "shuffle": stream.shuffle, "workers": workers}
    return Loader(stream, cast(Collator, Padded(stream.index)), DataConfig.model_validate(data))


def epoch_of(stream: ShardStream, epoch: int) -> list[str]:
    return [s.key for s in stream.read_epoch(epoch, 0)]


@EXAMPLES
@given(sizes=SIZES, ranks=st.integers(1, 6), shuffle=st.integers(1, 9), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_an_epoch_of_all_ranks_has_every_sample_once(
    sizes: list[int], ranks: int, shuffle: int, seed: int, epoch: int
) -> None:
    ranks = min(ranks, len(sizes))
    with tempfile.TemporaryDirectory() as folder:
        index = bare_shards(folder, sizes)
        streams = [ShardStream(index, seed=seed, shuffle=shuffle, rank=r, ranks=ranks) for r in range(ranks)]
        parts = [epoch_of(s, epoch) for s in streams]
        assert sorted(key for part in parts for key in part) == [f"s{i:03d}" for i in range(sum(sizes))]
        for stream, part in zip(streams, parts, strict=True):  # whatever was read before
            list(islice(stream, 4))
            assert epoch_of(stream, epoch) == part
            stream.seek(replace(stream.cursor, epoch=epoch, position=0, window=None))
            runs: list[list[str]] = []
            while stream.epoch == epoch:
                runs.append([s.key for s in stream.next_window().samples])
            assert [key for run in runs for key in run] == part
            assert all(len(run) == shuffle for run in runs[:-1])


@EXAMPLES
@given(
    sizes=SIZES, rank=st.integers(0, 1), shuffle=st.integers(1, 9), size=st.integers(1, 4),
    budget=st.none() | st.integers(7, 20), workers=st.tuples(*[st.integers(0, 3)] * 3), stop=st.integers(0, 12),
)  # fmt: skip
def test_killed_at_any_step_the_batches_go_on(
    sizes: list[int], rank: int, shuffle: int, size: int, budget: int | None, workers: tuple[int, ...], stop: int
) -> None:
    """With another number of workers, too."""
    ranks = min(2, len(sizes))
    with tempfile.TemporaryDirectory() as folder:
        index = bare_shards(folder, sizes)

        def made(workers: int) -> Loader:
            stream = ShardStream(index, seed=1, shuffle=shuffle, rank=min(rank, ranks - 1), ranks=ranks)
            return stream_loader(stream, size, budget, workers)

        whole = list(islice(batches(made(workers[0])), 24))
        killed = made(workers[1])
        assert list(islice(batches(killed), stop)) == whole[:stop]
        state = json.loads(json.dumps(killed.state_dict()))
        resumed = made(workers[2])
        resumed.load_state_dict(state)
        assert list(islice(batches(resumed), 12)) == whole[stop : stop + 12]
        assert len(json.dumps(state)) < 1000


@EXAMPLES
@given(sizes=SIZES, shuffle=st.integers(1, 9), size=st.integers(1, 4), budget=st.integers(7, 20))
def test_batches_by_length_keep_the_budget_and_every_sample(
    sizes: list[int], shuffle: int, size: int, budget: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stream = ShardStream(bare_shards(folder, sizes), seed=1, shuffle=shuffle)
        for epoch in range(2):
            read: list[str] = []
            for ids, padded in batches(stream_loader(stream, size, budget, 1)):
                assert len(ids) <= size
                assert padded <= budget
                read += ids
                if len(read) == sum(sizes):
                    break
            assert sorted(read) == sorted(epoch_of(stream, epoch))
            stream.seek(replace(stream.cursor, epoch=epoch + 1, position=0, window=None))


def test_groups_are_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(20, 400, 256).tolist()
    groups = group_by_length(lengths, 16, 3200)
    assert sorted(i for g in groups for i in g) == list(range(256))
    padded = sum(len(g) * max(lengths[i] for i in g) for g in groups)
    in_order = sum(16 * max(lengths[i : i + 16]) for i in range(0, 256, 16))
    assert sum(lengths) / padded > 0.95
    assert sum(lengths) / in_order < 0.6
    assert all(len(a) >= len(b) for a, b in pairwise(groups[:-1]))
    assert group_by_length([5, 50, 5], 4, 10) == [[0, 2], [1]]


def loader(student: Student, path: Path, log: Any = lambda _: None, pin: bool = False, **data: Any) -> Loader:
    block = ThinkingBlock.add_to(student, ThinkingConfig.model_validate(data.pop("thinking", {"count": 4})))
    config = DataConfig.model_validate({"shards": str(path), "batch_size": 4, "shuffle": 8, "workers": 1, **data})
    index = ShardIndex.read(str(path))
    stream = ShardStream(index, seed=1, shuffle=config.shuffle)
    return Loader(stream, Collator(student, block, index, list(SPECS)), config, log, pin)


@pytest.mark.parametrize("thinking", [{"count": 0}, {"count": 4}, {"rate_hz": 2.5}], ids=str)
def test_lengths_are_known_without_decoding(student: Student, tmp_path: Path, thinking: dict[str, Any]) -> None:
    lengths_s = [0.0601, 0.07, 0.0800625, 0.1, 0.5, 0.73, 1.0, 1.1, 1.9999375, 2.0, 2.51, 3.0]
    metas = [{"prompt": "Öl?", "response": "ja"}, {"text": "hello"}, {}, {"prompt": "a", "choices": ["b", "c"]}]
    write_shards(tmp_path, [toy_sample(i, s, meta=metas[i % 4]) for i, s in enumerate(lengths_s)])
    made = loader(student, tmp_path, thinking=thinking, batch_size=1)
    raws = list(cast(ShardStream, made.stream).read_epoch(0, 0))
    found = {raw.key: made.collator.sequence_length(raw, made.config) for raw in raws}
    exact = {b.ids[0]: b.inputs["input_ids"].shape[1] for b in islice(made, len(lengths_s))}
    assert found == exact


def test_batches_of_a_student_keep_the_budget(student: Student, shards_dir: Path) -> None:
    made = loader(student, shards_dir, batch_tokens=300)
    ids: list[str] = []
    for batch in made:
        assert batch.inputs["input_ids"].numel() <= 300
        ids += batch.ids
        if len(ids) == 10:
            break
    assert sorted(ids) == [f"s{i:03d}" for i in range(10)]
    lines: list[str] = []
    made = loader(student, shards_dir, lines.append, batch_tokens=130)
    list(islice(made, 4))
    assert made.skipped["too_many_tokens"]
    assert "130 fit (data.batch_tokens)" in lines[0]


def test_what_a_cut_tar_has_lost_is_counted_and_the_rest_is_read(student: Student, tmp_path: Path) -> None:
    write_shards(tmp_path, [toy_sample(i) for i in range(8)])
    shard = tmp_path / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size * 5 // 8])  # within the third of four samples
    lines: list[str] = []
    made = loader(student, tmp_path, lines.append)
    whole = [b.ids for b in islice(made, 8)]
    assert sorted({i for ids in whole for i in ids}) == ["s000", "s001", "s004", "s005", "s006", "s007"]
    assert made.skipped["lost"] % 2 == 0
    assert "shard-00000.tar:sample 2 is lost" in "".join(lines)
    first, second = loader(student, tmp_path), loader(student, tmp_path)
    list(islice(first, 3))
    second.load_state_dict(first.state_dict())
    assert [b.ids for b in islice(second, 5)] == whole[3:]
    with pytest.raises(BadSample, match="is lost"):
        list(islice(loader(student, tmp_path, unusable="raise"), 4))
    shard.unlink()
    with pytest.raises(InputError, match="no such shard"):
        list(islice(loader(student, tmp_path), 4))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"audio": np.zeros(8000, np.float32), "meta": {"duration": 1.0}}, "wrong_duration"),
        ({"meta": {"targets": {"mel": 21}}}, "wrong_target"),
        ({"meta": {"targets": {"mel": 20, "pitch": 62}}, "targets": {}}, "wrong_target"),
        ({"meta": {"targets": [1]}}, "broken_json"),
        ({"meta": {"prompt": 3}}, "broken_json"),
        ({"meta": {"choices": [3]}}, "broken_json"),
        ({"meta": {"duration": "long"}}, "broken_json"),
        ({"meta": {"duration": float("inf")}}, "broken_json"),
    ],
)
@pytest.mark.parametrize("batch_tokens", [None, 300], ids=["as_they_come", "by_length"])
def test_corrupt_samples_are_skipped_counted_and_named_or_raised(
    student: Student, tmp_path: Path, changes: dict[str, Any], reason: str, batch_tokens: int | None
) -> None:
    write_shards(tmp_path, [toy_sample(0, **changes), *(toy_sample(i) for i in range(1, 4))])
    lines: list[str] = []
    made = loader(student, tmp_path, lines.append, batch_tokens=batch_tokens)
    batches, seen = iter(made), set[str]()
    while len(seen) < 3 or not made.skipped:
        seen |= set(next(batches).ids)
    assert seen == {"s001", "s002", "s003"}
    assert set(made.skipped) == {reason}
    assert "shard-00000.tar:s000" in lines[0]
    with pytest.raises(BadSample, match="s000") as caught:
        list(islice(loader(student, tmp_path, unusable="raise", batch_tokens=batch_tokens), 4))
    assert caught.value.reason == reason


def test_the_first_of_a_reason_are_named_and_the_rest_counted(student: Student, tmp_path: Path) -> None:
    write_shards(tmp_path, [toy_sample(i, raw={"flac": b"fLaC"} if i else {}) for i in range(LOGGED_PER_REASON + 3)])
    lines: list[str] = []
    made = loader(student, tmp_path, lines.append, batch_size=LOGGED_PER_REASON + 3, shuffle=100)
    assert next(iter(made)).ids == ("s000",)
    assert made.skipped == {"broken_audio": LOGGED_PER_REASON + 2}
    assert len(lines) == LOGGED_PER_REASON
    assert "more of these are only counted" in lines[-1]


def test_iterating_anew_goes_on_behind_the_last_batch_given(student: Student, shards_dir: Path) -> None:
    whole = [b.ids for b in islice(loader(student, shards_dir), 6)]
    made = loader(student, shards_dir)
    assert [b.ids for b in islice(made, 2)] + [b.ids for b in islice(made, 4)] == whole


def test_an_iteration_that_is_dropped_may_be_collected_in_one_of_its_own_threads(
    student: Student, shards_dir: Path
) -> None:
    """Where it is part of a cycle, the collector ends it in whichever thread it happens to run."""
    batches = cast(Generator[Batch], iter(loader(student, shards_dir)))
    next(batches)
    own: ThreadPoolExecutor = batches.gi_frame.f_locals["decoders"]  # type: ignore[union-attr]
    assert own.submit(batches.close).result(timeout=300) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory is CUDA's")
def test_batches_are_pinned(student: Student, shards_dir: Path) -> None:
    batch: Batch = next(iter(loader(student, shards_dir, pin=True)))
    assert all(t.is_pinned() for t in [*batch.inputs.values(), batch.labels_BT, batch.targets["mel"].frames_BND])
