"""What an expert gave, checked and cast. N frames, D dim."""

import numpy as np

from coat.extractors.expert import Frames
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.worker.decoded_row import DecodedRow


def accept_frames(spec: TargetSpec, row: DecodedRow, frames_ND: Frames) -> None:
    """Cast to the stored dtype; a row whose frames are not finite or not of the spec's shape fails."""
    row.waveform_T = None
    if frames_ND.ndim != 2 or frames_ND.shape[1] != spec.dim or not len(frames_ND):
        row.fail("bad_shape", f"frames {list(frames_ND.shape)}; the spec says [frames, {spec.dim}]")
        return
    if not np.isfinite(frames_ND).all():
        row.fail("not_finite", "the expert gave NaN or infinity")
        return
    with np.errstate(over="ignore"):
        stored = frames_ND.astype(spec.dtype)
    if not np.isfinite(stored).all():
        largest = np.abs(frames_ND).max()
        row.fail("overflow", f"values up to {largest:.3g} do not fit {spec.dtype}; use --dtype float32")
        return
    row.frames_ND = stored
