"""The optimizer and random state of a checkpoint: written, and put back exactly. Weights: model/saved_weights.py."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coat.manifests import RunError
from coat.trainer.model.saved_weights import load_shards, shard_names
from coat.trainer.records.checkpoint_files import OPTIMIZER_FILE

MOMENT = "optimizer."  # before the name of a tensor of the optimizer in a sharded checkpoint


def save_tensors(value: Mapping[str, Any], path: Path) -> None:
    """Tensors and numbers, by way of memory: where the disk is full, torch.save's own error does not say so."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getbuffer())


def moments(optimizer: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of an optimizer's state by name, as a sharded checkpoint holds them."""
    names = {i: n for g in optimizer["param_groups"] for i, n in zip(g["params"], g["param_names"], strict=True)}
    return {
        f"{MOMENT}{names[i]}.{key}": tensor
        for i, values in optimizer["state"].items()
        for key, tensor in values.items()
    }


def load_moments(checkpoint: Path, trainable: Mapping[str, Tensor]) -> dict[str, Any]:
    """An optimizer's state of a sharded checkpoint, as each rank holds its part of it."""
    tensors: dict[str, Tensor] = {}
    for key in shard_names(checkpoint):
        if key.startswith(MOMENT):
            name, _, moment = key.removeprefix(MOMENT).rpartition(".")
            if name not in trainable:
                raise RunError(f"{checkpoint}: the optimizer's state does not fit the model: it has {name}")
            weights = trainable[name].detach()
            tensors[key] = torch.zeros(()) if moment == "step" else torch.zeros_like(weights)
    load_shards(checkpoint, tensors)
    state: dict[int, dict[str, Tensor]] = {}
    names = list(trainable)
    for key, tensor in tensors.items():
        name, _, moment = key.removeprefix(MOMENT).rpartition(".")
        state.setdefault(names.index(name), {})[moment] = tensor
    return {"state": state, "param_groups": [{"params": list(range(len(names))), "param_names": names}]}


def load_optimizer(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint / OPTIMIZER_FILE, weights_only=True, map_location="cpu")


def random_state_file(checkpoint: Path, rank: int) -> Path:
    return checkpoint / f"rank-{rank}.pt"


def random_state() -> dict[str, Any]:
    """Of this rank, and of the one GPU that it uses."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(checkpoint: Path, rank: int, seed: int) -> None:
    """Of a rank that wrote the checkpoint; a new one begins with `seed`."""
    if not random_state_file(checkpoint, rank).exists():
        torch.manual_seed(seed)
        return
    state = torch.load(random_state_file(checkpoint, rank), weights_only=True)
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        # Checkpoints of before have the states of all GPUs that were visible to the rank; fewer may be now.
        device = torch.cuda.current_device()
        torch.cuda.set_rng_state(state["cuda"][device if device < len(state["cuda"]) else 0])
