"""Which interventions there are: a place, and what is done to its states.

    block:other     the states of another clip
    block:mean      the mean of the states of many clips
    block:zero      zeros
    block:noise     random states, each as long as the one that it replaces
    block:hidden    nothing is replaced, but nothing behind the place attends to it

And the same of `audio`, and of an expert by its name, where experts have positions of their own.

B rows, P positions of a place, D dim of the states; all of it for each layer that is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from coat.analysis.interventions.places import AUDIO, BLOCK
from coat.manifests import InputError

OTHER, MEAN, ZERO, NOISE, HIDDEN = WHATS = ("other", "mean", "zero", "noise", "hidden")
LABELS = {
    OTHER: "another clip's",
    MEAN: "mean of clips",
    ZERO: "zero",
    NOISE: "noise of equal norm",
    HIDDEN: "not attended",
}
UNTOUCHED = "untouched"
States = dict[int, Tensor]  # by layer, [B, P, D]


@dataclass(frozen=True)
class Intervention:
    place: str
    what: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """InputError unless it is PLACE:WHAT."""
        place, _, what = text.rpartition(":")
        if not place or what not in WHATS:
            raise InputError(f"{text}: expected PLACE:WHAT, WHAT one of {', '.join(WHATS)}; such as block:other")
        return cls(place, what)

    @property
    def name(self) -> str:
        return f"{self.place}:{self.what}"

    @property
    def label(self) -> str:
        return f"{self.place}: {LABELS[self.what]}"


def usual(places: Sequence[str]) -> list[Intervention]:
    """What is done where nothing is said: all of the block, what says most of the audio, other clips' of experts."""
    whats = {BLOCK: WHATS, AUDIO: (OTHER, HIDDEN)}
    return [Intervention(place, what) for place in places for what in whats.get(place, (OTHER,))]


def parse_layers(text: str | None, count: int) -> list[int]:
    """`0,2,4-7`, or None for all of `count`. InputError where a layer is none of the student's."""
    if text is None:
        return list(range(count))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"--layers {text}: expected numbers and ranges, such as 0,4-7")
        found |= set(range(int(first), int(last or first) + 1))
    if not found or max(found) >= count:
        raise InputError(f"--layers {text}: this student has layers 0 to {count - 1}")
    return sorted(found)


# What is put in the place of states.


def of_donors(theirs: Mapping[int, Tensor], index_BP: Tensor) -> States:
    """`theirs` [B, P', D] of each row's donor; `index_BP`: see At.matching."""
    return {layer: t.gather(1, index_BP[..., None].expand(-1, -1, t.shape[-1])) for layer, t in theirs.items()}


def of_mean(mean: Mapping[int, Tensor], index_BP: Tensor) -> States:
    """`mean` [P', D]: see StatesMean."""
    return {layer: mean_PD[index_BP] for layer, mean_PD in mean.items()}


def of_zeros(own: Mapping[int, Tensor]) -> States:
    return {layer: torch.zeros_like(states_BPD) for layer, states_BPD in own.items()}


def of_noise(own: Mapping[int, Tensor], counts: Sequence[int], seeds: Sequence[int]) -> States:
    """Drawn on the host by a row's seed and the layer alone, whatever batch the row is in; each as long as its own."""
    return {
        layer: torch.stack([noise_PD(t, n, seed, layer) for t, n, seed in zip(own_BPD, counts, seeds, strict=True)])
        for layer, own_BPD in own.items()
    }


def noise_PD(own_PD: Tensor, count: int, seed: int, layer: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed << 12) + layer)
    drawn_PD = torch.randn(count, own_PD.shape[-1], generator=generator).to(own_PD.device)
    own = own_PD[:count].float()
    drawn_PD *= own.norm(dim=-1, keepdim=True) / drawn_PD.norm(dim=-1, keepdim=True)
    return torch.cat([drawn_PD, drawn_PD[-1:].expand(len(own_PD) - count, -1)]).to(own_PD.dtype)


class StatesMean:
    """The mean over clips of the states of a place, by layer, on as many positions as the longest of them has.

    A shorter clip's are matched to these. Sums are float32: memory is P * D a layer, however many clips there are.
    """

    def __init__(self, positions: int) -> None:
        self.positions, self.clips = positions, 0
        self.sums: dict[int, Tensor] = {}

    def add(self, own: Mapping[int, Tensor], index_BP: Tensor) -> None:
        """`index_BP`: for each of the mean's positions, which one of a clip's stands for it."""
        for layer, states_BPD in of_donors(own, index_BP).items():
            sum_PD = states_BPD.float().sum(0)
            self.sums[layer] = self.sums[layer] + sum_PD if layer in self.sums else sum_PD
        self.clips += len(index_BP)

    def mean(self) -> dict[int, Tensor]:
        return {layer: sum_PD / self.clips for layer, sum_PD in self.sums.items()}
