"""FSDP2 of a student that is trained whole (`lora.full`): weights, gradients and optimizer are shared out over ranks.

Weights are float32 where they lie, and bf16 where they are gathered to be computed with, if `run.precision` is that.
Heads are small and stay whole on every rank; their gradients are averaged as under LoRA (parallel.py).
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from coat.trainer.model.coat_model import CoatModel


def shard_trained(model: CoatModel, accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin) -> None:
    """Each rank holds its part of every weight of the student; they are whole only while they are computed with.

    The units that are gathered at once: a layer of the language model or of the audio tower, and each module beside
    them that has weights of its own. So each is whole whenever it is called, in a step or in `generate`.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    computes_in = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    settings: dict[str, Any] = {
        "mesh": init_device_mesh(accelerator.device.type, (accelerator.num_processes,)),
        "reshard_after_forward": plugin.reshard_after_forward,
        "offload_policy": plugin.cpu_offload,
        # Inputs are autocast's; sums over ranks are float32.
        "mp_policy": MixedPrecisionPolicy(computes_in, torch.float32, cast_forward_inputs=False),
    }
    frozen = {p for p in model.student.model.parameters() if not p.requires_grad}
    for unit in units(model):
        fully_shard(unit, ignored_params=frozen, **settings)
    # The root shards nothing of its own, and begins each step: units that follow are gathered while one computes.
    rest = {p for p in model.parameters() if not isinstance(p, DTensor)}
    fully_shard(model, ignored_params=rest, **settings)


def units(model: CoatModel) -> list[nn.Module | list[nn.Module]]:
    """Inner ones first, as `fully_shard` wants them."""
    student = model.student.model
    stacks = [model.student.language_model.layers, *(m for m in student.modules() if is_tower_stack(m))]
    layers = list(dict.fromkeys(layer for stack in stacks for layer in cast(nn.ModuleList, stack)))
    inside = {module for layer in layers for module in layer.modules()}
    owners = [
        module
        for module in student.modules()
        if module not in inside and any(p.requires_grad for p in module.parameters(recurse=False))
    ]
    return [*layers, *with_tied_together(owners)]


def is_tower_stack(module: nn.Module) -> bool:
    """The layers of an audio tower: a list of modules of one class, that is trained."""
    return (
        isinstance(module, nn.ModuleList)
        and len({type(layer) for layer in module}) == 1
        and any(p.requires_grad for p in module.parameters())
    )


def with_tied_together(owners: Iterable[nn.Module]) -> list[nn.Module | list[nn.Module]]:
    """Modules that share a weight are one unit: tied embeddings."""
    groups: dict[int, list[nn.Module]] = {}
    for module in owners:
        key = min(id(p) for p in module.parameters(recurse=False))
        groups.setdefault(key, []).append(module)
    return [group[0] if len(group) == 1 else group for group in groups.values()]


def is_sharded(tensors: Iterable[Tensor]) -> bool:
    return any(isinstance(tensor, DTensor) for tensor in tensors)


def whole(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Gathered one by one, on the CPU, where they are to be kept. All ranks must call it."""
    found = {}
    for name, tensor in tensors.items():
        gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            found[name] = gathered.detach().cpu()
    return found


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Of weights that are sharded in part: the norm of all before they were clipped. All ranks must call it."""
    trained = list(parameters)
    gradients = {
        sharded: [p for p in trained if p.grad is not None and isinstance(p.grad, DTensor) is sharded]
        for sharded in (True, False)
    }
    norms = [total_norm([cast(Tensor, p.grad) for p in group]) for group in gradients.values() if group]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    for group in gradients.values():
        torch.nn.utils.clip_grads_with_norm_(group, limit, norm)
    return norm


def total_norm(gradients: list[Tensor]) -> Tensor:
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
