"""A run that goes on with other ranks, with shards that lost or gained samples, with other weights of its sets."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import xxhash

from coat.manifests import InputError, ShardIndex
from coat.manifests.shards.samples_table import samples_schema
from coat.trainer import TrainConfig, load_run, train
from coat.trainer.run_folder import read_metrics
from coat.trainer.training.checkpointing.checkpoint_tensors import random_state, restore_random_state, save_tensors
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.processes import run_ranks, train_and_log_ids
from tests.trainer.training.test_loop import assert_equal_runs, rows_of

SAMPLES = [toy_sample(i, 0.4 + 0.05 * i) for i in range(12)]


def build(folder: Path, samples: list[dict[str, Any]], per_shard: int = 3, seed: int = 0) -> Path:
    """Shards as `coat build-shards` makes them: shuffled, with samples.parquet."""
    order = np.random.default_rng(seed).permutation(len(samples))
    samples = [samples[i] for i in order]
    shutil.rmtree(folder, ignore_errors=True)
    write_shards(folder, samples, per_shard)
    rows = [
        {
            "shard": n // per_shard, "key": s["key"], "id": s["key"], "digest": f"asked {s['key']}",
            "source": xxhash.xxh3_64_hexdigest(s["audio"].tobytes()), "offset": 0, "length": 0,
            "duration": len(s["audio"]) / 16000, "start": 0.0, "whole": True, "characters": 1,
        }
        for n, s in enumerate(samples)
    ]  # fmt: skip
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, samples_schema([])), out)
    data = out.getvalue().to_pybytes()
    (folder / "samples.parquet").write_bytes(data)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, "samples_xxh3": xxhash.xxh3_128_hexdigest(data)}))
    return folder


def config_of(student: Path, shards: Path, out: Path, **parts: Any) -> TrainConfig:
    data = {"shuffle": 4, **parts.pop("data", {})}
    run = {"save_every": 2, **parts.pop("run", {})}
    return toy_config(student, shards, out, steps=parts.pop("steps", 12), data=data, run=run, **parts)


def stop_at(steps: int) -> Callable[[], bool]:
    calls: list[int] = []
    return lambda: calls.append(1) or len(calls) >= steps


def ids_of(run: Path) -> list[str]:
    """Ids of all batches that were trained on, of all ranks."""
    return [i for file in sorted(run.parent.glob(f"{run.name}.ids-*")) for i in file.read_text().split()]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_other_ranks_finish_the_epoch_without_a_sample_twice(
    student_dir: Path, tmp_path: Path, before: int, after: int
) -> None:
    """12 samples, 2 a rank and step: two steps of two ranks, or four of one, leave four; then they are done."""
    shards = build(tmp_path / "shards", SAMPLES, per_shard=2)
    stop = 8 // (2 * before)
    config = config_of(student_dir, shards, tmp_path / "run", run={"save_every": 1})
    log = tmp_path / "log"
    assert run_ranks(before, train_and_log_ids, config, stop, log) == [0] * before
    assert sorted(Counter(ids_of(tmp_path / "run")).values()) == [1] * 8
    rest = 4 // (2 * after)
    assert run_ranks(after, train_and_log_ids, config, rest, log) == [0] * after, log.read_text()
    assert sorted(ids_of(tmp_path / "run")) == [f"s{i:03d}" for i in range(12)]
    said = log.read_text().splitlines()
    assert [line for line in said if " in place of " in line] == [
        f"{after} rank{'s' * (after > 1)} in place of {before}: shards are dealt anew, and no sample comes twice in an "
        "epoch; 4 of 12 samples are left of epoch 1 of shards"
    ]
    assert f"a step takes {2 * after} samples with {after} rank{'s' * (after > 1)}, if none are skipped" in said

    shutil.copytree(tmp_path / "run", tmp_path / "again")  # and from there on it resumes bit for bit
    again = config.model_copy(update={"run": config.run.model_copy(update={"out": str(tmp_path / "again")})})
    assert run_ranks(after, train_and_log_ids, config, None, log) == [0] * after, log.read_text()
    for steps in (3, None):
        assert run_ranks(after, train_and_log_ids, again, steps, log) == [0] * after, log.read_text()
    assert_equal_runs(tmp_path / "run", tmp_path / "again")
    assert rows_of(tmp_path / "run")[-1]["samples"] == 8 + (12 - stop) * 2 * after


def test_fewer_gpus_are_no_error_in_random_states(tmp_path: Path) -> None:
    """A rank of another number begins with a seed of its own."""
    save_tensors({**random_state(), "cuda": [torch.get_rng_state()] * 8}, tmp_path / "rank-0.pt")
    torch.manual_seed(3)
    restore_random_state(tmp_path, 0, 5)
    own = torch.rand(3)
    restore_random_state(tmp_path, 1, 5)
    new = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(new, torch.rand(3))
    assert not torch.equal(own, new)


def test_shards_that_lost_and_gained_samples_go_on_where_that_is_asked_for(student_dir: Path, tmp_path: Path) -> None:
    shards = build(tmp_path / "shards", SAMPLES)
    config = config_of(student_dir, shards, tmp_path / "run")
    lines: list[str] = []
    train_with_ids(config, stop_at(3))
    seen = set(ids_of(tmp_path / "run"))
    assert len(seen) == 6
    unseen = sorted({s["key"] for s in SAMPLES} - seen)
    lost = [sorted(seen)[0], unseen[0]]
    new = [toy_sample(i, 0.5) for i in (20, 21, 22)]
    build(shards, [s for s in SAMPLES if s["key"] not in lost] + new, per_shard=2, seed=5)  # every tar is another one

    begun = (tmp_path / "run/index.json").read_bytes()
    with pytest.raises(InputError, match=r"2 samples are gone, 3 are new, 10 are as they were; --change to go on"):
        train(config)
    assert (tmp_path / "run/index.json").read_bytes() == begun
    first = (tmp_path / "run.ids-0").read_text()
    train_with_ids(config, stop_at(4), change=True, log=lines.append)  # 5 that are left, and 3 new ones
    now = (tmp_path / "run.ids-0").read_text()[len(first) :].split()
    assert sorted(now) == sorted([*unseen[1:], "s020", "s021", "s022"])
    assert any("2 samples are gone, 3 are new" in line for line in lines)
    assert any("has lost 2 samples and gained 3" in line and "8 of 13 samples are left" in line for line in lines)

    shutil.copytree(tmp_path / "run", tmp_path / "again")
    again = config.model_copy(update={"run": config.run.model_copy(update={"out": str(tmp_path / "again")})})
    assert train(config).finished  # no --change any more
    for steps in (1, 2):
        train(again, stop=stop_at(steps))
    assert train(again).finished
    assert_equal_runs(tmp_path / "run", tmp_path / "again")
    record = (tmp_path / "run/index.json").read_bytes()
    build(shards, SAMPLES)
    assert train(config).step == 12  # finished: its record stays what it was trained on
    assert (tmp_path / "run/index.json").read_bytes() == record
    assert load_run(tmp_path / "run").ask((SAMPLES[0]["audio"], 16000), "?", max_new_tokens=2) is not None


def test_a_crash_before_the_first_new_checkpoint_changes_nothing(student_dir: Path, tmp_path: Path) -> None:
    """The checkpoint is of the shards before, whose record is kept, though the run goes by those of now."""
    shards = build(tmp_path / "shards", SAMPLES)
    config = config_of(student_dir, shards, tmp_path / "run")
    train_with_ids(config, stop_at(3))
    build(shards, SAMPLES[1:], seed=7)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    other = config.model_copy(update={"run": config.run.model_copy(update={"out": str(tmp_path / "other")})})
    with pytest.raises(KeyboardInterrupt):
        train(other, change=True, on_report=interrupt)
    train(other)
    train(config, change=True)
    assert_equal_runs(tmp_path / "other", tmp_path / "run")


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_shards_of_which_nothing_is_known_are_refused(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """Without samples.parquet; of other samples altogether; of a run that an earlier coat began."""
    bare = write_shards(tmp_path / "bare", SAMPLES, 3)
    config = config_of(student_dir, bare, tmp_path / "run")
    train(config, stop=stop_at(2))
    write_shards(bare, SAMPLES[:-1], 3)
    with pytest.raises(InputError, match=r"without samples\.parquet nobody knows which samples are the same"):
        train(config, change=True)
    shards = build(tmp_path / "shards", SAMPLES)
    config = config_of(student_dir, shards, tmp_path / "known")
    train(config, stop=stop_at(2))
    build(shards, [toy_sample(i) for i in range(30, 36)])
    with pytest.raises(InputError, match=r"none of its 6 samples is one of the 12"):
        train(config, change=True)
    shutil.rmtree(tmp_path / "known/data")
    with pytest.raises(InputError, match=r"no record of its samples \(an earlier coat began it\)"):
        train(config, change=True)


def two_sets(student: Path, out: Path, folder: Path, weights: tuple[float, float], **parts: Any) -> TrainConfig:
    sets = [
        {"name": name, "shards": str(folder / name), "weight": weight}
        for name, weight in zip(("speech", "sounds"), weights, strict=True)
    ]
    return config_of(student, Path(""), out, data={"shards": "", "sets": sets}, **parts)


@pytest.fixture
def sets_dir(tmp_path: Path) -> Path:
    build(tmp_path / "speech", SAMPLES[:8], 2)
    build(tmp_path / "sounds", [toy_sample(i) for i in range(50, 56)], 2)
    return tmp_path


def test_a_run_on_several_sets_resumes_and_counts_them(student_dir: Path, sets_dir: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    whole = two_sets(student_dir, tmp_path / "whole", sets_dir, (3, 1))
    assert train(whole, log=lines.append).finished
    assert any(line.startswith("speech: 75.0% of the samples drawn") for line in lines)
    cut = two_sets(student_dir, tmp_path / "cut", sets_dir, (3, 1))
    for steps in (3, 4):
        train(cut, stop=stop_at(steps))
    assert train(cut).finished
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")
    last = read_metrics(tmp_path / "cut")[-1]
    assert last["set/speech/samples"] + last["set/sounds/samples"] == last["samples"] == 24
    assert last["set/speech/audio_hours"] + last["set/sounds/audio_hours"] == pytest.approx(last["audio_hours"])
    assert last["set/speech/tokens"] > 100 * last["set/speech/samples"] / 2
    index = ShardIndex.read(str(tmp_path / "cut"))
    assert index.samples == 14

    more = two_sets(student_dir, tmp_path / "cut", sets_dir, (1, 9), steps=20)
    with pytest.raises(InputError, match=r"data\.sets\.sounds\.weight: 1\.0 -> 9\.0"):
        train(more)
    assert train(more, change=True, log=lines.append).finished
    assert any("data.sets.speech.weight: 3.0 -> 1.0" in line for line in lines)
    sounds = read_metrics(tmp_path / "cut")[-1]["set/sounds/samples"] - last["set/sounds/samples"]
    assert sounds >= 10  # of 16


def test_a_run_is_extended_by_a_set(student_dir: Path, sets_dir: Path, tmp_path: Path) -> None:
    """`data.shards` is the set of that name."""
    config = config_of(student_dir, sets_dir / "speech", tmp_path / "run")
    train_with_ids(config, stop_at(2))
    sets = [
        {"name": "shards", "shards": str(sets_dir / "speech"), "weight": 1},
        {"name": "sounds", "shards": str(sets_dir / "sounds"), "weight": 1},
    ]
    more = config_of(student_dir, Path(""), tmp_path / "run", data={"shards": "", "sets": sets})
    with pytest.raises(InputError, match="--change"):
        train(more)
    lines: list[str] = []
    train_with_ids(more, stop_at(4), change=True, log=lines.append)
    assert any("sounds: begins here, with 6 samples" in line for line in lines)
    assert max(Counter(ids_of(tmp_path / "run")).values()) == 1
    assert train(more).finished
    gone = config_of(student_dir, sets_dir / "speech", tmp_path / "run", steps=14)
    assert train(gone, change=True, log=lines.append).finished
    assert any("sounds left out" in line for line in lines)


def train_with_ids(config: TrainConfig, stop: Callable[[], bool], **options: Any) -> None:
    """Train in this process, and note the ids of all batches beside the run."""
    from tests.trainer.training.processes import noting_ids

    with noting_ids(config):
        train(config, stop=stop, **options)


def test_a_run_that_ended_early_goes_on_with_other_samples(student_dir: Path, tmp_path: Path) -> None:
    """Its patience begins again; and what it is recorded to have been trained on is what it was trained on."""
    shards, out = build(tmp_path / "shards", SAMPLES), tmp_path / "run"
    held_out = build(tmp_path / "held", SAMPLES[:4], seed=1)
    config = config_of(
        student_dir, shards, out, evaluation={"shards": str(held_out), "every": 2, "answers": 0},
        run={"best": "distill/mel", "best_is": "highest", "patience": 1},  # it only falls
    )  # fmt: skip
    ended = train(config).step
    assert ended < 12
    begun = (out / "index.json").read_bytes()
    build(shards, SAMPLES[:10])
    with pytest.raises(InputError, match="2 samples are gone, 0 are new, 10 are as they were; --change to go on"):
        train(config)
    assert (out / "index.json").read_bytes() == begun
    assert train(config, change=True).step > ended
    assert ShardIndex.read(str(out)).samples == 10
