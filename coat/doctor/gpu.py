"""GPUs: what the driver shows, whether torch was built for them, and whether each of them computes."""

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from coat.doctor.finding import Finding, Request, absent, broken, line_of, ok, warning
from coat.drawing.text import bytes_text
from coat.pipeline.cluster.resources import count_gpus

DRIVER_S = 10.0  # of nvidia-smi: with many devices and without persistence mode it takes seconds
FIELDS = ("index", "name", "driver_version", "memory.total", "memory.used", "utilization.gpu", "compute_mode")
FREE_SHARE = 0.5  # of a device's memory, below which others are at work on it
BUSY_PERCENT = 20.0
SIZE = 256  # of the matrices of the trial
TOLERANCE = {"float32": 1e-2, "bfloat16": 0.2}  # relative, of norms; TF32 has 10 bits, bf16 7


def look(request: Request) -> Iterator[Finding]:
    seen = driver()
    if isinstance(seen, Finding):
        yield seen
        seen = []
    try:
        import torch
    except (ImportError, OSError) as e:
        yield broken(
            "torch", f"cannot be imported ({line_of(e)})", f"{sys.executable} -m pip install --force-reinstall torch"
        )
        return
    build = f"torch {torch.__version__}, " + built_for(torch)
    try:
        if seen or count_gpus():
            torch.cuda.init()
        count = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as e:  # AssertionError: built without CUDA
        yield unusable(build, seen, torch, line_of(e))
        return
    if not count:
        yield unusable(build, seen, torch, "it sees no device") if seen else none_here(build)
        return
    yield ok("torch", f"{build}; {count} devices")
    for index in range(count):
        yield from device(torch, index)
    yield from others_at_work(seen)


def driver() -> "list[dict[str, str]] | Finding":
    """What nvidia-smi says of each device; none of it where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    remedy = "nvidia-smi by itself; then load the driver again (reboot), or ask who runs this machine"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVER_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        return broken("driver", f"nvidia-smi does not answer within {DRIVER_S:g} s", remedy)
    except OSError as e:
        return broken("driver", f"nvidia-smi cannot be run ({e})", remedy)
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[:200]
        return broken("driver", f"nvidia-smi fails: {said}", remedy)
    rows = csv.reader(io.StringIO(done.stdout), skipinitialspace=True)
    return [dict(zip(FIELDS, row, strict=False)) for row in rows if row]


def built_for(torch: Any) -> str:
    if torch.version.cuda:
        return f"built for CUDA {torch.version.cuda}"
    if torch.version.hip:
        return f"built for ROCm {torch.version.hip}"
    return "built for CPUs alone"


def none_here(build: str) -> Finding:
    return absent(
        "GPU", f"none ({build}): experts and training run on CPUs; --device cuda and bitsandbytes' speed are out"
    )


def unusable(build: str, seen: list[dict[str, str]], torch: Any, reason: str) -> Finding:
    """The driver shows devices, or their nodes are there, and torch cannot use them."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return absent(
            "GPU",
            f"hidden by CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']!r} ({build})",
            "unset CUDA_VISIBLE_DEVICES",
        )
    shown = f"driver {seen[0]['driver_version']} shows {len(seen)} devices" if seen else "a device is there"
    if not torch.version.cuda and not torch.version.hip:
        remedy = (
            f"{sys.executable} -m pip install --force-reinstall torch torchaudio (on Linux the default build has CUDA)"
        )
    else:
        remedy = "a driver as new as this torch asks for, or a torch for an older CUDA (pytorch.org, Get Started)"
    return broken("GPU", f"{shown}, and torch cannot use it ({build}): {reason}", remedy)


def device(torch: Any, index: int) -> Iterator[Finding]:
    what = f"cuda:{index}"
    try:
        major, minor = torch.cuda.get_device_capability(index)
        free, total = torch.cuda.mem_get_info(index)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(index)
        told = f"{name}, capability {major}.{minor}, {bytes_text(free)} of {bytes_text(total)} are free"
        wrong = [text for dtype in ("float32", "bfloat16") if (text := miscomputes(torch, index, dtype))]
    except RuntimeError as e:
        yield broken(
            what,
            f"does not compute: {line_of(e, 220)}",
            f"nvidia-smi -i {index}; free its memory, or leave it out by CUDA_VISIBLE_DEVICES; where torch has no "
            "kernels for it, install a build that has (pytorch.org, Get Started)",
        )
        return
    if wrong:
        yield broken(
            what,
            f"{told}: computes wrongly ({'; '.join(wrong)})",
            f"leave it out by CUDA_VISIBLE_DEVICES; nvidia-smi -q -i {index} shows its errors",
        )
    elif free < FREE_SHARE * total:
        yield warning(
            what,
            f"{told}: others use it",
            f"nvidia-smi shows who; export CUDA_VISIBLE_DEVICES to leave cuda:{index} out",
        )
    else:
        yield ok(what, f"{told}; bf16: {'yes' if bf16 else 'no, so float32 is used'}")


def miscomputes(torch: Any, index: int, dtype: str) -> str | None:
    """A product of matrices, compared with the CPU's in double precision."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) for _ in range(2))
    kind, where = getattr(torch, dtype), torch.device("cuda", index)
    product = (a.to(where, kind) @ b.to(where, kind)).double().cpu()
    error = float((product - a @ b).norm() / (a @ b).norm())
    return None if error <= TOLERANCE[dtype] else f"{dtype}: off by {error:.2g}"


def others_at_work(seen: list[dict[str, str]]) -> Iterator[Finding]:
    for row in seen:
        what, use = f"GPU {row['index']}", row.get("utilization.gpu", "")
        if use.replace(".", "", 1).isdigit() and float(use) > BUSY_PERCENT:
            yield warning(
                what,
                f"{row['name']} was {float(use):.0f}% busy before we came",
                "nvidia-smi shows who; wait, or choose another by CUDA_VISIBLE_DEVICES",
            )
        if row.get("compute_mode", "Default") not in ("Default", "[N/A]", "N/A"):
            yield warning(
                what,
                f"compute mode {row['compute_mode']}: one process at a time, so that workers cannot share it",
                f"as root: nvidia-smi -i {row['index']} -c DEFAULT",
            )
