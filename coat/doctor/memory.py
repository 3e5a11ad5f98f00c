"""Memory, shared memory and CPUs, as the machine has them and as its container lets us have them.

Control groups by the kernel's documentation (admin-guide/cgroup-v2.rst and cgroup-v1/): of version 2 `memory.max` and
`cpu.max`, of version 1 `memory.limit_in_bytes` and `cpu.cfs_quota_us`. Those of all groups above count, too.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from coat.doctor.finding import Finding, Request, broken, ok, warning
from coat.drawing.text import bytes_text

MEMORY_NEEDED, MEMORY_WARNED = 2e9, 8e9  # torch, Ray and a small expert; a worker with a model of some size
# Of ray/_private/utils.py: the object store takes so much of memory, and lies on a disk where /dev/shm has less.
RAY_SHARE, RAY_MOST = 0.3, 10e9
SHARED = Path("/dev/shm")  # noqa: S108
SHARED_NEEDED = 64 * 2**20  # Docker gives so much; tensors between processes of torch need more


def look(request: Request) -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    limits = control_group_limits()
    allowed = min(memory.total, limits.memory or memory.total)
    yield machine_memory(memory.total, memory.available, limits)
    if sys.platform == "linux":
        yield shared_memory(SHARED, allowed)
    yield cpus(limits)


def machine_memory(total: int, available: int, limits: "Limits") -> Finding:
    told = f"{bytes_text(available)} of {bytes_text(total)} are free"
    free = available
    if limits.memory is not None and limits.memory < total:
        free = min(available, limits.memory - (limits.memory_used or 0))
        told = f"the container may use {bytes_text(limits.memory)}, {bytes_text(max(0, free))} of it still free"
    remedy = "end what uses it (`ps aux --sort=-rss | head`), or give the container more (docker run --memory)"
    if free < MEMORY_NEEDED:
        return broken("memory", f"{told}: too little for torch and Ray", remedy)
    if free < MEMORY_WARNED:
        return warning("memory", f"{told}: enough for small experts and tiny students", remedy)
    return ok("memory", told)


def shared_memory(folder: Path, memory: int) -> Finding:
    """What Ray's object store and the tensors that torch's processes exchange lie in."""
    larger = f"docker run --shm-size={max(1, round(memory * RAY_SHARE * 1.1 / 2**30))}g, or as root: "
    larger += f"mount -o remount,size=50% {folder}; Kubernetes: an emptyDir of medium Memory at {folder}"
    if not os.access(folder, os.W_OK):
        return broken("shared memory", f"{folder} is missing or cannot be written", larger)
    disk = shutil.disk_usage(folder)
    told = f"{folder}: {bytes_text(disk.free)} of {bytes_text(disk.total)} are free"
    store = min(memory * RAY_SHARE, max(RAY_MOST, disk.free * 0.95))
    if disk.free < SHARED_NEEDED:
        return broken("shared memory", f"{told}: processes of torch that exchange tensors end with a bus error", larger)
    if disk.free < store:
        return warning(
            "shared memory", f"{told}: Ray's object store ({bytes_text(store)}) will lie on a disk, and be slow", larger
        )
    return ok("shared memory", told)


def cpus(limits: "Limits") -> Finding:
    seen = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else seen
    quota = limits.cpus
    if quota is not None and quota < usable:
        threads = max(1, int(quota))
        if os.environ.get("OMP_NUM_THREADS", "").isdigit() and int(os.environ["OMP_NUM_THREADS"]) <= max(1, quota):
            return ok(
                "CPUs", f"{quota:g} by the container's quota, and OMP_NUM_THREADS is {os.environ['OMP_NUM_THREADS']}"
            )
        return warning(
            "CPUs",
            f"{usable} are seen, but the container's quota is {quota:g}: that many threads wait for each other",
            f"export OMP_NUM_THREADS={threads}, and give --workers and --cpus-per-worker",
        )
    return ok("CPUs", f"{usable} of {seen}")


@dataclass(frozen=True)
class Limits:
    """Of the control groups that this process is in; None: no limit. Bytes, CPUs."""

    memory: int | None = None
    memory_used: int | None = None  # of the group whose limit counts
    cpus: float | None = None


def control_group_limits(root: Path = Path("/")) -> Limits:
    groups = root / "proc/self/cgroup"
    if not groups.is_file():
        return Limits()
    mounted = root / "sys/fs/cgroup"
    memory: list[tuple[int, int | None]] = []
    quotas: list[float] = []
    for line in groups.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            for folder in upwards(mounted, path):
                memory += limit_and_use(folder / "memory.max", folder / "memory.current")
                quotas += quota_v2(folder / "cpu.max")
        if "memory" in controllers.split(","):
            for folder in upwards(mounted / "memory", path):
                memory += limit_and_use(folder / "memory.limit_in_bytes", folder / "memory.usage_in_bytes")
        if "cpu" in controllers.split(","):
            for folder in upwards(mounted / "cpu", path):
                quotas += quota_v1(folder)
    least = min(memory, default=(None, None), key=lambda found: found[0])
    return Limits(least[0], least[1], min(quotas, default=None))


def upwards(mounted: Path, path: str) -> Iterator[Path]:
    """The group and those above it. In a container only a part of the path is there."""
    folder = mounted / path.lstrip("/")
    while folder != mounted:
        if folder.is_dir():
            yield folder
        folder = folder.parent
    if mounted.is_dir():
        yield mounted


def number(file: Path) -> int | None:
    try:
        text = file.read_text().split()
    except OSError:  # not there, or no controller here
        return None
    return int(text[0]) if text and text[0].lstrip("-").isdigit() else None


NO_LIMIT = 2**62  # version 1 says so by a number near 2**63


def limit_and_use(limit: Path, use: Path) -> list[tuple[int, int | None]]:
    found = number(limit)
    return [(found, number(use))] if found is not None and found < NO_LIMIT else []


def quota_v2(file: Path) -> list[float]:
    quota = number(file)
    return [quota / int(file.read_text().split()[1])] if quota else []


def quota_v1(folder: Path) -> list[float]:
    quota, period = number(folder / "cpu.cfs_quota_us"), number(folder / "cpu.cfs_period_us")
    return [quota / period] if quota and period and quota > 0 else []
