"""Files of weights: their digest, their tensors, and whether all of these are finite."""

import functools
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from coat.manifests.errors import InputError

if TYPE_CHECKING:
    import torch


def digest_files(paths: Iterable[Path]) -> str:
    """`xxh3:<32 hex digits>` of files by name and content, whatever their order."""
    parts = sorted((path.name, file_digest(path, path.stat().st_size, path.stat().st_mtime_ns)) for path in paths)
    return "xxh3:" + xxhash.xxh3_128_hexdigest(json.dumps(parts).encode())


@functools.lru_cache(maxsize=256)  # one process makes an expert more than once; size and mtime tell a rewritten file
def file_digest(path: Path, size: int, mtime_ns: int) -> str:
    h = xxhash.xxh3_128()
    with path.open("rb") as f:
        while block := f.read(1 << 23):
            h.update(block)
    return h.hexdigest()


def check_finite(weights: Iterable[Path], where: str) -> None:
    """InputError where a weight is NaN or infinite: every frame would be, and each row would fail of it."""
    for path in weights:
        if path.suffix in (".safetensors", ".bin") and (
            bad := not_finite(path, path.stat().st_size, path.stat().st_mtime_ns)
        ):
            raise InputError(f"{where}: {path.name} holds NaN or infinite values in {bad}; get the checkpoint anew")


@functools.lru_cache(maxsize=256)
def not_finite(path: Path, size: int, mtime_ns: int) -> str | None:
    """The first tensor of a file that is not finite. What cannot be read at all is found when it is loaded."""
    import torch
    from safetensors import SafetensorError, safe_open

    def bad(tensor: torch.Tensor) -> bool:
        return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # OpenMP threads of this thread would stay, and slow those of the model's down
    try:
        if path.suffix == ".bin":
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return next((key for key, value in state.items() if torch.is_tensor(value) and bad(value)), None)
        with safe_open(path, framework="pt", device="cpu") as found:
            return next((key for key in found.keys() if bad(found.get_tensor(key))), None)  # noqa: SIM118
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError):
        return None
    finally:
        torch.set_num_threads(threads)


def tensor_names(path: Path, where: str) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as found:
            return list(found.keys())
    except (SafetensorError, OSError) as e:
        raise InputError(f"{where}: {path.name}: the weights cannot be loaded ({e})") from e


def read_tensor(path: Path, key: str) -> "torch.Tensor":
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as found:
        return found.get_tensor(key)


@functools.lru_cache(maxsize=8192)  # a tower has about 500; size and mtime tell a rewritten file
def tensor_digest(path: Path, key: str, size: int, mtime_ns: int) -> tuple[str, bool]:
    """Of its type, shape and bytes; and whether it is finite."""
    import torch

    tensor = read_tensor(path, key)
    h = xxhash.xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    h.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return h.hexdigest(), not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
