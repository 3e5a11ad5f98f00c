"""Resources of an extraction, and the workers that they give."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coat.manifests.errors import InputError

# Where Linux shows a GPU that torch can use: NVIDIA's driver, Jetson, WSL, ROCm.
GPU_NODES = ("nvidia*", "nvhost*", "nvmap", "nvgpu*", "dxg", "kfd")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What runs the units. `workers` 0: this process, no Ray; None: as many as the machine's devices ask for."""

    workers: int | None = None
    ray_address: str | None = None
    device: str = "auto"  # auto, cpu, cuda
    gpus_per_worker: float = 1.0
    cpus_per_worker: float | None = None
    max_workers: int | None = None  # grow up to so many as the cluster grows
    batch_seconds: float | Literal["auto"] | None = None  # padded, of a pass; auto: measured; None: the expert's
    decode_threads: int | None = None  # of a worker; None: its CPUs, on a GPU all of its machine's
    unit_deadline: float | None = None  # seconds; None: from the speed of the units before
    share_decode: bool = (
        False  # several experts in one pass over the corpus: a worker holds all, each clip decoded once
    )
    patience_s: float = 30.0  # that audio which cannot be read is tried again


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where Ray is and what a worker takes of it. No address: a Ray of our own on this machine."""

    workers: int
    max_workers: int | None = None  # hired as the cluster grows; None: no more than `workers`
    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0  # a share of one: 0.5 puts two workers on a device


def threads_per_worker(cluster: Cluster | None) -> int:
    return max(1, int(cluster.cpus_per_worker)) if cluster else os.cpu_count() or 1


def count_gpus(devices: Path = Path("/dev")) -> int:
    """As torch counts them. Where there can be none it is not imported: a driver of workers elsewhere needs half a
    gigabyte less.
    """
    if sys.platform == "linux" and not any(found for name in GPU_NODES for found in devices.glob(name)):
        return 0
    import torch

    return torch.cuda.device_count()


def choose_cluster(resources: Resources) -> tuple[Cluster | None, str]:
    """The workers and their device: a worker per GPU share, else per CPU share, else (None) this process."""
    device, address, workers = resources.device, resources.ray_address, resources.workers
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device}: expected auto, cpu or cuda")
    gpus = count_gpus() if device in ("auto", "cuda") else 0
    if device == "cuda" and not gpus and not address:
        raise InputError("--device cuda: torch sees no GPU here; use --device cpu, or --ray-address of a cluster")
    use_gpu = gpus > 0 or device == "cuda"
    worker_device = "cuda:0" if use_gpu else "cpu"
    cpus = os.cpu_count() or 1
    if workers is None:
        workers = round(gpus / resources.gpus_per_worker) if use_gpu and gpus else cpus // 4
        workers = 0 if workers <= 1 and not address else max(1, workers)
    if workers == 0 and not address:
        return None, worker_device
    workers = max(1, workers)
    cluster = Cluster(
        workers=workers,
        max_workers=resources.max_workers,
        address=address,
        cpus_per_worker=resources.cpus_per_worker or (1.0 if address else max(1.0, cpus // workers)),
        gpus_per_worker=resources.gpus_per_worker if use_gpu else 0.0,
    )
    return cluster, worker_device
