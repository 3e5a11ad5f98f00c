"""Weights in a file, or in files of ranks: what is trained, by name, written and put back exactly."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed import is_initialized
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from coat.manifests import RunError


def save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, file)


def save_shards(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Each rank writes its part of them, as `shard-<rank from 1>-*.safetensors`. All ranks must call it."""
    with failures_of_ranks():
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def load_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `save_shards` wrote, on any number of ranks, which all must call it, or in one process.

    RunError where one is not there.
    """
    reader = HuggingFaceStorageReader(str(folder))
    if missing := sorted(set(tensors) - set(shard_names(folder))):
        raise RunError(f"{folder}: weights do not fit the model: {missing[0]} and {len(missing) - 1} more are missing")
    with failures_of_ranks(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # that is meant
        load(dict(tensors), storage_reader=reader, no_dist=not is_initialized())


def shard_names(folder: Path) -> list[str]:
    """Names of the tensors that `save_shards` wrote."""
    return list(HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata)


@contextmanager
def failures_of_ranks() -> Iterator[None]:
    """Raise what failed, on all ranks alike, instead of torch's collection of it."""
    try:
        yield
    except CheckpointException as e:
        raise next(iter(e.failures.values()))[0] from e


def load_weights(file: Path, parameters: Mapping[str, Tensor], ignored: Callable[[str], bool] | None = None) -> None:
    """Copy a file's tensors, but `ignored` ones, into the parameters.

    RunError where names or shapes are not exactly the same: weights are never put back in part.
    """
    tensors = {name: tensor for name, tensor in load_file(file).items() if ignored is None or not ignored(name)}
    put_back(tensors, parameters, str(file))


@torch.no_grad()
def put_back(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor], source: str) -> None:
    if wrong := sorted(set(tensors) ^ set(parameters)):
        raise RunError(
            f"{source}: weights do not fit the model: {wrong[0]} and {len(wrong) - 1} more are on one side only"
        )
    for name, parameter in parameters.items():
        if parameter.shape != tensors[name].shape:
            raise RunError(f"{source}: {name} is {list(tensors[name].shape)}, the model's {list(parameter.shape)}")
        parameter.copy_(as_part_of(parameter, tensors[name]))


def as_part_of(parameter: Tensor, whole: Tensor) -> Tensor:
    """A whole tensor, shared out over ranks as the parameter is; each rank has all of it, and sends nothing."""
    if not isinstance(parameter, DTensor) or not whole.ndim:
        return whole
    whole = whole.to(parameter.device)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
