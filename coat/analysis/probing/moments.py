"""Ridge regression out of core: sums over the rows of each fold, from which every fit of a cross-validation follows;
and what `logistic.py` takes from these sums.

N rows (clips, or positions of clips), D dim of the states, C columns of the targets; E: D and the constant, J problems.
A fold costs D^2 + D * C numbers, whatever N is: rows are added and forgotten. All in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from coat.analysis.probing.ridge import PENALTIES, TINY

LEAST_FOLDS = 3  # one is tested on, one the penalty is chosen on, and one is left to fit to
VARIES = 1e-12  # of a dimension: the least variance in the fitted rows, as a share of that in all


@dataclass(frozen=True)
class Moments:
    """Sums over some rows of x `[N, D]` and y `[N, C]`."""

    count: float
    x_D: Tensor
    y_C: Tensor
    xx_DD: Tensor
    xy_DC: Tensor
    yy_C: Tensor

    @classmethod
    def empty(cls, dim: int, columns: int, device: torch.device | str = "cpu") -> "Moments":
        sizes = ((dim,), (columns,), (dim, dim), (dim, columns), (columns,))
        return cls(0, *(torch.zeros(size, dtype=torch.float64, device=device) for size in sizes))

    def plus_rows(self, x_ND: Tensor, y_NC: Tensor) -> "Moments":
        """With these rows. The sums themselves grow: what was there before is not to be used again."""
        self.x_D.add_(x_ND.sum(0))
        self.y_C.add_(y_NC.sum(0))
        self.xx_DD.addmm_(x_ND.T, x_ND)
        self.xy_DC.addmm_(x_ND.T, y_NC)
        self.yy_C.add_((y_NC**2).sum(0))
        return Moments(self.count + len(x_ND), self.x_D, self.y_C, self.xx_DD, self.xy_DC, self.yy_C)

    @classmethod
    def total(cls, parts: Sequence["Moments"]) -> "Moments":
        """Added, never subtracted: a dimension that does not vary within the parts has a variance of exactly 0."""
        names = ("count", "x_D", "y_C", "xx_DD", "xy_DC", "yy_C")
        found = [getattr(parts[0], name) for name in names]
        for part in parts[1:]:
            found = [value + getattr(part, name) for value, name in zip(found, names, strict=True)]
        return cls(*found)

    def around(self, mean_D: Tensor, mean_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of products of x and y less these means: `[D, D]`, `[D, C]`, `[C]`."""
        n = self.count
        crossed_DD = torch.outer(mean_D, self.x_D)
        xx_DD = self.xx_DD - crossed_DD - crossed_DD.T + n * torch.outer(mean_D, mean_D)
        xy_DC = self.xy_DC - torch.outer(mean_D, self.y_C) - torch.outer(self.x_D, mean_C)
        yy_C = self.yy_C - 2 * mean_C * self.y_C + n * mean_C**2
        return xx_DD, xy_DC + n * torch.outer(mean_D, mean_C), yy_C


@dataclass(frozen=True)
class Fit:
    """What a ridge regression of some rows is made of: the same as `ridge.fit_ridge`, of sums.

    The constant is not penalised: states and targets are around their means.
    """

    mean_D: Tensor
    std_D: Tensor
    mean_C: Tensor
    gram_DD: Tensor  # of standardised states
    cross_DC: Tensor

    @classmethod
    def of(cls, rows: Moments) -> "Fit":
        mean_D, mean_C = rows.x_D / rows.count, rows.y_C / rows.count
        xx_DD, xy_DC, _ = rows.around(mean_D, mean_C)
        std_D = (xx_DD.diagonal().clamp(min=0) / rows.count).sqrt() + TINY
        return cls(mean_D, std_D, mean_C, xx_DD / std_D[:, None] / std_D, xy_DC / std_D[:, None])

    def weights(self, penalty: float) -> Tensor:
        """`[D, C]`, of states less their mean (not standardised)."""
        factor_DD = self.gram_DD.clone()
        factor_DD.diagonal().add_(penalty)
        return torch.cholesky_solve(self.cross_DC, torch.linalg.cholesky(factor_DD)) / self.std_D[:, None]

    def predict(self, x_ND: Tensor, weights_DC: Tensor) -> Tensor:
        """`[N, C]`."""
        return (x_ND - self.mean_D) @ weights_DC + self.mean_C


@dataclass(frozen=True)
class FoldFit:
    """The map that one fold is tested with, fitted to the others. `penalties`: of each target."""

    fit: Fit
    weights_DC: Tensor
    constant_C: Tensor
    penalties: tuple[float, ...]
    unfinished: tuple[int, ...] = ()  # targets whose logistic regression is not there yet

    def predict(self, x_ND: Tensor) -> Tensor:
        """`[N, C]`; of words, logits where they are fitted so."""
        return (x_ND - self.fit.mean_D) @ self.weights_DC + self.constant_C


def unfitted(folds: Sequence[Moments], targets: int) -> list[FoldFit]:
    """Of each fold the means of the others, with a map of zeros: for targets that ridge regression is not fitted to."""
    found = []
    for k in range(len(folds)):
        fit = Fit.of(Moments.total([fold for other, fold in enumerate(folds) if other != k]))
        found.append(FoldFit(fit, torch.zeros_like(fit.cross_DC), fit.mean_C, (0.0,) * targets))
    return found


