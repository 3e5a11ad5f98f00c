"""What some positions do not attend to: columns of the attention mask.

B rows, T positions of a row, Q queries of a pass, C columns (keys) that it attends to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coat.trainer.config.sections import ThinkingConfig


@dataclass(frozen=True)
class Hidden:
    columns_BT: Tensor  # bool: what is hidden
    from_B: Tensor  # from positions from here on

    def within(self, mask_B1QC: Tensor) -> Tensor:
        """The mask without them. Queries are the last of the columns, as with a cache of what was before."""
        queries, columns = mask_B1QC.shape[-2:]
        at_Q = torch.arange(columns - queries, columns, device=mask_B1QC.device)
        hidden_BC = nn.functional.pad(self.columns_BT, (0, columns - self.columns_BT.shape[1]))
        return mask_B1QC & ~(hidden_BC[:, None] & (at_Q[None, :, None] >= self.from_B[:, None, None]))[:, None]

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> "Hidden":
        return Hidden(change(self.columns_BT), change(self.from_B))

    def to(self, device: torch.device) -> "Hidden":
        return self.map_tensors(lambda t: t.to(device))

    def of(self, rows_B: Tensor) -> "Hidden":
        """In these rows (bool) alone."""
        return Hidden(self.columns_BT & rows_B[:, None], self.from_B)


@dataclass(frozen=True)
class HiddenInRow:
    columns: Sequence[int]
    start: int  # the first position that does not attend to them


def audio_hidden(audio: Sequence[int], block: Sequence[int], config: ThinkingConfig) -> HiddenInRow:
    """The audio, hidden from all behind the block, so that it is heard through the block alone.

    `audio`, `block`: their positions, with the tokens that begin and end the block; that which ends it is the first
    that does not attend to the audio. What stands between audio and block has heard the audio, and is hidden with it;
    but where the block stands before the response, this is the question, which stays.
    """
    return HiddenInRow(range(audio[0], block[0]) if config.placement == "after_audio" else audio, block[-1])


def hidden_in(rows: Sequence[HiddenInRow | None], length: int) -> Hidden:
    """Of a batch whose rows have `length` positions. None: nothing is hidden in this row."""
    columns_BT = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, row in enumerate(rows):
        if row is not None:
            columns_BT[b, list(row.columns)] = True
    return Hidden(columns_BT, torch.tensor([length if row is None else row.start for row in rows]))


def causal_mask(positions: int, device: torch.device) -> Tensor:
    """`[1, 1, T, T]`, bool: what each position attends to. Padding on the right needs no more."""
    return torch.ones(positions, positions, dtype=torch.bool, device=device).tril()[None, None]
