"""Logistic regression of words (softmax, L2), out of core: all folds, penalties and shuffled controls in one pass.

The Hessian is at most X'X / 2 for each class (Boehning, 1992, "Multinomial logistic regression algorithm", Annals of
the Institute of Statistical Mathematics 44), so (X'X / 2 + penalty)^-1 gradient is a step that never makes the loss
worse. X'X of all rows bounds that of any folds, so that one eigenbasis makes this step diagonal for every problem.
L-BFGS begins with it, which takes a fifth of the passes or less, and goes back to it where a step made the loss worse.

The loss is the sum of -log p over rows + penalty / 2 * squares of weights, of states that the fitted rows standardise;
the constants are not penalised. That is scikit-learn's LogisticRegression(C=1 / penalty); of two classes, which have
two columns here and one there, C=2 / penalty. Beside the states of a block and D^2, memory is for weights of all
problems (D * classes * folds * penalties * 2), 2 * HISTORY + 8 times while they are fitted.

N rows, D dim, E: D and the constant, X: J * C, J problems, F folds, C classes, S 2: true and shuffled. All in float64.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from coat.analysis.probing.moments import FittedRows, Moments, Space
from coat.analysis.probing.ridge import PENALTIES

Rows = Callable[[], Iterator[tuple[Tensor, Tensor]]]  # from the first on: states `[N, D]`, and which rows they are
TOLERANCE = 1e-3  # of the gradient's norm, as a share of the norm at weights of zero
MOST_PASSES = 100
HISTORY = 5  # pairs of L-BFGS; each costs two times the weights
CHUNK = 2**22  # numbers of a matrix rows x problems x classes
WORSE = 1e-11  # share of the loss that is rounding


@dataclass(frozen=True)
class Words:
    """One target: the class of each row, `[2, N]`, and its columns among those of `Moments`: true, then shuffled."""

    class_SN: Tensor
    columns: tuple[slice, slice]


@dataclass(frozen=True)
class WordFit:
    """Of one fold and target, true or shuffled: `x @ weights_DC + constant_C` are the logits of states as they are.

    A class that the fitted rows lack has a constant of minus infinity. `reached`: whether the gradient is small enough.
    """

    weights_DC: Tensor
    constant_C: Tensor
    penalty: float
    reached: bool


class Point(NamedTuple):
    """Weights in the eigenbasis, and what a pass found there."""

    weights_EJC: Tensor
    gradient_EJC: Tensor
    loss_J: Tensor
    held_out_J: Tensor


class Problems:
    """Fits of one target that advance together. Those that are there are put aside, so that later passes cost less.

    `fitted_JF`: the folds that each is fitted to; `held_J`: the fold whose deviance is summed; `shuffled_J`: 0 or 1;
    `start_EJC`: weights of standardised states to begin with. None: zero, and the classes' shares.
    """

    def __init__(
        self, space: Space, words: Words, folds: Sequence[Moments], fitted_JF: Tensor, held_J: Tensor,
        shuffled_J: Tensor, penalty_J: Tensor, tolerance: float, start_EJC: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.space, self.words = space, words
        known: dict[tuple[tuple[bool, ...], int], FittedRows] = {}
        of: list[FittedRows] = []
        for key in zip(map(tuple, fitted_JF.tolist()), shuffled_J.tolist(), strict=True):
            if key not in known:
                rows = Moments.total([fold for fold, used in zip(folds, key[0], strict=True) if used])
                known[key] = space.fitted_to(rows, words.columns[key[1]])
            of.append(known[key])
        self.number_J = torch.arange(len(of), device=held_J.device)
        self.fitted_JF, self.held_J, self.shuffled_J = fitted_JF, held_J, shuffled_J
        self.mean_DJ, self.varies_DJ = (torch.stack([getattr(o, n) for o in of], 1) for n in ("mean_D", "varies_D"))
        self.lacks_JC = torch.stack([o.lacks_C for o in of])
        self.least_J = torch.stack([o.gradient for o in of]) * tolerance
        self.penalty_DJ = torch.stack([o.ratio_D for o in of], 1) * penalty_J
        constant_1J = penalty_J.new_tensor([[o.bound for o in of]])
        self.bound_EJ = torch.cat([space.values_D[:, None] / 2 + self.penalty_DJ.amax(0), constant_1J])
        if start_EJC is None:
            shares_JC = torch.stack([o.shares_C for o in of])
            start_EJC = torch.cat([shares_JC.new_zeros(len(space.mean_D), *shares_JC.shape), shares_JC[None]])
        else:
            start_EJC = self.moved(start_EJC, 1)
        self.weights_EJC = space.turned(start_EJC, back=True)  # the constant: at the mean of the fitted rows
        self.best: Point | None = None  # so far
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # L-BFGS: step, change of gradient, 1 / their product or 0
        self.scale_J = torch.ones_like(self.least_J)
        self.found_EJC = torch.zeros_like(self.weights_EJC)  # of standardised states
        self.deviances_J, self.reached_J = torch.zeros_like(self.least_J), torch.zeros_like(held_J, dtype=torch.bool)
        self.every_lacks_JC = self.lacks_JC  # of those put aside, too
        self.begin()

    def moved(self, weights_EJC: Tensor, sign: int) -> Tensor:
        """With the constant at the mean of the fitted rows (1), or at that of all rows (-1)."""
        shift_JC = (self.mean_DJ[..., None] * weights_EJC[:-1]).sum(0, keepdim=True)
        return torch.cat([weights_EJC[:-1], weights_EJC[-1:] + sign * shift_JC])

    def begin(self) -> None:
        """A pass, at the weights as they are."""
        self.standard_EJC = self.space.turned(self.weights_EJC)
        self.at_mean_EX = self.moved(self.standard_EJC, -1).flatten(1)
        self.gradient_EJC = torch.zeros_like(self.standard_EJC)
        self.loss_J, self.held_out_J = torch.zeros_like(self.least_J), torch.zeros_like(self.least_J)

    def add(self, z_NE: Tensor, at_N: Tensor, fold_N: Tensor) -> None:
        """Rows: to the loss and gradient of what is fitted to their fold, to the deviance of what holds it out."""
        for part in torch.arange(len(z_NE), device=z_NE.device).split(max(1, CHUNK // self.at_mean_EX.shape[1])):
            class_NJ1 = self.words.class_SN[:, at_N[part]][self.shuffled_J].T[..., None]
            logits_NJC = (z_NE[part] @ self.at_mean_EX).view(len(part), *self.lacks_JC.shape) + self.lacks_JC
            logs_NJC = logits_NJC.log_softmax(2)
            loss_NJ = -logs_NJC.gather(2, class_NJ1)[..., 0]
            fitted_NJ, held_NJ = self.fitted_JF[:, fold_N[part]].T, fold_N[part][:, None] == self.held_J
            self.loss_J += torch.where(fitted_NJ, loss_NJ, 0.0).sum(0)
            # Of a class that the fitted rows lack it is infinite, whatever the penalty: not compared.
            self.held_out_J += torch.where(held_NJ & loss_NJ.isfinite(), loss_NJ, 0.0).sum(0)
            errors_NJC = logs_NJC.exp_().scatter_add_(2, class_NJ1, -torch.ones_like(loss_NJ)[..., None])
            errors_NJC *= fitted_NJ[..., None]
            self.gradient_EJC += (z_NE[part].T @ errors_NJC.flatten(1)).view_as(self.gradient_EJC)

    def advance(self, last: bool) -> None:
        """After a pass: those whose gradient is small, or with `last` all, are put aside; the others take a step."""
        own_DJC, constant_1JC = self.gradient_EJC[:-1], self.gradient_EJC[-1:]
        own_DJC += self.penalty_DJ[..., None] * self.standard_EJC[:-1] - self.mean_DJ[..., None] * constant_1JC
        self.loss_J += (self.penalty_DJ[..., None] * self.standard_EJC[:-1] ** 2).sum((0, 2)) / 2
        gradient_EJC = self.space.turned(self.gradient_EJC, back=True)
        point = Point(self.weights_EJC, gradient_EJC, self.loss_J, self.held_out_J)
        if self.best:
            worse_J = point.loss_J > self.best.loss_J + WORSE * self.best.loss_J.abs()
            self.learn(self.best, point, worse_J)
            point = Point(*(torch.where(worse_J[:, None] if old.ndim == 3 else worse_J, old, new)
                            for old, new in zip(self.best, point, strict=True)))  # fmt: skip
        self.best = point
        small_J = point.gradient_EJC.norm(dim=(0, 2)) <= self.least_J
        if (there_J := small_J | last).any():
            self.put_aside(there_J, small_J)
        if len(self.number_J):
            self.step()
            self.begin()

    def learn(self, old: Point, new: Point, worse_J: Tensor) -> None:
        """A pair for L-BFGS; what got worse begins anew with the bound."""
        moved_EJC, change_EJC = new.weights_EJC - old.weights_EJC, new.gradient_EJC - old.gradient_EJC
        product_J = dot(moved_EJC, change_EJC)
        usable_J = ~worse_J & (product_J > 0)
        self.pairs.append((moved_EJC, change_EJC, torch.where(usable_J, 1 / product_J, 0.0)))
        self.pairs = [(s, y, torch.where(worse_J, 0.0, r)) for s, y, r in self.pairs[-HISTORY:]]
        scale_J = product_J / dot(change_EJC, change_EJC / self.bound_EJ[..., None])
        self.scale_J = torch.where(worse_J, 1.0, torch.where(usable_J, scale_J, self.scale_J))

    def put_aside(self, there_J: Tensor, small_J: Tensor) -> None:
        assert self.best
        at = self.number_J[there_J]
        standard_EJC = self.space.turned(self.best.weights_EJC)
        # A dimension that does not vary in the fitted rows tells nothing: what the steps left there goes.
        standard_EJC[:-1] *= self.varies_DJ[..., None]
        self.found_EJC[:, at] = self.moved(standard_EJC, -1)[:, there_J]
        self.deviances_J[at], self.reached_J[at] = self.best.held_out_J[there_J], small_J[there_J]
        left_J = ~there_J
        for name in ("number_J", "fitted_JF", "held_J", "shuffled_J", "lacks_JC", "least_J", "scale_J"):
            setattr(self, name, getattr(self, name)[left_J])
        for name in ("mean_DJ", "varies_DJ", "penalty_DJ", "bound_EJ"):
            setattr(self, name, getattr(self, name)[:, left_J])
        self.pairs = [(s[:, left_J], y[:, left_J], r[left_J]) for s, y, r in self.pairs]
        self.best = Point(*(value[:, left_J] if value.ndim == 3 else value[left_J] for value in self.best))

    def step(self) -> None:
        """From the best point: L-BFGS that begins with the bound; without pairs it is the bound's step."""
        assert self.best
        step_EJC, shares = self.best.gradient_EJC, []
        for moved_EJC, change_EJC, inverse_J in reversed(self.pairs):
            shares.append(inverse_J * dot(moved_EJC, step_EJC))
            step_EJC = step_EJC - shares[-1][:, None] * change_EJC
        step_EJC = step_EJC * (self.scale_J / self.bound_EJ)[..., None]
        for (moved_EJC, change_EJC, inverse_J), share_J in zip(self.pairs, reversed(shares), strict=True):
            step_EJC = step_EJC + (share_J - inverse_J * dot(change_EJC, step_EJC))[:, None] * moved_EJC
        self.weights_EJC = self.best.weights_EJC - step_EJC


