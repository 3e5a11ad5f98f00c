"""Heads ask at the expert's own times, for any number of positions, and rows do not touch each other."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.sections import HeadsConfig
from coat.trainer.model.batch import Targets
from coat.trainer.model.experts import chosen_experts
from coat.trainer.model.heads import DistillHeads, think_times
from tests.trainer.helpers import SPECS

Head = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]  # one expert's `predict`
CONFIG = HeadsConfig(dim=16, layers=2, heads=2)


def expert(name: str) -> ExpertInfo:
    dim = SPECS[name].dim
    return ExpertInfo(spec=SPECS[name], samples=1, frames=1, mean=(0.0,) * dim, std=(1.0,) * dim)


@pytest.fixture
def head() -> Head:
    torch.manual_seed(0)
    return partial(DistillHeads(CONFIG, 8, {"pitch": expert("pitch")}).eval().predict, "pitch")


def test_outputs_follow_the_expert(head: Head) -> None:
    states_BKD, mask_BK = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    assert head(states_BKD, mask_BK, torch.tensor([1.0, 2.0]), 40).shape == (2, 40, 331 + 1 + 1)


def test_frames_depend_on_their_own_times_alone(head: Head) -> None:
    states_BKD, mask_BK, seconds_B = torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool), torch.tensor([1.0])
    long, short = head(states_BKD, mask_BK, seconds_B, 40), head(states_BKD, mask_BK, seconds_B, 7)
    assert torch.allclose(long[:, :7], short, atol=1e-6)
    assert not torch.allclose(long[:, 0], long[:, 39], atol=1e-3)


def test_padded_positions_change_nothing(head: Head) -> None:
    states_BKD, seconds_B = torch.randn(1, 5, 8), torch.tensor([1.0])
    alone = head(states_BKD[:, :3], torch.ones(1, 3, dtype=torch.bool), seconds_B, 9)
    padded = head(states_BKD, torch.tensor([[True, True, True, False, False]]), seconds_B, 9)
    assert torch.allclose(alone, padded, atol=1e-6)


def test_positions_are_spread_over_the_audio() -> None:
    mask_BK = torch.tensor([[True] * 4, [True, True, False, False]])
    times_BK = think_times(mask_BK, torch.tensor([2.0, 3.0]))
    assert times_BK[0].tolist() == [0.25, 0.75, 1.25, 1.75]
    assert times_BK[1, :2].tolist() == [0.75, 2.25]


def test_a_batch_without_any_target_still_reaches_every_weight() -> None:
    heads = DistillHeads(CONFIG, 8, {"mel": expert("mel")})
    none = {"mel": Targets(torch.zeros(2, 0, 6), torch.zeros(2, 0, dtype=torch.bool))}
    losses = heads(torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool), torch.ones(2), none)
    losses["mel"].backward()
    assert losses["mel"].item() == 0.0
    assert all(p.grad is not None and not p.grad.any() for p in heads.parameters())


def test_a_head_can_learn_a_melody_from_one_state() -> None:
    """Times are encoded finely enough to fit a fast change: 20 frames a second, up and down."""
    torch.manual_seed(0)
    heads = DistillHeads(HeadsConfig(dim=32, layers=1, heads=2), 8, {"mel": expert("mel")})
    frames_BND = torch.tensor(np.sin(np.arange(20) * 1.9)[None, :, None] * np.ones(6), dtype=torch.float32)
    target = {"mel": Targets(frames_BND, torch.ones(1, 20, dtype=torch.bool))}
    state, mask = torch.randn(1, 1, 8), torch.ones(1, 1, dtype=torch.bool)
    optimizer = torch.optim.Adam(heads.parameters(), lr=1e-2)
    losses = []
    for _ in range(100):
        loss = heads(state, mask, torch.ones(1), target)["mel"] / 20
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]


def test_experts_are_chosen_by_name() -> None:
    index = ShardIndex(
        path="shards", layout="joint", sample_rate=16000, shards=(), experts={n: expert(n) for n in ("mel", "pitch")}
    )
    assert chosen_experts(index, None, {}) == ["mel", "pitch"]
    assert chosen_experts(index, ("pitch",), {"pitch": 2.0}) == ["pitch"]
    with pytest.raises(InputError, match="no targets of vad; the shards have mel, pitch"):
        chosen_experts(index, None, {"vad": 1.0})


def test_a_group_shares_all_but_the_output() -> None:
    experts = {name: expert(name) for name in ("pitch", "mel", "events")}
    alone, grouped = (
        DistillHeads(CONFIG.model_copy(update={"groups": groups}), 8, experts)
        for groups in ({}, {"sound": ("mel", "events")})
    )
    trunk = sum(p.numel() for p in alone.groups["mel"].trunk.parameters())  # type: ignore[union-attr]
    assert sum(p.numel() for p in alone.parameters()) - sum(p.numel() for p in grouped.parameters()) == trunk
    assert [n for n in grouped.state_dict() if ".events." in n and ".outputs." not in n] == []
    target = {
        name: Targets(torch.rand(1, n, SPECS[name].dim), torch.full((1, n), name == "events"))
        for name, n in (("pitch", 3), ("mel", 4), ("events", 2))
    }
    losses = grouped(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool), torch.ones(1), target)
    losses["events"].backward()
    names = [n for n, p in grouped.named_parameters() if p.grad is not None and p.grad.any()]
    assert {n.split(".")[1] for n in names} == {"sound"}
    assert {n.split(".")[3] if ".outputs." in n else n.split(".")[2] for n in names} == {"trunk", "events"}


def test_positions_of_their_own_are_all_that_a_group_reads() -> None:
    """Three heads of which two are a group: every other position is a group's."""
    torch.manual_seed(0)
    experts = {name: expert(name) for name in ("pitch", "mel", "events")}
    config = CONFIG.model_copy(update={"groups": {"sound": ("mel", "events")}, "positions": "own"})
    heads = DistillHeads(config, 8, experts)
    heads_of = {name: partial(heads.predict, name) for name in experts}
    states_BKD, mask_BK, seconds_B = torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool), torch.ones(1)
    other_BKD = states_BKD.clone()
    other_BKD[:, 1::2] = torch.randn(1, 3, 8)
    changed = {
        name: (predict(states_BKD, mask_BK, seconds_B, 4) - predict(other_BKD, mask_BK, seconds_B, 4)).abs().max()
        > 1e-4
        for name, predict in heads_of.items()
    }
    assert changed == {"pitch": False, "mel": True, "events": True}
    one_B1 = mask_BK[:, :1]  # too short to be shared out: all read it
    assert all(predict(states_BKD[:, :1], one_B1, seconds_B, 4).isfinite().all() for predict in heads_of.values())


def test_groups_of_experts_that_are_not_trained_are_refused() -> None:
    config = CONFIG.model_copy(update={"groups": {"sound": ("mel", "yamnet")}})
    with pytest.raises(InputError, match=r"heads\.groups: yamnet is not trained; there are mel"):
        DistillHeads(config, 8, {"mel": expert("mel")})


@pytest.mark.parametrize("group", ["a.b", "keys", ""])
def test_a_group_that_no_module_can_be_called_is_refused(group: str) -> None:
    config = CONFIG.model_copy(update={"groups": {group: ("mel",)}})
    with pytest.raises(InputError, match=r"heads\.groups: a group cannot be called"):
        DistillHeads(config, 8, {"mel": expert("mel")})
