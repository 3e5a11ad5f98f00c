"""An exponential moving average of what is trained, in float32: smoother weights to evaluate and to export."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from coat.trainer.records.checkpoint_files import AVERAGE


class Ema:
    """`average = d * average + (1 - d) * weights` after each step, d = min(decay, (1 + step) / (10 + step)).

    The smaller d of the first steps forgets the random start, which a constant one would remember for
    1 / (1 - decay) steps. It is a function of the step alone, so a resumed run goes on bit for bit.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.averages = {name: p.detach().float().clone() for name, p in parameters.items()}

    def update(self, step: int) -> None:
        """After step `step`, counted from 1."""
        update_averages = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        weights = [own_part(parameter).detach().float() for parameter in self.parameters.values()]
        update_averages([own_part(average) for average in self.averages.values()], weights, step)

    def tensors(self) -> dict[str, Tensor]:
        """The averages by name, as a checkpoint holds them."""
        return {AVERAGE + name: average for name, average in self.averages.items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the averages for weights; its own come back unchanged."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exact, since what is trained is float32."""
        for name, parameter in self.parameters.items():
            weights = parameter.detach().clone()
            parameter.copy_(self.averages[name])
            self.averages[name].copy_(weights)


def own_part(tensor: Tensor) -> Tensor:
    """Of a sharded one, what this rank holds: an average is of each number by itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
