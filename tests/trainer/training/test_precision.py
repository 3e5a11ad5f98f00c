"""bf16 and torch.compile: the same training, computed otherwise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch._dynamo.utils import counters

from coat.manifests import InputError
from coat.trainer import train
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.test_loop import RARELY, first_batch, new_run, rows_of, weights_of


@pytest.fixture
def bf16() -> Iterator[None]:
    """accelerate keeps one precision for a process, whatever is asked later."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("bf16")
def test_bf16_computes_student_and_heads_in_bfloat16_and_losses_in_float32(student_dir: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [toy_sample(i, 0.5) for i in range(4)])
    data, stages = {"batch_size": 4, "workers": 0}, [{"name": "answer", "steps": 40}]
    run = {**RARELY, "precision": "bf16"}
    config = toy_config(
        student_dir, shards, tmp_path / "a", data=data, stages=stages, optim={"lr": 5e-3, "heads_lr": 5e-3}, run=run
    )
    training = new_run(config, Accelerator(mixed_precision="bf16"))
    seen: dict[str, torch.dtype] = {}
    student = training.model.student.language_model.get_submodule("layers.0.mlp")
    modules = {"student": student, **dict(training.model.heads.groups.items())}

    def watch(name: str, module: torch.nn.Module) -> None:
        def keep(_module: torch.nn.Module, _args: Any, output: torch.Tensor) -> None:
            seen[name] = output.dtype

        module.register_forward_hook(keep)

    for name, module in modules.items():
        watch(name, module)
    losses = training.trainer.forward(first_batch(training), training.model)
    assert len(seen) == 5
    assert set(seen.values()) == {torch.bfloat16}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {p.dtype for p in training.model.trainable().values()} == {torch.float32}
    train(config)
    rows = rows_of(tmp_path / "a")
    assert rows[-1]["ce"] < 0.5 * rows[0]["ce"]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's own, while it traces
def test_compiled_is_the_same_training(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    """With a hook on a layer, held-out evaluation in between, and batches of unlike lengths.

    aot_eager traces forward and backward as inductor has them, and leaves out the half minute of its C++.
    """
    for name in ("plain", "compiled"):
        torch.compiler.reset()
        counters.clear()
        config = toy_config(
            student_dir, shards_dir, tmp_path / name, thinking={"layer": 0}, heads={"experts": ["pitch"]},
            evaluation={"shards": str(shards_dir), "every": 2, "samples": 2, "answers": 2, "max_new_tokens": 2},
            run={**RARELY, "compile": {"plain": None, "compiled": "aot_eager"}[name]},
        )  # fmt: skip
        train(config)
    # Whatever the layer and the lengths, one graph of a layer; of a head's block another one where a pass has a single
    # sample with targets (dynamo takes a size of 1 for a constant).
    assert counters["stats"]["unique_graphs"] == 3
    for a, b in zip(rows_of(tmp_path / "plain"), rows_of(tmp_path / "compiled"), strict=True):
        assert (a.pop("stage"), a) == (b.pop("stage"), pytest.approx(b, rel=1e-3, abs=1e-5))
    assert weights_of(tmp_path / "plain").keys() == weights_of(tmp_path / "compiled").keys()


def test_an_unknown_backend_is_one_line(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run.compile 'fast': torch has no such backend; it has .*inductor"):
        new_run(toy_config(student_dir, shards_dir, tmp_path, run={"compile": "fast"}))
