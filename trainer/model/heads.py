"""Projection heads: from think states to one expert's frames. Used in training only, dropped at export.

B batch, K think positions, N frames, D dim of the states, H dim of the head, O outputs per frame. Queries are
the expert's own frame times, so that the number of positions and the expert's rate are independent.
"""

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from coat.manifests import ExpertInfo, InputError
from coat.trainer.config.sections import HeadsConfig, LossConfig
from coat.trainer.model.batch import Targets
from coat.trainer.model.loss_scales import outputs_of_mean
from coat.trainer.model.losses import DistillLoss

SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 0.02, 60.0  # of the time encoding: finer than any frame, longer than a clip


class CrossBlock(nn.Module):
    """A pre-norm decoder layer without self-attention: frames attend to the states, not to each other.

    Queries hold nothing but their times, so attention among them would add cost (N squared) and no knowledge.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, frames_BNH: Tensor, memory_BKH: Tensor, masked_BK: Tensor) -> Tensor:
        queries_BNH = self.norm_1(frames_BNH)
        attended_BNH, _ = self.attention(
            queries_BNH, memory_BKH, memory_BKH, key_padding_mask=masked_BK, need_weights=False
        )
        frames_BNH = frames_BNH + attended_BNH
        return frames_BNH + self.mlp(self.norm_2(frames_BNH))


class Trunk(nn.Module):
    """What experts of one group share: LayerNorm, linear, and a small Transformer decoder from times to states."""

    def __init__(self, config: HeadsConfig, states_dim: int) -> None:
        super().__init__()
        self.dim = config.dim
        self.norm = nn.LayerNorm(states_dim)
        self.project = nn.Linear(states_dim, config.dim)
        self.blocks = nn.ModuleList([CrossBlock(config.dim, config.heads) for _ in range(config.layers)])

    def forward(self, states_BKD: Tensor, mask_BK: Tensor, times_BK: Tensor, times_N: Tensor) -> Tensor:
        """`[B, N, H]`."""
        memory_BKH = self.project(self.norm(states_BKD))
        memory_BKH = memory_BKH + self.encode(times_BK)  # float32, under autocast too
        frames_BNH = self.encode(times_N.expand(len(states_BKD), len(times_N)))
        for block in self.blocks:
            frames_BNH = block(frames_BNH, memory_BKH, ~mask_BK)
        return frames_BNH

    def encode(self, times_BN: Tensor) -> Tensor:
        """Sinusoids of a time in seconds, `[B, N, H]`."""
        ratio = math.log(LONGEST_PERIOD_S / SHORTEST_PERIOD_S)
        steps = torch.linspace(0, 1, self.dim // 2, device=times_BN.device)
        angles = 2 * math.pi * times_BN[..., None].float() / (SHORTEST_PERIOD_S * torch.exp(ratio * steps))
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class HeadGroup(nn.Module):
    """The experts of one group: a trunk that they share, and an output layer for each. Most groups are of one expert.

    `share` (i, n): the group reads every n-th position of the block, from the i-th on.
    """

    def __init__(self, config: HeadsConfig, states_dim: int, share: tuple[int, int]) -> None:
        super().__init__()
        self.dim, self.share = config.dim, share
        self.trunk = Trunk(config, states_dim)
        self.outputs = nn.ModuleDict()  # by expert

    def add(self, name: str, expert: ExpertInfo) -> None:
        self.outputs[name] = nn.Sequential(nn.LayerNorm(self.dim), nn.Linear(self.dim, DistillLoss.outputs(expert)))

    @torch.no_grad()
    def begin_at(self, name: str, outputs_O: Tensor) -> None:
        """Let an expert's outputs lie around these values before anything is learnt."""
        cast(nn.Linear, cast(nn.Sequential, self.outputs[name])[1]).bias.copy_(outputs_O)

    def forward(self, name: str, states_BKD: Tensor, mask_BK: Tensor, seconds_B: Tensor, times_N: Tensor) -> Tensor:
        """`[B, N, O]`: the outputs of one expert. Every row needs a state: attention over none is NaN."""
        times_BK = think_times(mask_BK, seconds_B)
        return self.outputs[name](self.trunk(states_BKD, self.positions_read(mask_BK), times_BK, times_N))

    def positions_read(self, mask_BK: Tensor) -> Tensor:
        """The group's share of the positions; all of them where a block is too short to be shared out."""
        first, step = self.share
        share_BK = mask_BK & (torch.arange(mask_BK.shape[1], device=mask_BK.device) % step == first)
        return torch.where(share_BK.any(1, keepdim=True), share_BK, mask_BK)


