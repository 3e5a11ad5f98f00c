"""Principal components of frames, from their covariance. D dim, C components."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PCA:
    """Principal components by falling variance: `(frames_ND - mean_D) @ axes_CD.T` are a frame's coordinates."""

    mean_D: NDArray[np.float64]
    axes_CD: NDArray[np.float64]  # orthonormal rows; the largest entry of each is positive
    variance_C: NDArray[np.float64]

    @classmethod
    def of(cls, mean_D: NDArray[np.float64], covariance_DD: NDArray[np.float64]) -> "PCA":
        variance_C, axes_DC = np.linalg.eigh(covariance_DD)
        axes_CD = axes_DC.T[::-1]
        largest_C = np.abs(axes_CD).argmax(axis=1)
        signs_C = np.where(axes_CD[np.arange(len(axes_CD)), largest_C] < 0, -1.0, 1.0)
        variance_C = np.maximum(variance_C[::-1], 0.0)  # rounding leaves some a little below
        return cls(mean_D, axes_CD * signs_C[:, None], variance_C)

    @property
    def explained_C(self) -> NDArray[np.float64]:
        """Share of the variance that the first 1, 2, ... components hold."""
        total = self.variance_C.sum()
        return np.cumsum(self.variance_C) / total if total else np.ones_like(self.variance_C)

    def components_for(self, share: float) -> int:
        """The least number of components that hold a share of the variance."""
        return min(int(np.searchsorted(self.explained_C, share)) + 1, len(self.variance_C))
