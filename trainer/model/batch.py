"""What a forward pass takes: the student's inputs, the labels, and the experts' targets.

Where anything stands is known here as indices, made on the host: a device that is asked for it (a boolean index, a
count) would have to be waited for, in each pass.

B batch, T positions of a sequence, K think positions, N frames, D dim, R what there is of a kind in a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from coat.trainer.model.hiding import Hidden

IGNORED = -100  # label of positions without a cross-entropy
AT_AUDIO = "@audio"  # behind an expert's name: its loss at the audio's states, where the block's are distilled as well


def at_audio(expert: str) -> str:
    return expert + AT_AUDIO


def is_at_audio(loss: str) -> bool:
    return loss.endswith(AT_AUDIO)


def expert_of(loss: str) -> str:
    """Whose targets a loss is of."""
    return loss.removesuffix(AT_AUDIO)


@dataclass(frozen=True)
class Targets:
    """One expert's targets of a batch. A sample without them has an empty mask."""

    frames_BND: Tensor  # as stored, not standardised, in the type that it is stored in; 0 where masked
    mask_BN: Tensor  # bool
    rows_R: Tensor = field(default=None, kw_only=True)  # type: ignore[assignment]  # rows with a frame in the mask

    def __post_init__(self) -> None:
        if self.rows_R is None:
            object.__setattr__(self, "rows_R", self.mask_BN.any(1).nonzero()[:, 0])

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> "Targets":
        return Targets(change(self.frames_BND), change(self.mask_BN), rows_R=change(self.rows_R))


@dataclass(frozen=True)
class Batch:
    inputs: dict[str, Tensor]  # what the student's forward takes: input_ids, attention_mask, features
    labels_BT: Tensor  # the answers' ids at their own positions, else IGNORED
    think_BK: Tensor  # positions in T of the states that heads read (`thinking.states`); 0 where masked
    think_mask_BK: Tensor  # bool
    seconds_B: Tensor  # of audio
    targets: dict[str, Targets]
    ids: tuple[str, ...]  # of the samples; a row more than these is silence, see Collator.collate
    indices: dict[str, Tensor] = field(default_factory=dict)  # Student.indices; none: the student makes its own
    before_R: Tensor = field(default=None, kw_only=True)  # type: ignore[assignment]  # see `positions_before`
    # Where `thinking.states` is "both": the same of the audio's states, which heads of their own read.
    audio_BK: Tensor | None = field(default=None, kw_only=True)
    audio_mask_BK: Tensor | None = field(default=None, kw_only=True)
    # Where `thinking.hide_audio` is given: the audio, of all rows; which of them do not hear it is drawn in a pass.
    hidden: Hidden | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.before_R is None:
            object.__setattr__(self, "before_R", positions_before(self.labels_BT))

    def __len__(self) -> int:
        return len(self.ids)

    def counts(self) -> dict[str, int]:
        """What losses are divided by: `ce` label tokens, and frames by expert (and place)."""
        frames = {name: int(t.mask_BN.sum()) for name, t in self.targets.items()}
        if self.audio_BK is not None:
            frames |= {at_audio(name): count for name, count in frames.items()}
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
            targets={k: t.map_tensors(change) for k, t in self.targets.items()},
            indices={k: change(v) for k, v in self.indices.items()},
            before_R=change(self.before_R),
            audio_BK=None if self.audio_BK is None else change(self.audio_BK),
            audio_mask_BK=None if self.audio_mask_BK is None else change(self.audio_mask_BK),
            hidden=self.hidden and self.hidden.map_tensors(change),
        )


def positions_before(labels_BT: Tensor) -> Tensor:
    """Positions, of all B * T, whose next one has a label: a token is predicted from the position before it."""
    labelled_BT = torch.nn.functional.pad(labels_BT[:, 1:] != IGNORED, (0, 1))
    return labelled_BT.flatten().nonzero()[:, 0]