def think_times(mask_BK: Tensor, seconds_B: Tensor) -> Tensor:
    """Nominal times of the think positions, spread evenly over the audio, `[B, K]`."""
    count_B1 = mask_BK.sum(1, keepdim=True).clamp(min=1)
    return (torch.arange(mask_BK.shape[1], device=mask_BK.device) + 0.5) / count_B1 * seconds_B[:, None]


class DistillHeads(nn.Module):
    """A head and a loss per expert, built from what the shards say of it. Heads are kept by group (`heads.groups`).

    InputError where `heads.groups` names an expert that is not trained, or a group as no module can be called.
    """

    def __init__(
        self,
        config: HeadsConfig,
        states_dim: int,
        experts: Mapping[str, ExpertInfo],
        losses: LossConfig = LossConfig(),  # noqa: B008
    ) -> None:
        super().__init__()
        if experts and (unknown := {n for members in config.groups.values() for n in members} - set(experts)):
            raise InputError(
                f"heads.groups: {', '.join(sorted(unknown))} is not trained; there are {', '.join(experts)}"
            )
        self.config = config
        self.specs = {name: expert.spec for name, expert in experts.items()}
        self.group_names = {name: config.group_of(name) for name in experts}  # by expert
        names = list(dict.fromkeys(self.group_names.values()))
        self.groups = nn.ModuleDict()
        for name, expert in experts.items():  # in this order weights are drawn: a trunk, and then its outputs
            group = self.group_names[name]
            if group not in self.groups:
                if not group or "." in group or hasattr(self.groups, group):
                    raise InputError(f"heads.groups: a group cannot be called {group!r}; choose another name")
                share = (names.index(group), len(names)) if config.positions == "own" else (0, 1)
                self.groups[group] = HeadGroup(config, states_dim, share)
            cast(HeadGroup, self.groups[group]).add(name, expert)
            if losses.scale == "prior":
                cast(HeadGroup, self.groups[group]).begin_at(name, outputs_of_mean(expert))
        self.losses = nn.ModuleDict({name: DistillLoss(e, losses) for name, e in experts.items()})

    def forward(
        self,
        states_BKD: Tensor,
        mask_BK: Tensor,
        seconds_B: Tensor,
        targets: Mapping[str, Targets],
        watch: Callable[[str, Tensor], Tensor] = lambda _, states: states,
    ) -> dict[str, Tensor]:
        """The sum of each expert's loss over its frames. Samples without targets are not computed.

        `watch` passes the states on to the head of a name: see LossGradientNorms.
        """
        return {n: self.loss(n, watch(n, states_BKD), mask_BK, seconds_B, targets[n]) for n in self.specs}

    def predict(self, name: str, states_BKD: Tensor, mask_BK: Tensor, seconds_B: Tensor, frames: int) -> Tensor:
        """What the head of an expert gives for its first N frame times, `[B, N, O]`. Every row needs a state."""
        spec = self.specs[name]  # what `TargetSpec.times` gives, made on the device
        times_N = spec.start_s + torch.arange(frames, dtype=torch.float64, device=states_BKD.device) / spec.rate_hz
        return self.groups[self.group_names[name]](name, states_BKD, mask_BK, seconds_B, times_N.float())

    def loss(self, name: str, states_BKD: Tensor, mask_BK: Tensor, seconds_B: Tensor, target: Targets) -> Tensor:
        rows_R = target.rows_R
        if not len(rows_R):
            # Ranks must all reach every weight: one frame of a row that has states, times nothing.
            row_1 = mask_BK.any(1).long().argmax()[None]
            states_1KD, mask_1K, seconds_1 = (t.index_select(0, row_1) for t in (states_BKD, mask_BK, seconds_B))
            return self.predict(name, states_1KD, mask_1K, seconds_1, 1).float().sum() * 0
        mask_RN = target.mask_BN.index_select(0, rows_R)
        states_RKD, mask_RK, seconds_R = (t.index_select(0, rows_R) for t in (states_BKD, mask_BK, seconds_B))
        predicted_RNO = self.predict(name, states_RKD, mask_RK, seconds_R, mask_RN.shape[1])
        return self.losses[name](predicted_RNO, target.frames_BND.index_select(0, rows_R), mask_RN)