def cross_validated(folds: Sequence[Moments], targets: Sequence[slice]) -> list[FoldFit]:
    """For each fold a map that was fitted to the others, the penalty of each target (its columns) chosen among these.

    Nested: for each of the others in turn, a map is fitted to what is left and its squared errors are summed. Two folds
    that are left out serve both, so K folds cost K (K - 1) / 2 + K fits. ValueError: fewer than LEAST_FOLDS folds.
    """
    if len(folds) < LEAST_FOLDS:
        raise ValueError(f"{len(folds)} folds; a penalty is chosen inside, which takes {LEAST_FOLDS}")
    columns, device = len(folds[0].y_C), folds[0].y_C.device
    errors_KPC = torch.zeros(len(folds), len(PENALTIES), columns, dtype=torch.float64, device=device)
    for a, b in combinations(range(len(folds)), 2):
        fit = Fit.of(Moments.total([fold for k, fold in enumerate(folds) if k not in (a, b)]))
        held = {outer: folds[inner].around(fit.mean_D, fit.mean_C) for outer, inner in ((a, b), (b, a))}
        for p, penalty in enumerate(PENALTIES):
            weights_DC = fit.weights(penalty)
            for outer, (xx_DD, xy_DC, yy_C) in held.items():
                explained_C = (weights_DC * (2 * xy_DC - xx_DD @ weights_DC)).sum(0)
                errors_KPC[outer, p] += yy_C - explained_C
    fitted = []
    for k in range(len(folds)):
        fit = Fit.of(Moments.total([fold for other, fold in enumerate(folds) if other != k]))
        chosen = [int(errors_KPC[k, :, columns].sum(1).argmin()) for columns in targets]
        weights_DC = torch.zeros_like(fit.cross_DC)
        for p in sorted(set(chosen)):
            all_DC = fit.weights(PENALTIES[p])
            for columns in (c for c, of in zip(targets, chosen, strict=True) if of == p):
                weights_DC[:, columns] = all_DC[:, columns]
        fitted.append(FoldFit(fit, weights_DC, fit.mean_C, tuple(PENALTIES[p] for p in chosen)))
    return fitted


@dataclass(frozen=True)
class Space:
    """States standardised over all rows, and the eigenbasis of their Gram matrix, in which steps are taken."""

    mean_D: Tensor
    var_D: Tensor
    scale_D: Tensor  # 1 / deviation; 0 of a dimension that never changes
    values_D: Tensor
    vectors_DD: Tensor

    @classmethod
    def of(cls, rows: Moments) -> "Space":
        mean_D, var_D = mean_and_variance(rows)
        scale_D = torch.where(var_D > TINY**2, var_D.rsqrt(), 0.0)
        gram_DD = rows.around(mean_D, rows.y_C / rows.count)[0] * scale_D[:, None] * scale_D
        values_D, vectors_DD = torch.linalg.eigh(gram_DD)
        return cls(mean_D, var_D, scale_D, values_D.clamp(min=0), vectors_DD)

    def states(self, x_ND: Tensor) -> Tensor:
        """`[N, E]`, the last column ones."""
        return torch.cat([(x_ND - self.mean_D) * self.scale_D, x_ND.new_ones(len(x_ND), 1)], 1)

    def turned(self, weights_EJC: Tensor, back: bool = False) -> Tensor:
        """From the eigenbasis to standardised states; `back`: into the eigenbasis."""
        vectors_DD = self.vectors_DD.T if back else self.vectors_DD
        turned_DJC = (vectors_DD @ weights_EJC[:-1].flatten(1)).view_as(weights_EJC[:-1])
        return torch.cat([turned_DJC, weights_EJC[-1:]])

    def fitted_to(self, rows: Moments, columns: slice) -> "FittedRows":
        mean_D, var_D = mean_and_variance(rows)
        varies_D = var_D > VARIES * self.var_D
        shares_C = rows.y_C / rows.count
        cross_DC = rows.around(mean_D, shares_C)[1][:, columns] * self.scale_D[:, None]
        has_C = shares_C[columns] > 0
        return FittedRows(
            rows.count / 2, (mean_D - self.mean_D) * self.scale_D,
            torch.where(varies_D, var_D / self.var_D, 1.0), varies_D, torch.where(has_C, 0.0, -torch.inf),
            torch.where(has_C, shares_C[columns].clamp(min=TINY).log(), 0.0), cross_DC.norm(),
        )  # fmt: skip


@dataclass(frozen=True)
class FittedRows:
    """What is known of the rows that a problem is fitted to, before any pass."""

    bound: float  # of the constant's second derivative
    mean_D: Tensor  # of standardised states
    ratio_D: Tensor  # variance as a share of that of all rows: penalties are of what these rows standardise
    varies_D: Tensor
    lacks_C: Tensor  # minus infinity for a class that they lack, else 0
    shares_C: Tensor  # log
    gradient: Tensor  # its norm at weights of zero


def mean_and_variance(rows: Moments) -> tuple[Tensor, Tensor]:
    mean_D = rows.x_D / rows.count
    return mean_D, (rows.xx_DD.diagonal() / rows.count - mean_D**2).clamp(min=0)
