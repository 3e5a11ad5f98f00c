"""Shards are read whole, in an order that can be resumed at any sample, and nothing is unpickled."""

import io
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coat.manifests import InputError, ShardIndex
from coat.trainer import iterate_shards
from coat.trainer.config.sections import DataConfig, ThinkingConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.loader import Loader
from coat.trainer.data.samples import BadSample
from coat.trainer.data.stream import ShardStream
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from coat.trainer.students.unusable import UnusableInput
from tests.trainer.helpers import SPECS, toy_sample, write_shards


def stream(path: Path, **changes: Any) -> ShardStream:
    return ShardStream(ShardIndex.read(str(path)), **{"seed": 1, "shuffle": 3, **changes})


def keys(samples: ShardStream, count: int) -> list[str]:
    return [s.key for s in islice(samples, count)]


def test_samples_are_what_was_written(shards_dir: Path) -> None:
    samples = list(iterate_shards(str(shards_dir)))
    assert [s.id for s in samples] == [f"s{i:03d}" for i in range(10)]
    written = toy_sample(4, seconds=0.9)
    assert np.abs(samples[4].samples_S - written["audio"]).max() < 1e-4
    assert (samples[4].prompt, samples[4].response, samples[4].choices) == ("High or low?", "high", ("high", "low"))
    for name, frames in written["targets"].items():
        assert np.array_equal(samples[4].targets[name], frames)
    assert "pitch" not in samples[3].targets
    assert samples[5].targets == {}


def test_each_epoch_has_every_sample_once_in_another_order(shards_dir: Path) -> None:
    read = keys(stream(shards_dir), 30)
    epochs = [read[:10], read[10:20], read[20:]]
    assert all(sorted(e) == [f"s{i:03d}" for i in range(10)] for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert read == keys(stream(shards_dir), 30)
    assert read != keys(stream(shards_dir, seed=2), 30)


@pytest.mark.parametrize("shuffle", [1, 3, 100])
def test_resumes_at_every_position(shards_dir: Path, shuffle: int) -> None:
    whole = keys(stream(shards_dir, shuffle=shuffle), 25)
    for stop in range(22):
        first = stream(shards_dir, shuffle=shuffle)
        assert keys(first, stop) == whole[:stop]
        second = stream(shards_dir, shuffle=shuffle)
        second.seek(first.cursor)
        assert keys(second, 25 - stop) == whole[stop:]


def test_ranks_share_an_epoch_without_overlap(shards_dir: Path) -> None:
    index = ShardIndex.read(str(shards_dir))
    parts = [[s.key for s in ShardStream(index, seed=1, shuffle=3, rank=r, ranks=2).read_epoch(0, 0)] for r in (0, 1)]
    assert sorted(parts[0] + parts[1]) == [f"s{i:03d}" for i in range(10)]
    with pytest.raises(InputError, match="3 shards for 4 ranks"):
        ShardStream(index, seed=1, shuffle=3, ranks=4)


def test_a_state_of_other_shards_is_refused(shards_dir: Path) -> None:
    cursor = stream(shards_dir).cursor
    with pytest.raises(InputError, match="changed since this run stopped"):
        stream(shards_dir, seed=5).seek(cursor)


def test_a_cut_tar_and_a_wrong_count_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path, [toy_sample(i) for i in range(3)])
    shard = tmp_path / "shard-00000.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"shard-00000\.tar"):
        list(iterate_shards(str(tmp_path)))
    shard.unlink()
    with pytest.raises(InputError, match="no such shard"):
        list(iterate_shards(str(tmp_path)))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the pickle ran",)


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("member", "data", "reason"),
    [
        ("mel.npy", npy(np.array([Bomb()], dtype=object), allow_pickle=True), "broken_target"),
        ("mel.npy", pickle.dumps(Bomb()), "broken_target"),
        ("mel.npy", npy(np.zeros((3, 5), np.float16)), "wrong_target"),
        ("mel.npy", npy(np.zeros((3, 6), np.float64)), "wrong_target"),
        ("mel.npy", npy(np.zeros((3, 6), np.float16))[:-4], "broken_target"),
        ("flac", b"fLaC", "broken_audio"),
        ("json", b"{", "broken_json"),
        ("json", b"[]", "broken_json"),
    ],
)
def test_broken_members_are_refused(tmp_path: Path, member: str, data: bytes, reason: str) -> None:
    write_shards(tmp_path, [toy_sample(0, raw={member: data})])
    with pytest.raises(BadSample, match="s000") as caught:
        list(iterate_shards(str(tmp_path)))
    assert caught.value.reason == reason


def loader(student: Student, path: Path, count: int = 4, **data: Any) -> Loader:
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=count))
    config = DataConfig.model_validate({"shards": str(path), "batch_size": 2, "shuffle": 3, **data})
    collator = Collator(student, block, ShardIndex.read(str(path)), list(SPECS))
    return Loader(stream(path), collator, config)


def test_threads_never_change_the_order(student: Student, shards_dir: Path) -> None:
    orders = [[b.ids for b in islice(loader(student, shards_dir, workers=w), 12)] for w in (0, 1, 3)]
    assert orders[0] == orders[1] == orders[2]


