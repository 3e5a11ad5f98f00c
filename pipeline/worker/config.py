"""What a worker needs to know before its first unit."""

from dataclasses import dataclass

from coat.extractors.expert import Options
from coat.manifests.targets.spec import TargetSpec


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker needs to know before its first unit; small enough to send anywhere."""

    expert: str
    options: Options
    set_url: str
    spec: TargetSpec
    device: str
    threads: int  # CPU threads of this worker
