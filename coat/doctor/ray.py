"""Ray: does one start here and run a task; or, of a cluster, are its nodes like this machine?"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from coat.doctor.declared import installed_version
from coat.doctor.finding import Finding, Request, broken, line_of, ok, warning
from coat.drawing.text import bytes_text
from coat.pipeline.cluster.ray_connection import connected, worker_environment
from coat.pipeline.cluster.resources import Cluster

# Of these, nodes must have what the driver has: their data cross between them, or end in one store.
COMPARED = ("coat-audio", "ray", "numpy", "torch", "transformers", "zarr", "pyarrow", "soundfile", "av")
NODE_S = 30.0  # for a node to start a worker and answer; all are asked at once
SKEW_S = 5.0  # of clocks: leases are renewed by minutes
NODES_SHOWN = 50


def look(request: Request) -> Iterator[Finding]:
    if (line := worker_environment()) is not None:
        yield ok("uv run", line)
    yield from cluster(request.ray_address) if request.ray_address else own()


def own() -> Iterator[Finding]:
    """A Ray that ends again at once. Its log is where it says why it did not start."""
    began = time.monotonic()
    try:
        with connected(Cluster(workers=1)):
            import ray

            answer = run_task(ray)
    except Exception as e:  # noqa: BLE001 - Ray raises of its own and of others' kinds
        yield broken(
            "Ray",
            f"does not start here: {line_of(e)}",
            f"see the lines of limits, memory, disks, and Ray's own logs in {log_folder()}; --workers 0 needs no Ray",
        )
        return
    told = f"starts, and ran a task, in {time.monotonic() - began:.1f} s"
    yield ok("Ray", told) if answer else broken("Ray", "starts, but runs no task", f"its logs: {log_folder()}")


def run_task(ray: Any) -> bool:
    return ray.get(ray.remote(num_cpus=0)(lambda: os.getpid()).remote(), timeout=NODE_S) != os.getpid()


def log_folder() -> str:
    return f"{os.environ.get('RAY_TMPDIR') or os.environ.get('TMPDIR') or '/tmp'}/ray/session_latest/logs"  # noqa: S108


def cluster(address: str) -> Iterator[Finding]:
    try:
        with connected(Cluster(workers=1, address=address)):
            import ray

            yield from nodes(ray, address)
    except Exception as e:  # noqa: BLE001 - as above
        yield broken(
            "cluster",
            line_of(e),
            "ray status there; the same Ray and Python on all nodes (constraints.txt); RAY_AUTH_TOKEN as on the head",
        )


def nodes(ray: Any, address: str) -> Iterator[Finding]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    all_nodes = ray.nodes()
    alive = [node for node in all_nodes if node["Alive"]]
    room = ray.cluster_resources()
    told = f"{address}: {len(alive)} nodes, {room.get('CPU', 0):g} CPUs, {room.get('GPU', 0):g} GPUs"
    told += f", {bytes_text(room.get('memory', 0))} of memory"
    told += f", {bytes_text(room.get('object_store_memory', 0))} of object store"
    yield ok("cluster", told)
    if lost := len(all_nodes) - len(alive):
        yield ok("lost nodes", f"{lost} that were there before")
    task = ray.remote(num_cpus=0, max_retries=0)(describe)
    asked = {}
    for node in alive:
        here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked[task.options(scheduling_strategy=here).remote(COMPARED)] = node
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_S)
    ours = describe(COMPARED)
    like_us = 0
    for reference, node in list(asked.items())[:NODES_SHOWN]:
        answer = answer_of(ray, reference) if reference in done else f"no answer within {NODE_S:g} s"
        finding = differences(node["NodeManagerAddress"], answer, ours)
        like_us += finding is None
        if finding is not None:
            yield finding
    versions = ", ".join(f"{name} {ours[name]}" for name in COMPARED[1:5])
    yield ok("nodes", f"{like_us} of {len(alive)} are like this machine: Python {ours['Python']}, {versions}")


def answer_of(ray: Any, reference: Any) -> "dict[str, Any] | str":
    try:
        return ray.get(reference)
    except Exception as e:  # noqa: BLE001 - what came of a task on another machine
        return line_of(e, 220)


def describe(packages: tuple[str, ...]) -> dict[str, Any]:
    """On a node: what is installed, and its clock."""
    import platform

    versions: dict[str, Any] = {name: installed_version(name) or "not installed" for name in packages}
    with suppress(ImportError):
        import coat

        versions["coat-audio"] = coat.__version__  # also where it came with the working directory
    return {"Python": platform.python_version(), **versions, "clock": time.time()}


def differences(node: str, answer: "dict[str, Any] | str", ours: dict[str, Any]) -> Finding | None:
    what = f"node {node}"
    if isinstance(answer, str):
        return broken(
            what,
            f"runs no task: {answer}",
            "ray status on the head; coat installed there, or --working-dir of ray job submit",
        )
    other = [
        f"{name} {answer[name]} (here: {version})"
        for name, version in ours.items()
        if name != "clock" and answer[name] != version
    ]
    skew = answer["clock"] - ours["clock"]
    if other:
        return warning(
            what, ", ".join(other), "python deploy/install.py --editable . on each node, with the same constraints.txt"
        )
    if skew < -SKEW_S or skew > SKEW_S + NODE_S:
        return warning(
            what,
            f"its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}",
            "timedatectl set-ntp true, there",
        )
    return None
