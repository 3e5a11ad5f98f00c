"""How a run is distributed over ranks, as its launcher says: DDP, FSDP2 of what is frozen, or (`lora.full`) of all.

Under LoRA nearly all memory is frozen weights. So FSDP2 shards those, layer by layer, and what is trained stays whole
on every rank, its gradients averaged here: checkpoints, resume, EMA and export are the same as under DDP.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from coat.manifests import InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.training.full_sharding import shard_trained

SUPPORTED_TYPES = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.FSDP)


def make_accelerator(config: TrainConfig) -> Accelerator:
    """InputError where the launcher asks for what coat does not do."""
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # else all ranks but one would keep random weights
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
    """The model on this rank's device, as it is called in training; trained parameters stay the same objects."""
    plugin = fsdp_plugin(accelerator)
    if plugin is None:
        return accelerator.prepare(model)
    shard = shard_trained if trains_all(model) else shard_frozen
    shard(model, accelerator, plugin)
    return model.to(accelerator.device)


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
        "offload_policy": plugin.cpu_offload,
    }
    stack = model.student.language_model
    for layer in cast(nn.ModuleList, stack.layers):
        fully_shard(layer, ignored_params={p for p in layer.parameters() if p.requires_grad}, **settings)
    # The stack itself shards nothing: as the root of its layers it lets the next one be gathered while one computes.
    fully_shard(stack, ignored_params={p for p in stack.parameters() if not hasattr(p, "device_mesh")}, **settings)


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
