"""Student, thinking block and heads as one module: what is trained.

B batch, T positions of a sequence, R response tokens of a batch, K think positions, D dim.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coat.trainer.model.batch import Batch, at_audio
from coat.trainer.model.heads import DistillHeads
from coat.trainer.model.hiding import causal_mask
from coat.trainer.model.loss_gradient_norms import LossGradientNorms
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student

STUDENT_PREFIX = "network."  # before the name of the student's weights


class CoatModel(nn.Module):
    """Gives *sums* of losses, so that the caller can divide by counts over accumulation and ranks."""

    def __init__(
        self, student: Student, block: ThinkingBlock, heads: DistillHeads, audio_heads: DistillHeads | None = None
    ) -> None:
        """`heads` read the states that `thinking.states` names; where it is "both" the block's, and `audio_heads` the
        audio's.
        """
        super().__init__()
        self.student, self.block = student, block
        # Its weights are this module's, under the name that they have in checkpoints.
        self.register_module(STUDENT_PREFIX.rstrip("."), student.model)
        self.heads, self.audio_heads = heads, audio_heads
        self.layer = block.config.layer
        self.loss_gradient_norms = LossGradientNorms()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`ce` and each expert's loss, summed over its tokens or frames."""
        states_BTD, distilled_BTD = self.states(batch.inputs, batch.indices, self.drawn_mask(batch))
        sums = {"ce": self.cross_entropy(states_BTD, batch.labels_BT, batch.before_R)}
        if self.heads.specs:
            sums |= self.distil(self.heads, distilled_BTD, batch.think_BK, batch.think_mask_BK, batch)
        if self.audio_heads is not None and batch.audio_BK is not None and batch.audio_mask_BK is not None:
            sums |= self.distil(self.audio_heads, distilled_BTD, batch.audio_BK, batch.audio_mask_BK, batch, at_audio)
        return sums

    def distil(
        self,
        heads: DistillHeads,
        states_BTD: Tensor,
        positions_BK: Tensor,
        mask_BK: Tensor,
        batch: Batch,
        loss_name: Callable[[str], str] = lambda expert: expert,
    ) -> dict[str, Tensor]:
        """By the loss's name: the sum of each expert's loss, by its head at some positions."""
        states_BKD = states_BTD.gather(1, positions_BK[..., None].expand(-1, -1, states_BTD.shape[-1])).float()
        if heads.config.detach:  # a leaf of its own, so that what heads would teach is still measured
            states_BKD = states_BKD.detach().requires_grad_(torch.is_grad_enabled())
        watch = self.loss_gradient_norms.watch
        # Under autocast heads multiply in bf16, as the student does; their losses are float32.
        sums = heads(
            states_BKD, mask_BK, batch.seconds_B, batch.targets, lambda expert, states: watch(loss_name(expert), states)
        )
        return {loss_name(expert): loss for expert, loss in sums.items()}

    def drawn_mask(self, batch: Batch) -> Tensor | None:
        """In training, `thinking.hide_audio`: hides the audio from what is behind the block, in rows that are drawn.

        By torch's generator, whose state is in checkpoints, and on the host, so that any device draws the same.
        """
        if batch.hidden is None or not self.training:
            return None
        rows, positions = batch.labels_BT.shape
        drawn_B = (torch.rand(rows) < self.block.config.hide_audio).to(batch.labels_BT.device, non_blocking=True)
        return batch.hidden.of(drawn_B).within(causal_mask(positions, batch.labels_BT.device))

    def states(
        self,
        inputs: Mapping[str, Tensor],
        indices: Mapping[str, Tensor] | None = None,
        mask_B1TT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The last hidden states, and those that are distilled (`thinking.layer`), `[B, T, D]` each."""
        if self.layer is None:
            states_BTD = self.student.hidden_states(inputs, indices, mask_B1TT)
            return states_BTD, states_BTD
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            kept.append(output[0] if isinstance(output, tuple) else output)

        # A hook keeps one layer's states; `output_hidden_states` would keep them all.
        handle = cast(nn.ModuleList, self.student.language_model.layers)[self.layer].register_forward_hook(keep)
        try:
            states_BTD = self.student.hidden_states(inputs, indices, mask_B1TT)
        finally:
            handle.remove()
        return states_BTD, kept[0]

    def cross_entropy(self, states_BTD: Tensor, labels_BT: Tensor, before_R: Tensor) -> Tensor:
        """Logits are made at the positions before response tokens (`before_R`) alone: never over audio or block."""
        if not len(before_R):  # every rank must reach every weight
            return self.student.logits(states_BTD[:1, :1]).float().sum() * 0
        states_RD = self.loss_gradient_norms.watch("ce", states_BTD.flatten(0, 1).index_select(0, before_R))
        logits_RV = self.student.logits(states_RD).float()
        return F.cross_entropy(logits_RV, labels_BT.flatten().index_select(0, before_R + 1), reduction="sum")

    def named_heads(self) -> dict[str, DistillHeads]:
        """By their names in checkpoints."""
        return {"heads": self.heads} | ({} if self.audio_heads is None else {"audio_heads": self.audio_heads})

    def trainable(self) -> dict[str, nn.Parameter]:
        """By name, in the module's order: what a checkpoint holds."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}
