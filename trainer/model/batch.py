"""What a forward pass takes: the student's inputs, the labels, and the experts' targets.

B batch, T positions of a sequence, K think positions, N frames, D dim.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORED = -100  # label of positions without a cross-entropy


@dataclass(frozen=True)
class Targets:
    """One expert's targets of a batch. A sample without them has an empty mask."""

    frames_BND: Tensor  # as stored, not standardised; 0 where masked
    mask_BN: Tensor  # bool


@dataclass(frozen=True)
class Batch:
    inputs: dict[str, Tensor]  # what the student's forward takes: input_ids, attention_mask, features
    labels_BT: Tensor  # the answers' ids at their own positions, else IGNORED
    think_BK: Tensor  # positions in T of the states that heads read (`thinking.states`); 0 where masked
    think_mask_BK: Tensor  # bool
    seconds_B: Tensor  # of audio
    targets: dict[str, Targets]
    ids: tuple[str, ...]  # of the samples; a row more than these is silence, see Collator.collate

    def __len__(self) -> int:
        return len(self.ids)

    def counts(self) -> dict[str, int]:
        """What losses are divided by: `ce` label tokens, and frames by expert."""
        frames = {name: int(t.mask_BN.sum()) for name, t in self.targets.items()}
        return {"ce": int((self.labels_BT != IGNORED).sum()), **frames}

    @property
    def positions(self) -> tuple[int, int]:
        """Of all sequences: without padding, and with it."""
        mask_BT = self.inputs["attention_mask"]
        return int(mask_BT.sum()), mask_BT.numel()

    def to(self, device: torch.device | str) -> "Batch":
        """A copy there; from pinned memory it goes on while the device computes."""
        return self.map_tensors(lambda t: t.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        return self.map_tensors(Tensor.pin_memory)

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(
            self,
            inputs={k: change(v) for k, v in self.inputs.items()},
            labels_BT=change(self.labels_BT),
            think_BK=change(self.think_BK),
            think_mask_BK=change(self.think_mask_BK),
            seconds_B=change(self.seconds_B),
            targets={k: Targets(change(t.frames_BND), change(t.mask_BN)) for k, t in self.targets.items()},
        )