def dot(a_EJC: Tensor, b_EJC: Tensor) -> Tensor:
    return (a_EJC * b_EJC).sum((0, 2))


def fit_words(
    rows: Rows, words: Sequence[Words], folds: Sequence[Moments], fold_N: Tensor, tolerance: float,
    most_passes: int,
) -> list[list[WordFit]]:  # fmt: skip
    """For each of `words` and each fold two maps, true and shuffled (`[fold * 2 + shuffled]`), fitted to other folds.

    `folds`: LEAST_FOLDS or more; `fold_N`: the number of each row's among them. The penalty of fold k is the one whose
    fit to all but k and the next one has the least deviance on the next one. The fit to all but k begins with its
    weights.
    """
    space, count, device = Space.of(Moments.total(folds)), len(folds), fold_N.device
    penalties_P = torch.tensor(PENALTIES, dtype=torch.float64, device=device)
    numbers = (torch.arange(size, device=device) for size in (count, 2, len(PENALTIES)))
    tested_J, shuffled_J, chosen_J = torch.cartesian_prod(*numbers).unbind(1)
    inner_J, number_F = (tested_J + 1) % count, torch.arange(count, device=device)
    fitted_JF = (number_F != tested_J[:, None]) & (number_F != inner_J[:, None])
    inner = [
        Problems(space, one, folds, fitted_JF, inner_J, shuffled_J, penalties_P[chosen_J], tolerance) for one in words
    ]
    pass_over(rows, space, inner, fold_N, most_passes)
    tested_M, shuffled_M = torch.cartesian_prod(number_F, torch.arange(2, device=device)).unbind(1)
    outer, penalties = [], []
    for one, problems in zip(words, inner, strict=True):
        best_M = problems.deviances_J.view(-1, len(PENALTIES)).argmin(1)
        start_EMC = problems.found_EJC[:, torch.arange(len(best_M), device=device) * len(PENALTIES) + best_M]
        penalties.append([PENALTIES[best] for best in best_M.tolist()])
        outer.append(Problems(
            space, one, folds, number_F != tested_M[:, None], torch.full_like(tested_M, -1), shuffled_M,
            penalties_P[best_M], tolerance, start_EMC,
        ))  # fmt: skip
    del inner
    pass_over(rows, space, outer, fold_N, most_passes)
    return [
        [word_fit(space, p.found_EJC[:, m], p.every_lacks_JC[m], penalty, bool(p.reached_J[m]))
         for m, penalty in enumerate(of)]
        for p, of in zip(outer, penalties, strict=True)
    ]  # fmt: skip


def word_fit(space: Space, weights_EC: Tensor, lacks_C: Tensor, penalty: float, reached: bool) -> WordFit:
    weights_DC = weights_EC[:-1] * space.scale_D[:, None]
    return WordFit(weights_DC, weights_EC[-1] - space.mean_D @ weights_DC + lacks_C, penalty, reached)


def pass_over(rows: Rows, space: Space, problems: Sequence[Problems], fold_N: Tensor, most_passes: int) -> None:
    """Until all are there."""
    for number in range(1, most_passes + 1):
        left = [one for one in problems if len(one.number_J)]
        for x_ND, at_N in rows() if left else ():
            z_NE = space.states(x_ND)
            for one in left:
                one.add(z_NE, at_N, fold_N[at_N])
        for one in left:
            one.advance(last=number == most_passes)
