"""What a night of training trips over: poisonous samples, texts without end, checkpoints that stay, runs that end."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from coat.manifests import InputError
from coat.trainer import train
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.stream import ShardStream
from coat.trainer.run_folder import read_metrics
from coat.trainer.students.base import Student
from coat.trainer.training.checkpointing.checkpoints import Checkpoints
from coat.trainer.training.distributed.parallel import make_accelerator
from tests.disks import mounted
from tests.trainer.data.test_data import loader
from tests.trainer.helpers import RATE, toy_config, toy_sample, write_shards


def float_wav(samples_S: np.ndarray) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples_S, RATE, format="WAV", subtype="FLOAT")
    return out.getvalue()


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """Six samples, of which s002 has a NaN in its audio."""
    samples = [toy_sample(i) for i in range(6)]
    audio_S = samples[2]["audio"].copy()
    audio_S[100] = np.nan
    samples[2]["audio"] = np.zeros(0, np.float32)  # no FLAC, which has no NaN
    samples[2]["meta"]["duration"] = len(audio_S) / RATE
    samples[2]["raw"] = {"wav": float_wav(audio_S)}
    return write_shards(tmp_path / "shards", samples)


def test_a_clip_with_a_nan_is_left_out_and_the_run_ends_well(student_dir: Path, poisoned: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    done = train(toy_config(student_dir, poisoned, tmp_path / "run", steps=8), log=lines.append)
    assert done.finished
    assert done.skipped["not_finite"] > 0
    assert any("s002" in line and "NaN or infinite samples" in line for line in lines)
    rows = read_metrics(tmp_path / "run")
    assert rows[-1]["skipped/not_finite"] == done.skipped["not_finite"]
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_samples_are_left_out_by_their_ids(student: Student, shards_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("s004\n\n s009 \n")
    made = loader(student, shards_dir, exclude=("s001",), exclude_file=str(tmp_path / "ids.txt"), unusable="raise")
    batches = iter(made)
    heard = {i for _ in range(20) for i in next(batches).ids}
    assert heard == {f"s{i:03d}" for i in range(10)} - {"s001", "s004", "s005", "s009"} | ({"s005"} & heard)
    assert made.skipped["excluded"] >= 3
    with pytest.raises(InputError, match=r"exclude_file none\.txt: no such file"):
        loader(student, shards_dir, exclude_file="none.txt")


def test_poison_may_be_left_out_on_resume(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "run", steps=4)
    train(config, stop=lambda: True)
    changed = toy_config(student_dir, shards_dir, tmp_path / "run", steps=4, data={"exclude": ["s001"]})
    with pytest.raises(InputError, match="--change to go on with it"):
        train(changed)
    assert train(changed, change=True).finished


def test_sequences_that_are_too_long_are_left_out_and_never_cut(student: Student, tmp_path: Path) -> None:
    samples = [toy_sample(i) for i in range(4)]
    samples[1]["meta"]["response"] = "high " * 10_000
    path = write_shards(tmp_path / "shards", samples)
    assert student.max_positions is not None
    made = loader(student, path)  # the student's own limit
    widest = max(next(iter(made)).labels_BT.shape[1] for _ in range(6))
    assert widest <= student.max_positions
    assert made.skipped == {"too_many_tokens": made.skipped["too_many_tokens"]}
    short = loader(student, path, max_tokens=10, unusable="raise")
    with pytest.raises(InputError, match=r"positions; 10 fit \(data\.max_tokens\)"):
        next(iter(short))


def test_targets_of_experts_that_are_not_trained_are_not_decoded(student_dir: Path, tmp_path: Path) -> None:
    samples = [toy_sample(i) for i in range(4)]
    for sample in samples:
        sample["raw"] = {"events.npy": b"no array"}
    path = write_shards(tmp_path / "shards", samples)
    trained = train(toy_config(student_dir, path, tmp_path / "one", steps=2, heads={"experts": ["mel", "pitch"]}))
    assert trained.finished
    assert trained.skipped == {}
    with pytest.raises(InputError, match="no sample of a whole epoch can be used"):
        train(toy_config(student_dir, path, tmp_path / "all", steps=2))


def test_the_identity_of_a_stream_is_computed_once(shards_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coat.manifests import ShardIndex
    from coat.trainer.data import stream

    calls: list[int] = []
    dumps = json.dumps
    monkeypatch.setattr(stream.json, "dumps", lambda value: calls.append(1) or dumps(value))
    made = ShardStream(ShardIndex.read(str(shards_dir)), seed=0, shuffle=4)
    cursors = [(next(made), made.cursor)[1] for _ in range(20)]
    assert len({c.identity for c in cursors}) == 1
    assert len(calls) == 1


def test_an_old_checkpoint_that_cannot_be_removed_stops_no_run(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    """A mount in it is busy for the kernel, as a file is that an NFS client has open."""
    config = toy_config(student_dir, shards_dir, tmp_path / "run", steps=4, run={"save_every": 1, "keep": 1})
    train(toy_config(student_dir, shards_dir, tmp_path / "run", steps=4, run={"save_every": 1, "keep": 1}), stop=once())
    old = tmp_path / "run/checkpoints/step-00000001"
    assert old.is_dir()
    lines: list[str] = []
    with mounted(old / "busy", "1m"):
        done = train(config, log=lines.append)
    assert done.finished
    assert any("step-00000001: could not be removed" in line for line in lines)
    kept = Checkpoints(tmp_path / "run/checkpoints", 1, make_accelerator(config), lines.append)
    assert kept.newest() == tmp_path / "run/checkpoints/step-00000004"


def once() -> Callable[[], bool]:
    return lambda: True


def longer(student_dir: Path, shards_dir: Path, out: Path, steps: int, **parts: Any) -> TrainConfig:
    stages = [{"name": "distill", "steps": 2, "ce": 0.1}, {"name": "answer", "steps": steps - 2}]
    return toy_config(student_dir, shards_dir, out, stages=stages, **parts)


def test_a_finished_run_is_extended(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(longer(student_dir, shards_dir, out, 4))
    before = (out / "config.toml").read_text()
    with pytest.raises(InputError, match=r"this run is finished, at step 4, and nothing is left to train"):
        train(longer(student_dir, shards_dir, out, 4, optim={"lr": 5e-4}), change=True)
    with pytest.raises(InputError, match=r"this run is finished, at step 4"):
        train(longer(student_dir, shards_dir, out, 3), change=True)
    assert (out / "config.toml").read_text() == before  # the record is true
    assert json.loads((out / "done.json").read_text())["step"] == 4
    done = train(longer(student_dir, shards_dir, out, 7), change=True)
    assert (done.step, done.finished) == (7, True)
    assert [row["step"] for row in read_metrics(out)] == list(range(1, 8))
    assert json.loads((out / "done.json").read_text())["step"] == 7
    assert TrainConfig.read(str(out / "config.toml")).steps == 7


def test_batches_may_become_smaller_on_resume(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """And the window that is in hand begins anew, with a line."""
    data = {"batch_size": 2, "batch_tokens": 400, "shuffle": 8}
    run = tmp_path / "run"
    train(toy_config(student_dir, shards_dir, run, steps=6, data=data), stop=once())
    lines: list[str] = []
    smaller = toy_config(
        student_dir,
        shards_dir,
        run,
        steps=6,
        data={**data, "batch_size": 1},
        run={"accumulate": 2, "gradient_checkpointing": True},
    )
    assert train(smaller, change=True, log=lines.append).finished
    assert any("changed from here on: data.batch_size: 2 -> 1" in line for line in lines)
    assert any("batches are of 1 samples, 400 tokens from here on" in line for line in lines)
