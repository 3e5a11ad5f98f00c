"""Where units run. Ray: joining or starting it, how much room it has, and what its errors mean."""

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

from coat.manifests.errors import InputError, RunError
from coat.pipeline.extraction.queue import Cause


@dataclass(frozen=True, kw_only=True)
class Where:
    """What runs the units. `workers` 0: this process, no Ray; None: as many as the machine's devices ask for."""

    workers: int | None = None
    ray_address: str | None = None
    device: str = "auto"  # auto, cpu, cuda
    gpus_per_worker: float = 1.0
    cpus_per_worker: float | None = None
    max_workers: int | None = None  # grow up to so many as the cluster grows
    unit_deadline: float | None = None  # seconds; None: from the speed of the units before


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
def joined(cluster: Cluster) -> Iterator[None]:
    """Ray for a while, left if it was joined here. What a task raised comes out as itself."""
    from ray.exceptions import RayError

    started_here = connect(cluster)
    try:
        yield
    except RayError as e:
        raise cause_of(e) from e
    finally:
        if started_here:
            disconnect()


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


def threads_of(cluster: Cluster | None) -> int:
    return max(1, int(cluster.cpus)) if cluster else os.cpu_count() or 1


def choose(where: Where) -> tuple[Cluster | None, str]:
    """The pool and the device of a worker: a worker per GPU share, else per CPU share, else this process."""
    import torch

    if where.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {where.device}: expected auto, cpu or cuda")
    gpus = torch.cuda.device_count() if where.device in ("auto", "cuda") else 0
    if where.device == "cuda" and not gpus and not where.ray_address:
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu, or --ray-address of a cluster")
    use_gpu = gpus > 0 or (where.device == "cuda")
    cpus = os.cpu_count() or 1
    workers = where.workers
    if workers is None:
        workers = round(gpus / where.gpus_per_worker) if use_gpu and gpus else cpus // 4
        workers = 0 if workers <= 1 and not where.ray_address else max(1, workers)
    if workers == 0 and not where.ray_address:
        return None, "cuda:0" if use_gpu else "cpu"
    workers = max(1, workers)
    cpus_per_worker = where.cpus_per_worker or (1.0 if where.ray_address else max(1.0, cpus // workers))
    gpus_per_worker = where.gpus_per_worker if use_gpu else 0.0
    cluster = Cluster(
        workers=workers,
        max_workers=where.max_workers,
        address=where.ray_address,
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
    )
    return cluster, "cuda:0" if use_gpu else "cpu"
