"""Named measurements (prosody, arousal and valence, mel bands): R2 and CCC by channel, and their means.

Values are standardised as their loss has them; both figures are the same in any unit. A channel that never varied in
training, or does not vary in these clips, has none.

    R2 = 1 - sum (y - x)^2 / sum (y - mean y)^2          0 for saying the mean of these very frames
    CCC = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2)     Lin 1989; 1 only where values agree

x predicted, y target. N frames, D dims, C clips, R draws.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.fidelity.measures.measure import Figures, Measure, Part, Record, Weights, mean_of_known, ratio
from coat.trainer.model.losses import DEAD_STD

SMALLEST_VARIANCE = 1e-9  # of standardised values: below it a channel does not vary
SUMS = 5  # a channel: y, y^2, x, x^2, xy


class ChannelSums:
    """Of D channels, some of which may be dead: `[1 + 5 * D]` numbers a clip."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        std_D = torch.tensor(std, dtype=torch.float64)
        self.mean_D = torch.tensor(mean, dtype=torch.float64)
        self.alive_D = std_D > DEAD_STD
        self.scale_D = torch.where(self.alive_D, 1 / std_D.clamp(min=DEAD_STD), 0.0)

    def record(self, outputs_ND: Tensor, target_ND: Tensor) -> Record:
        x_ND = outputs_ND.double().cpu()
        y_ND = (target_ND.double().cpu() - self.mean_D) * self.scale_D
        sums_5D = torch.stack([y_ND, y_ND.square(), x_ND, x_ND.square(), x_ND * y_ND]).sum(1)
        return np.concatenate([[len(x_ND)], sums_5D.flatten().numpy()])

    def by_channel(self, records_CS: NDArray[np.float64], weights_RC: Weights) -> dict[str, NDArray[np.float64]]:
        """`r2` and `ccc`, `[R, D]`."""
        totals_RS = weights_RC @ records_CS
        n_R1 = np.maximum(totals_RS[:, :1], 1.0)
        y, yy, x, xx, xy = np.split(totals_RS[:, 1:], SUMS, axis=1)
        varies = (yy - y**2 / n_R1 > SMALLEST_VARIANCE * n_R1) & self.alive_D.numpy()
        spread_y, spread_x = yy - y**2 / n_R1, np.maximum(xx - x**2 / n_R1, 0.0)
        r2 = 1 - ratio(yy - 2 * xy + xx, np.where(varies, spread_y, 0.0))
        apart = spread_x + spread_y + (x - y) ** 2 / n_R1
        return {"r2": r2, "ccc": ratio(2 * (xy - x * y / n_R1), np.where(varies, apart, 0.0))}

    def parts(self, records_CS: NDArray[np.float64], names: list[str]) -> list[Part]:
        found = self.by_channel(records_CS, np.ones((1, len(records_CS))))
        frames, parts = float(records_CS[:, 0].sum()), []
        for d, name in enumerate(names):
            figures = {key: float(values_1D[0, d]) for key, values_1D in found.items()}
            problem = "" if np.isfinite(figures["r2"]) else "does not vary"
            parts.append(Part(name, frames, {} if problem else figures, problem))
        return parts


class ChannelMeasure(Measure):
    """Of kind scalars."""

    names = ("r2", "ccc")

    def __init__(self, expert: ExpertInfo) -> None:
        super().__init__(expert)
        self.sums = ChannelSums(expert.mean, expert.std)

    def record(self, outputs_NO: Tensor, target_ND: Tensor) -> Record:
        return self.sums.record(outputs_NO, target_ND)

    def figures(self, records: Any, weights_RC: Weights) -> Figures:
        return {name: mean_of_known(v) for name, v in self.sums.by_channel(records, weights_RC).items()}

    def parts(self, records: Any) -> list[Part]:
        return self.sums.parts(records, self.names_of_dims())
