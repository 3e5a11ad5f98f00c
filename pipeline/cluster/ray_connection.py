"""Ray: joining or starting it, leaving it, and how many workers it has room for."""

import logging
import math
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from coat.manifests.errors import RunError
from coat.pipeline.cluster.ray_errors import error_summary, worker_error
from coat.pipeline.cluster.resources import Cluster
from coat.pipeline.cluster.signals import sigterm_kept


def connect(cluster: Cluster) -> bool:
    """Join or start Ray; True where this process started it. RunError where there is none at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return False
    if cluster.address:
        check_listens(cluster.address)
        with sigterm_kept():
            try:
                ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
            except (ConnectionError, ValueError, TimeoutError) as e:
                raise RunError(f"no Ray cluster at {cluster.address} ({error_summary(e)})") from e
        return True
    with sigterm_kept():
        ray.init(
            address="local",
            num_cpus=max(1, math.ceil(max(cluster.workers, cluster.max_workers or 0) * cluster.cpus_per_worker)),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    return True


def disconnect() -> None:
    import ray

    ray.shutdown()


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Ray for a while, left if it was joined here. What a task raised comes out as itself."""
    from ray.exceptions import RayError

    started_here = connect(cluster)
    try:
        yield
    except RayError as e:
        raise worker_error(e) from e
    finally:
        if started_here:
            disconnect()


def check_listens(address: str) -> None:
    """RunError where nobody listens: Ray itself would try for many minutes, deaf to Ctrl-C."""
    host, _, port = address.split("://", 1)[-1].rpartition(":")
    if not port.isdigit():
        return  # auto, local
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as e:
        raise RunError(f"no Ray cluster at {address} ({e})") from e


def worker_capacity(cluster: Cluster, without: Collection[str] = ()) -> int:
    """Workers that all nodes could hold together, as they are now, but those `without`."""
    import ray

    return sum(
        node_capacity(cluster, node["Resources"])
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in without
    )


def node_capacity(cluster: Cluster, available: Mapping[str, float]) -> int:
    limits = [available.get("CPU", 0.0) / cluster.cpus_per_worker] if cluster.cpus_per_worker else []
    limits += [available.get("GPU", 0.0) / cluster.gpus_per_worker] if cluster.gpus_per_worker else []
    return math.floor(min(limits, default=0.0) + 1e-6)
