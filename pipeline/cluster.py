"""Ray: joining or starting it, how much room it has, and what its errors mean."""

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from coat.manifests.errors import RunError
from coat.pipeline.queue import Cause


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where Ray is and what a worker takes of it. No address: a Ray of our own on this machine."""

    workers: int
    max_workers: int | None = None  # hired as the cluster grows; None: no more than `workers`
    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0  # a share of one: 0.5 puts two workers on a device


def connect(cluster: Cluster) -> bool:
    """Join or start Ray; True where this process started it. RunError where there is none at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return False
    if cluster.address:
        check_listens(cluster.address)
        with own_signals():
            try:
                ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
            except (ConnectionError, ValueError, TimeoutError) as e:
                raise RunError(f"no Ray cluster at {cluster.address} ({last_line(e)})") from e
        return True
    with own_signals():
        ray.init(
            address="local",
            num_cpus=max(1, math.ceil(max(cluster.workers, cluster.max_workers or 0) * cluster.cpus)),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    return True


def disconnect() -> None:
    import ray

    ray.shutdown()


@contextmanager
def own_signals() -> Iterator[None]:
    """Ray puts a handler of its own over SIGTERM that aborts the process; afterwards ours stands again."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


def check_listens(address: str) -> None:
    """RunError where nobody listens: Ray itself would try for many minutes, deaf to Ctrl-C."""
    host, _, port = address.split("://", 1)[-1].rpartition(":")
    if not port.isdigit():
        return  # auto, local
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as e:
        raise RunError(f"no Ray cluster at {address} ({e})") from e


def capacity(cluster: Cluster) -> int:
    """Workers that all nodes could hold together, as they are now."""
    import ray

    have = ray.cluster_resources()
    rooms = [have.get("CPU", 0.0) / cluster.cpus] if cluster.cpus else []
    rooms += [have.get("GPU", 0.0) / cluster.gpus] if cluster.gpus else []
    return math.floor(min(rooms, default=0.0) + 1e-6)


def why_died(error: BaseException) -> Cause:
    """What Ray's error says of the end of an actor."""
    from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError

    text = str(error)
    if isinstance(error, OutOfMemoryError) or "running low on memory" in text:
        return "oom"
    preempted = isinstance(error, RayActorError) and error.preempted
    if preempted or isinstance(error, ActorUnavailableError) or "node has died" in text or "node died" in text:
        return "lost"
    return "crashed"


def cause_of(error: Any) -> Exception:
    """What the worker raised: a RunError as it is, anything else named."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, RunError) else RunError(f"a worker failed: {last_line(cause or error)}")


def last_line(error: BaseException) -> str:
    """The line of an error that says most; of Ray's that is the last, but for want of memory the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if why_died(error) == "oom":
        return " ".join(lines[:1])[:400]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:400]
