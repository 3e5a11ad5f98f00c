"""What is measured in a step beside its losses: norms of gradients, and memory."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from coat.trainer.model.parameters import model_part
from coat.trainer.training.distributed.full_sharding import total_norm

PROCESS_STATUS = Path("/proc/self/status")  # of Linux


def gradient_norms(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """`grad_norm/<group>`: lora, rows (of think tokens), student (`lora.full`), and each expert's head.

    They are still on the device.
    """
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            groups.setdefault(f"grad_norm/{model_part(name)}", []).append(parameter.grad)
    return {name: total_norm(gradients) for name, gradients in groups.items()}


def peak_memory(device: torch.device) -> float:
    """GiB of this process since it began: of the GPU's allocator, or resident memory where there is no GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if PROCESS_STATUS.exists():  # getrusage's peak begins at the parent's: Linux keeps it over fork and exec
        lines = PROCESS_STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (2**30 if sys.platform == "darwin" else 2**20)
