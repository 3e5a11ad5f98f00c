"""One batch of questions, asked untouched and then under each intervention.

B rows, T positions of a row, P positions of a place, D dim of the states, R tokens of answers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coat.analysis.interventions.attending import hidden, hiding
from coat.analysis.interventions.generating import generated
from coat.analysis.interventions.kinds import (
    HIDDEN,
    MEAN,
    NOISE,
    OTHER,
    ZERO,
    Intervention,
    States,
    StatesMean,
    of_donors,
    of_mean,
    of_noise,
    of_zeros,
)
from coat.analysis.interventions.packing import Asked, Inputs, Prompt, pack, pad_left
from coat.analysis.interventions.places import At, find
from coat.analysis.interventions.reading import Read, divergence, read
from coat.analysis.layers import gathered, hooked, replaced
from coat.trainer.model.coat_model import CoatModel


@dataclass(frozen=True)
class Question:
    """One row as the student is asked it, and the same about the donor's sound (its own, where there is no donor)."""

    number: int
    own: Prompt  # with its answers
    donor: Prompt
    truth: int  # which of the answers is right


@dataclass(frozen=True)
class Seen:
    """What a pass says of a batch. Flat over the tokens of all answers, see Asked."""

    read: Read
    divergence_R: Tensor | None = None  # from the untouched pass; None: this is it
    texts: list[list[int]] = field(default_factory=list)  # generated ids, by row


@dataclass(frozen=True)
class Measured:
    asked: Asked
    untouched: Seen
    apart_B: Tensor  # how far the states that begin the answer are from the donor's, untouched
    after: dict[str, Seen]  # by intervention


class Intervener:
    """`means` must have seen the pool before rows of it are measured, if any intervention puts a mean."""

    def __init__(
        self,
        model: CoatModel,
        interventions: Sequence[Intervention],
        layers: Sequence[int],
        max_new_tokens: int | None = None,
    ) -> None:
        self.model, self.interventions, self.layers = model, interventions, layers
        self.max_new_tokens = max_new_tokens  # None: nothing is generated
        self.mean_states: dict[str, Mapping[int, Tensor]] = {}

    def places(self, *whats: str) -> list[str]:
        return list(dict.fromkeys(one.place for one in self.interventions if one.what in whats))

    @torch.inference_mode()
    def learn_means(self, batches: Callable[[], Iterable[Sequence[Prompt]]]) -> None:
        """Of all prompts of a pool, which is gone through twice: for how long they are, and for their states."""
        if not (places := self.places(MEAN)):
            return
        longest = dict.fromkeys(places, 0)
        for batch in batches():
            ids_BT = pack(self.model.student, batch)[0]["input_ids"]
            longest |= {p: max(longest[p], *find(self.model, p, ids_BT).counts) for p in places}
        means = {place: StatesMean(longest[place]) for place in places}
        for batch in batches():
            inputs, _ = pack(self.model.student, batch)
            at = {place: find(self.model, place, inputs["input_ids"]) for place in places}
            _, own = self.keep(inputs, at)
            for place, mean in means.items():
                grid_BP = torch.arange(mean.positions, device=at[place].positions_BP.device).expand(len(batch), -1)
                mean.add(own[place], At(grid_BP, (mean.positions,) * len(batch)).matching(at[place]))
        self.mean_states = {place: mean.mean() for place, mean in means.items()}

    def keep(self, inputs: Inputs, at: Mapping[str, At]) -> tuple[Tensor, dict[str, States]]:
        """Last states `[B, T, D]` of an untouched pass, and by place the inputs of the chosen layers there alone."""
        kept: dict[str, States] = {place: {} for place in at}

        def look(layer: int, states_BTD: Tensor) -> None:
            if layer in self.layers:
                for place, found in at.items():
                    kept[place][layer] = gathered(states_BTD, found.positions_BP)

        with hooked(self.model.student, look):
            last_BTD, _ = self.model.states(inputs)
        return last_BTD, kept

    @torch.inference_mode()
    def measure(self, batch: Sequence[Question]) -> Measured:
        student, seeds = self.model.student, [one.number for one in batch]
        inputs, asked = pack(student, [one.own for one in batch])
        at = {place: find(self.model, place, inputs["input_ids"]) for place in self.places(OTHER, MEAN, ZERO, NOISE)}
        last_BTD, own = self.keep(inputs, {place: at[place] for place in self.places(ZERO, NOISE)})
        before = read(self.model, last_BTD, asked)
        donor_inputs, _ = pack(student, [Prompt(one.donor.ids, one.donor.features) for one in batch])
        donor_at = {place: find(self.model, place, donor_inputs["input_ids"]) for place in self.places(OTHER)}
        donor_BTD, theirs = self.keep(donor_inputs, donor_at)
        matched = {place: at[place].matching(found) for place, found in donor_at.items()}

        def states_of(one: Intervention) -> States | None:
            if one.what == OTHER:
                return of_donors(theirs[one.place], matched[one.place])
            if one.what == MEAN:
                return self.of_mean(one.place, at[one.place])
            if one.what == ZERO:
                return of_zeros(own[one.place])
            return of_noise(own[one.place], at[one.place].counts, seeds) if one.what == NOISE else None

        left = pad_left(student, [one.own for one in batch]) if self.max_new_tokens is not None else None
        after: dict[str, Seen] = {}
        for one in self.interventions:
            states = states_of(one)
            with self.applied(one, inputs["input_ids"], states):
                found = read(self.model, self.model.states(inputs)[0], asked)
            texts: list[list[int]] = []
            if left is not None:
                with self.applied(one, left["input_ids"], states):
                    texts = self.generate(left)
            after[one.name] = Seen(found, divergence(self.model, before, found), texts)
        untouched = Seen(before, None, self.generate(left) if left is not None else [])
        own_BD, their_BD = begins(last_BTD, [q.own for q in batch]), begins(donor_BTD, [q.donor for q in batch])
        return Measured(asked, untouched, (own_BD - their_BD).float().norm(dim=-1), after)

    def of_mean(self, place: str, at: At) -> States:
        mean = self.mean_states[place]
        positions = len(next(iter(mean.values())))
        whole = At(at.positions_BP, (positions,) * len(at.counts))
        return of_mean(mean, at.matching(whole))

    def generate(self, left: Inputs) -> list[list[int]]:
        return generated(self.model, left, self.max_new_tokens or 1)

    @contextmanager
    def applied(self, one: Intervention, ids_BT: Tensor, states: States | None) -> Iterator[None]:
        """`ids_BT`: of the pass, however it is padded."""
        if one.what == HIDDEN:
            with hidden(self.model.student, hiding(self.model, one.place, ids_BT), self.layers):
                yield
        else:
            assert states is not None
            with replaced(self.model.student, find(self.model, one.place, ids_BT).positions_BP, states):
                yield


def begins(states_BTD: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """`[B, D]`: the states that begin an answer, in rows that are padded on the right."""
    at_B = torch.tensor([len(prompt.ids) - 1 for prompt in prompts], device=states_BTD.device)
    return states_BTD[torch.arange(len(prompts), device=states_BTD.device), at_B]
