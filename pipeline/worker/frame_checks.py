"""What an expert gave, checked and cast. N frames, D dim."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coat.extractors.expert import Frames
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.decoding.decoded_row import DecodedRow

# Torch casts to float16 ten times as fast as numpy does. It would take more threads for larger pieces than this, which
# are the model's.
ONE_THREAD_VALUES = 2**15 - 1
FLOAT16_SIZE_BITS, FLOAT16_INFINITY = 0x7FFF, 0x7C00  # all but the sign; what is no number lies at or above the second


def accept_frames(spec: TargetSpec, row: DecodedRow, frames_ND: Frames) -> None:
    """Cast to the stored dtype; a row whose frames are not finite or not of the spec's shape fails."""
    if frames_ND.ndim != 2 or frames_ND.shape[1] != spec.dim or not len(frames_ND):
        row.fail("bad_shape", f"frames {list(frames_ND.shape)}; the spec says [frames, {spec.dim}]")
        return
    stored_ND = cast_frames(frames_ND, spec.dtype)
    if all_finite(stored_ND):
        row.frames_ND = stored_ND
    elif frames_ND.dtype != stored_ND.dtype and np.isfinite(frames_ND).all():
        largest = np.abs(frames_ND).max()
        row.fail("overflow", f"values up to {largest:.3g} do not fit {spec.dtype}; use --dtype float32")
    elif frames_ND.dtype == np.float16 and not np.isnan(frames_ND).any():  # cast on the device: nobody knows from what
        row.fail("overflow", f"values that do not fit {spec.dtype}, or are infinite; use --dtype float32")
    else:
        row.fail("not_finite", "the expert gave NaN or infinity")


def cast_frames(frames_ND: Frames, dtype: str) -> NDArray[Any]:
    """Contiguous, in `dtype`: what does not fit becomes infinite."""
    if frames_ND.dtype == dtype:
        return np.ascontiguousarray(frames_ND)
    stored_ND = np.empty(frames_ND.shape, dtype)
    source, stored = torch.from_numpy(np.require(frames_ND, None, ["C", "W"])), torch.from_numpy(stored_ND)
    step = max(1, ONE_THREAD_VALUES // frames_ND.shape[1])
    for start in range(0, len(frames_ND), step):
        stored[start : start + step].copy_(source[start : start + step])
    return stored_ND


def all_finite(values: NDArray[Any]) -> bool:
    """np.isfinite(values).all(); by their bits where they are float16, for which numpy takes eight times as long."""
    if values.dtype == np.float16 and values.size:
        return int((values.view(np.uint16) & FLOAT16_SIZE_BITS).max()) < FLOAT16_INFINITY
    return bool(np.isfinite(values).all())
