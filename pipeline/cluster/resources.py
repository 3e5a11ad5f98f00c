"""Resources of an extraction, and the pool of workers that they give."""

import os
from dataclasses import dataclass

from coat.manifests.errors import InputError


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
