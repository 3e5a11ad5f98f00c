"""What training and evaluation on a Ray cluster have in common: which ranks, and where they find themselves."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from coat.manifests import InputError, RunError
from coat.pipeline.cluster.ray_connection import worker_capacity
from coat.pipeline.cluster.resources import Cluster


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Ranks on a cluster, one per worker. `retries`: how often lost ones are started anew before all of it fails."""

    address: str
    count: int = 1
    gpus: float = 0.0  # of each
    cpus: float = 1.0
    retries: int = 3

    def cluster(self) -> Cluster:
        return Cluster(workers=self.count, address=self.address, cpus_per_worker=self.cpus, gpus_per_worker=self.gpus)

    def say_room(self, log: Callable[[str], None]) -> None:
        """A line where the cluster, to which this process is connected, is too small for all of them as it is now."""
        if (room := worker_capacity(self.cluster())) < self.count:
            log(f"the cluster has room for {room} of {self.count} workers; waiting until there is more")


def enter_folder(folder: str) -> None:
    """On a worker: where the user's relative paths are meant from, if it is there."""
    if os.path.isdir(folder):
        os.chdir(folder)


def plain_error(error: InputError | RunError) -> InputError | RunError:
    """With its line alone: what a worker sends must be readable wherever it comes from."""
    return InputError(str(error)) if isinstance(error, InputError) else RunError(str(error))
