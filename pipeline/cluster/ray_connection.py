"""Ray: joining or starting it, leaving it, and how many workers it has room for."""

import logging
import math
import os
import platform
import socket
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from coat.manifests.errors import RunError
from coat.manifests.storage import http
from coat.pipeline.cluster.ray_errors import error_summary, worker_error
from coat.pipeline.cluster.resources import Cluster
from coat.pipeline.cluster.signals import sigterm_kept

UV_HOOK = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
SOCKET_BYTES = 107  # of a path, at most: sun_path of Linux has 108, with its end
SOCKET = "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"  # the longest below the chosen folder
ROOM_BYTES = SOCKET_BYTES - len(SOCKET) - 1


def connect(cluster: Cluster) -> bool:
    """Join or start Ray; True where this process started it. RunError where there is none at the address."""
    set_defaults()
    import ray

    if ray.is_initialized():
        return False
    if cluster.address:
        check_listens(cluster.address)
        with sigterm_kept():
            try:
                ray.init(
                    address=cluster.address,
                    runtime_env=runtime_environment(),
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            except (ConnectionError, ValueError, TimeoutError) as e:
                raise RunError(f"no Ray cluster at {cluster.address} ({error_summary(e)})") from e
        return True
    with sigterm_kept():
        ray.init(
            address="local",
            num_cpus=max(1, math.ceil(max(cluster.workers, cluster.max_workers or 0) * cluster.cpus_per_worker)),
            include_dashboard=False,
            _temp_dir=session_folder(),
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    return True


def runtime_environment() -> dict[str, Any] | None:
    """What workers on other machines are told beside what was set there."""
    return {"env_vars": {http.ALLOWED: "1"}} if http.is_allowed() else None


def set_defaults() -> None:
    """What Ray reads from the environment when it is imported; what the user has set there stays."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Under `uv run` Ray would pack the working directory, and rebuild the environment on each worker with uv.
    os.environ.setdefault(UV_HOOK, "0")


def session_folder() -> str | None:
    """Where our own Ray keeps its sockets: as Ray chooses, unless paths there are longer than sockets can have.

    RunError where RAY_TMPDIR says so, or no short folder can be had.
    """
    chosen = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  as Ray chooses
    if len(os.path.join(chosen, SOCKET).encode()) <= SOCKET_BYTES:
        return None
    if os.environ.get("RAY_TMPDIR"):
        raise RunError(f"RAY_TMPDIR={chosen}: too long for Ray's sockets; name one of at most {ROOM_BYTES} bytes")
    folder = f"/tmp/ray-{os.getuid()}"  # noqa: S108  its owner is checked
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.stat(folder, follow_symlinks=False).st_uid != os.getuid() or not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} belongs to somebody else")
    except OSError as e:
        raise RunError(
            f"TMPDIR={chosen}: too long for Ray's sockets, and there is no other place ({e}); set RAY_TMPDIR to a "
            f"folder of at most {ROOM_BYTES} bytes"
        ) from e
    return folder


def worker_environment() -> str | None:
    """A line that says what workers run where somebody may expect another thing: in a driver under `uv run`."""
    if not under_uv_run():
        return None
    if os.environ.get(UV_HOOK, "1").lower() in ("1", "true"):
        return f"started by `uv run`, with {UV_HOOK} set: Ray packs the working directory and workers run it with uv"
    return (
        f"started by `uv run`: workers use {sys.executable} (Python {platform.python_version()}) as it is on their "
        f"node, and nothing is packed or installed; {UV_HOOK}=1 lets Ray do that"
    )


def under_uv_run() -> bool:
    """As Ray tells it: a process above this one is `uv run ...`."""
    for above in psutil.Process().parents():
        with suppress(psutil.Error):
            command = above.cmdline()
            if len(command) > 1 and os.path.basename(command[0]) == "uv" and command[1] == "run":
                return True
    return False


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