def test_a_loader_resumes_behind_the_last_batch_given(student: Student, shards_dir: Path) -> None:
    whole = [b.ids for b in islice(loader(student, shards_dir), 12)]
    first = loader(student, shards_dir, workers=3)
    assert [b.ids for b in islice(first, 4)] == whole[:4]  # more was read ahead than given
    second = loader(student, shards_dir)
    second.load_state_dict(first.state_dict())
    assert [b.ids for b in islice(second, 8)] == whole[4:]


def test_labels_are_the_response_alone(student: Student, shards_dir: Path) -> None:
    for batch in islice(loader(student, shards_dir), 5):
        for b in range(len(batch)):
            labelled = batch.labels_BT[b] != -100
            answer = "low" if int(batch.ids[b][1:]) % 2 else "high"
            assert student.tokenizer.decode(batch.labels_BT[b][labelled]) == f"{answer}<|im_end|>"
            assert torch_equal(batch.labels_BT[b][labelled], batch.inputs["input_ids"][b][labelled])
            first = int(labelled.nonzero()[0])
            text = student.tokenizer.decode(batch.inputs["input_ids"][b][:first])
            assert text.endswith("High or low?\nChoices: high, low<|im_end|>\n<|im_start|>assistant\n")
            think = batch.inputs["input_ids"][b][batch.think_BK[b]]
            assert student.tokenizer.convert_ids_to_tokens(think) == [f"<|audio_think_{k}|>" for k in range(4)]


def torch_equal(a: Any, b: Any) -> bool:
    return a.tolist() == b.tolist()


def test_missing_and_unfinite_targets_are_masked(student: Student, tmp_path: Path) -> None:
    samples = [toy_sample(i) for i in range(4)]
    del samples[0]["targets"]["mel"]
    samples[1]["targets"]["mel"][2, 3] = np.nan
    write_shards(tmp_path, samples)
    masks = {}
    for batch in islice(loader(student, tmp_path), 2):
        target = batch.targets["mel"]
        assert target.frames_BND.isfinite().all()
        masks |= {i: target.mask_BN[b] for b, i in enumerate(batch.ids)}
    assert not masks["s000"].any()
    assert masks["s001"].tolist() == [n != 2 for n in range(20)]
    assert masks["s002"].all()


def test_text_alone_is_transcribed_and_targets_alone_are_distilled(student: Student, tmp_path: Path) -> None:
    said = toy_sample(0, meta={"text": "hello"})
    silent = toy_sample(1, meta={})
    empty = toy_sample(2, meta={}, targets={})
    write_shards(tmp_path, [said, silent, empty])
    made = loader(student, tmp_path, batch_size=3)
    batch = next(iter(made))
    b = batch.ids.index("s000")
    assert "Transcribe the speech.<|im_end|>" in student.tokenizer.decode(batch.inputs["input_ids"][b])
    assert student.tokenizer.decode(batch.labels_BT[b][batch.labels_BT[b] != -100]) == "hello<|im_end|>"
    assert (batch.labels_BT[1 - b] == -100).all()
    assert made.skipped == {"nothing_to_learn": 1}


def test_too_long_audio_is_skipped_and_counted_or_raised(student: Student, tmp_path: Path) -> None:
    write_shards(tmp_path, [toy_sample(0, 3.2), toy_sample(1, 1.0), toy_sample(2, 0.012, targets={})])
    lines: list[str] = []
    made = loader(student, tmp_path, batch_size=3)
    made.log = lines.append
    assert next(iter(made)).ids == ("s001",)
    assert made.skipped == {"too_long": 1, "too_short": 1}
    assert any("s000: 3.20 s, but this qwen2_audio hears at most 3 s" in line for line in lines)
    with pytest.raises(UnusableInput):
        next(iter(loader(student, tmp_path, batch_size=3, unusable="raise")))


def test_samples_with_special_tokens_are_skipped(student: Student, tmp_path: Path) -> None:
    write_shards(
        tmp_path,
        [
            toy_sample(0, meta={"prompt": "hear <|AUDIO|>", "response": "a"}),
            toy_sample(1, meta={"prompt": "say", "response": "a<|im_end|>b"}),
            toy_sample(2, meta={"prompt": "say", "response": "<|audio_think_0|>"}),
            toy_sample(3),
        ],
    )
    made = loader(student, tmp_path, batch_size=4)
    assert next(iter(made)).ids == ("s003",)
    assert made.skipped == {"special_token": 3}


def test_shards_without_anything_usable_end_instead_of_looping(student: Student, tmp_path: Path) -> None:
    write_shards(tmp_path, [toy_sample(i, 3.5) for i in range(3)])
    said = (
        r"no sample of a whole epoch can be used \(too_long \d\); build other shards. Last: s00.: .*hears at most 3 s"
    )
    with pytest.raises(BadSample, match=said):
        next(iter(loader(student, tmp_path)))


def test_the_first_epoch_does_not_undo_the_order_that_shards_were_built_in(tmp_path: Path) -> None:
    """numpy takes the seeds 0 and [0, 0, 0, 0] for one: both permutations were the same, one the other's inverse."""
    built = np.argsort(np.random.default_rng(0).permutation(48))  # as pipeline/shards/plan.py deals rows
    folder = write_shards(tmp_path / "shards", [toy_sample(int(i), seconds=0.2) for i in built], per_shard=48)
    stream = ShardStream(ShardIndex.read(str(folder)), seed=0, shuffle=48)
    keys = [next(stream).key for _ in range(48)]
    assert sum(key == f"s{i:03d}" for i, key in enumerate(keys)) < 8
