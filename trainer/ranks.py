"""What the ranks of a run tell each other. A rank is one process of it; all of them call these together."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object


def summed(accelerator: Accelerator, values: Sequence[float]) -> list[float]:
    """Sums over ranks, in double precision."""
    if accelerator.num_processes == 1:
        return [float(v) for v in values]
    tensor = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    return accelerator.reduce(tensor, "sum").tolist()  # type: ignore[union-attr]


def gathered(accelerator: Accelerator, rows: list[Any]) -> list[Any]:
    """The lists of all ranks, one behind another."""
    return gather_object(rows) if accelerator.num_processes > 1 else rows
