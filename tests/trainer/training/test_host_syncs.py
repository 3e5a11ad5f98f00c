"""What the host asks of the device in a step: a device that must answer is waited for, and stands still meanwhile.

On CPUs nothing waits, but the operations that would are the same: they are counted by torch's profiler, and named with
their place.
"""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode, resolve_name
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from coat.trainer.training.step.schedule import loss_weights
from tests.trainer.helpers import toy_config
from tests.trainer.training.test_loop import RARELY, first_batch, new_run

# Operators whose result, or its size, is a number that the host needs.
ASKING = {
    "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal",
    "aten::unique_dim", "aten::_unique2", "aten::unique_consecutive", "aten::bincount",
}  # fmt: skip
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}  # by a mask, too
READING = {"tolist", "numpy", "cpu", "__array__"}  # methods that copy to the host
# What asks on CPUs alone, and is a kernel on GPUs: fused AdamW reads its count of steps, and the grouped product of a
# mixture of experts (Qwen3-Omni's) the bounds of its groups: once for each expert, in 2 products a layer.
OF_CPUS = {"aten::_fused_adamw_", "aten::_grouped_mm"}


class Places(TorchDispatchMode):
    """Where operators that ask are called from, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        indices = [i for i in args[1] if i is not None] if name in INDEXING else []
        if name in ASKING or any(i.dtype in (torch.bool, torch.uint8) for i in indices):
            self.found[f"{name} {place()}"] += 1
        return func(*args, **(kwargs or {}))


class Readings(TorchFunctionMode):
    """Where tensors are copied to the host: on CPUs no operator shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (resolve_name(func) or "").rpartition(".")[2] in READING:
            self.found[f"{resolve_name(func)} {place()}"] += 1
        return func(*args, **(kwargs or {}))


def asking(profiled: profile) -> Counter[str]:
    """Operators that ask, by name and by those that call them."""
    found: Counter[str] = Counter()
    for event in profiled.events() or ():
        callers, caller = [], event.cpu_parent
        while caller is not None:
            callers.append(caller.name)
            caller = caller.cpu_parent
        if event.name in ASKING and not OF_CPUS & set(callers):
            found[" < ".join([event.name, *callers])] += 1
    return found


def place() -> str:
    """The innermost lines that are not torch's own."""
    frames = [f for f in traceback.extract_stack() if "/torch/" not in f.filename and f.filename != __file__]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames[-4:]))


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_a_step_waits_for_the_device_once(folder: Path, shards_dir: Path, tmp_path: Path, full: bool) -> None:
    data = {"batch_size": 8, "shuffle": 8}
    config = toy_config(folder, shards_dir, tmp_path, lora={"full": full}, data=data, run=RARELY, optim={"ema": 0.9})
    training = new_run(config)
    trainer, batch = training.trainer, first_batch(training)
    assert len(batch) == 8
    assert {len(t.rows_R) for t in batch.targets.values()} != {8}  # some have no target
    training.model.train()
    trainer.step([batch])  # what is made but once
    weights = loss_weights(config.stages[0], 1, trainer.expert_weights)
    counts = {name: float(count) for name, count in batch.counts().items()}

    def step() -> None:
        batches = [batch, batch]
        found = trainer.measure(trainer.backward(batches, counts, weights), list(weights), batches)
        assert trainer.update(1.0, found, batch.ids)

    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    with Places() as places, Readings() as readings:
        step()
    assert places.found == {}
    assert asking(profiled) == {}
    (where,) = readings.found
    assert " measure <" in where  # what is logged, in one piece
    assert readings.found[where] == 1
