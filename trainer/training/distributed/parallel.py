"""How a run is distributed over ranks, as its launcher says: DDP, FSDP2 of what is frozen, or (`lora.full`) of all.

Under LoRA nearly all memory is frozen weights. So FSDP2 shards those, layer by layer, and what is trained stays whole
on every rank, its gradients averaged here: checkpoints, resume, EMA and export are the same as under DDP.

The main rank alone reads the student. The others build it without weights (`build_model(empty=True)`), and are sent
their parts of it, tensor by tensor: a host holds one copy, however many ranks it has.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, broadcast_object_list, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from coat.manifests import InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.thinking import is_tied
from coat.trainer.training.distributed.full_sharding import shard_trained

SUPPORTED_TYPES = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """InputError where the launcher asks for what coat does not do."""
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # accelerate's own would leave random weights: see above
    if not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"  # else ranks on CPUs would not know of each other
    AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
    accelerator = Accelerator(mixed_precision=mixed_precision(config))
    if accelerator.distributed_type not in SUPPORTED_TYPES:
        raise InputError(f"{accelerator.distributed_type.value}: coat trains with DDP or FSDP2 alone")
    plugin = fsdp_plugin(accelerator)
    if plugin is not None and plugin.fsdp_version != 2:
        raise InputError("FSDP 1: coat shards with FSDP2 alone: accelerate launch --use_fsdp --fsdp_version 2")
    if plugin is not None and config.student.quantize:
        raise InputError("student.quantize with FSDP: weights in 4 bits are not shared out; launch without --use_fsdp")
    if plugin is not None and isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        raise InputError("FSDP's offload to the CPU is not done here; launch without --fsdp_offload_params")
    return accelerator


def mixed_precision(config: TrainConfig) -> str:
    """bf16 only where a GPU has it: on CPUs it is slower than float32."""
    if config.run.precision != "auto":
        return config.run.precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def fsdp_plugin(accelerator: Accelerator) -> FullyShardedDataParallelPlugin | None:
    """The launcher's settings of FSDP, or None. On CPUs accelerate itself ignores them."""
    if accelerator.distributed_type == DistributedType.FSDP:
        return accelerator.state.fsdp_plugin
    wanted = accelerator.distributed_type == DistributedType.MULTI_CPU and parse_flag_from_env("ACCELERATE_USE_FSDP")
    return FullyShardedDataParallelPlugin() if wanted else None


def distribute(model: CoatModel, accelerator: Accelerator) -> Callable[..., Any]:
    """The model on this rank's device, as it is called in training; where it is sharded, with new parameters."""
    plugin = fsdp_plugin(accelerator)
    if plugin is None:
        return accelerator.prepare(model)
    read = tensors_of(model) if accelerator.is_main_process else {}
    tie = trains_all(model) and is_tied(model.student.model)  # what is trained in two places is one weight
    shard = shard_trained if trains_all(model) else shard_frozen
    model.to("meta")
    if tie:
        model.student.model.tie_weights()
    shard(model, accelerator, plugin)
    model.to_empty(device=accelerator.device)
    if tie:
        model.student.model.tie_weights()
    send_weights(model, read, accelerator)
    return model


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All of them: those that no checkpoint has, too, and tied ones under each of their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def trains_all(model: CoatModel) -> bool:
    """`lora.full`: there is nothing frozen to share out, but what is trained."""
    return model.student.peft_model is None


def shard_frozen(model: CoatModel, accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin) -> None:
    """Each rank holds its part of a layer's frozen weights; they are whole only while the layer is computed."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    settings: dict[str, Any] = {
        "mesh": init_device_mesh(accelerator.device.type, (accelerator.num_processes,)),
        "reshard_after_forward": plugin.reshard_after_forward,
    }
    stack = model.student.language_model
    for layer in cast(nn.ModuleList, stack.layers):
        fully_shard(layer, ignored_params={p for p in layer.parameters() if p.requires_grad}, **settings)
    # The stack itself shards nothing: as the root of its layers it lets the next one be gathered while one computes.
    fully_shard(stack, ignored_params={p for p in stack.parameters() if not hasattr(p, "device_mesh")}, **settings)


@torch.no_grad()
def send_weights(model: CoatModel, read: dict[str, Tensor], accelerator: Accelerator) -> None:
    """Fill the tensors of all ranks with those that the main rank has read, each rank its part of what is sharded."""
    kinds = [[(name, t.shape, t.dtype) for name, t in read.items()]]
    broadcast_object_list(kinds)
    own = tensors_of(model)
    assert own.keys() == {name for name, _, _ in kinds[0]}, own.keys() ^ {name for name, _, _ in kinds[0]}
    for name, shape, dtype in kinds[0]:
        tensor, device = own[name], accelerator.device
        whole = read.pop(name).to(device) if read else torch.empty(shape, dtype=dtype, device=device)
        dist.broadcast(whole.contiguous(), 0)
        if isinstance(tensor, DTensor):
            part = distribute_tensor(whole, tensor.device_mesh, tensor.placements, src_data_rank=None)
            tensor.to_local().copy_(part.to_local())
        else:
            tensor.copy_(whole)


@contextmanager
def whole_weights(model: CoatModel, accelerator: Accelerator) -> Iterator[None]:
    """Within, each rank has all weights, gathered once: it computes, and generates, without waiting for others.

    A GPU must hold them, as under DDP.
    """
    plugin = fsdp_plugin(accelerator)
    layers = [m for m in model.modules() if isinstance(m, FSDPModule)] if plugin else []
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
        layer.unshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.reshard()
            layer.set_reshard_after_forward(bool(plugin and plugin.reshard_after_forward), recurse=False)


@torch.no_grad()
def average_gradients(accelerator: Accelerator, parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over ranks, in one call: what DDP does where weights are not sharded."""
    # The same parameters on all ranks: the model reaches every weight. Those of sharded weights are averaged already.
    gradients = [cast(Tensor, p.grad) for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    if not gradients:
        return
    flat = cast(Tensor, accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean"))
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
