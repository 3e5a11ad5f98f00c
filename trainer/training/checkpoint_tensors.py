"""Tensors and random state of a checkpoint: written, and put back exactly."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coat.manifests import RunError

WEIGHTS_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.pt"


def save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, file)


def load_weights(file: Path, parameters: Mapping[str, Tensor]) -> None:
    """Copy a file's tensors into the parameters. RunError where names or shapes are not exactly the same."""
    tensors = load_file(file)
    if wrong := sorted(set(tensors) ^ set(parameters)):
        raise RunError(
            f"{file}: weights do not fit the model: {wrong[0]} and {len(wrong) - 1} more are on one side only"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                raise RunError(f"{file}: {name} is {list(tensors[name].shape)}, the model's {list(parameter.shape)}")
            parameter.copy_(tensors[name])


def save_tensors(value: Mapping[str, Any], path: Path) -> None:
    """Tensors and numbers, by way of memory: where the disk is full, torch.save's own error does not say so."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    path.write_bytes(buffer.getbuffer())


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
