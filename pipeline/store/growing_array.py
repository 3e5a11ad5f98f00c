"""An array that grows at its end: thousands of small ones would leave holes in memory that nothing fits into."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

FIRST_ITEMS = 2**16


class GrowingArray:
    """One dimension. What was not written to yet takes no memory."""

    def __init__(self, dtype: DTypeLike) -> None:
        self.items: NDArray[Any] = np.empty(FIRST_ITEMS, dtype)
        self.size = 0

    def append(self, part: NDArray[Any]) -> None:
        stop = self.size + len(part)
        if stop > len(self.items):
            larger = np.empty(max(stop, 2 * len(self.items)), self.items.dtype)
            larger[: self.size] = self.values
            self.items = larger
        self.items[self.size : stop] = part
        self.size = stop

    @property
    def values(self) -> NDArray[Any]:
        """All that was appended."""
        return self.items[: self.size]
