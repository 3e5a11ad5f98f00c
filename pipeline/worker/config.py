"""What a worker needs to know before its first unit."""

from dataclasses import dataclass

from coat.extractors.expert import Options
from coat.manifests.targets.spec import TargetSpec

UNITS_IN_HAND = 2  # of a worker: one holds the expert, of the other audio is decoded or frames are written
PATIENCE_S = 30.0  # for which a unit waits for its audio to be readable again


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know before its first unit; small enough to send anywhere."""

    expert: str
    options: Options
    set_url: str
    spec: TargetSpec
    device: str
    threads: int  # CPU threads of this worker
    decode_threads: int | None = None  # None: as many; on a GPU, as many as its machine has CPUs
    batch_seconds: float | None = None  # padded seconds of a pass; None: the expert's own
    accept_missing: bool = False  # a file that is not there fails its row, whatever else is not there
    patience_s: float = PATIENCE_S


def threads_of(experts: int) -> int:
    """How many units of a worker may run at once."""
    return UNITS_IN_HAND * experts
