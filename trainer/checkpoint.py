"""Checkpoints: written beside, renamed when whole, and believed only with a `done.json` that matches.

RUN/checkpoints/step-00000500/
    model.safetensors    trained weights by name (under LoRA: adapters, new embedding rows, heads); ema.<name>: averages
    optimizer.pt         tensors and numbers only, read with weights_only=True
    rank-0.pt, ...       random state of each rank
    rank-0.json, ...     its place in the data
    state.json           step, meters, what the monitor remembers, ids of the think tokens
    done.json            written LAST: bytes and xxh3 of every file
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import load_file, save_file
from torch import Tensor

from coat.manifests import InputError, RunError, files

DONE = "done.json"
BLOCK_BYTES = 1 << 24


class Checkpoints:
    """The checkpoints of one run. Every rank calls `add_rank`, the main one `begin` before and `finish` after."""

    def __init__(self, folder: Path, keep: int, log: Callable[[str], None]) -> None:
        self.folder, self.keep, self.log = folder, keep, log

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def temporary(self, step: int) -> Path:
        return self.folder / f".step-{step:08d}.partial"

    def begin(self, step: int) -> None:
        shutil.rmtree(self.temporary(step), ignore_errors=True)
        self.temporary(step).mkdir(parents=True)

    def add_rank(self, step: int, rank: int, cursor: Mapping[str, Any]) -> None:
        torch.save(random_state(), self.temporary(step) / f"rank-{rank}.pt")
        (self.temporary(step) / f"rank-{rank}.json").write_bytes(files.to_json(cursor))

    def finish(
        self, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Write the shared files, mark the checkpoint whole, and drop the oldest."""
        temporary, final = self.temporary(step), self.path(step)
        save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, temporary / "model.safetensors")
        torch.save(dict(optimizer), temporary / "optimizer.pt")
        (temporary / "state.json").write_bytes(files.to_json({**state, "step": step}))
        parts = {p.name: describe(p) for p in sorted(temporary.iterdir())}
        (temporary / DONE).write_bytes(files.to_json({"step": step, "files": parts}))
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        flush(self.folder)
        for old in self.found()[: -self.keep]:
            shutil.rmtree(old)

    @staticmethod
    def state(checkpoint: Path) -> dict[str, Any]:
        return json.loads((checkpoint / "state.json").read_bytes())

    @staticmethod
    def rank_state(checkpoint: Path, rank: int) -> dict[str, Any]:
        """InputError where the run had fewer ranks."""
        file = checkpoint / f"rank-{rank}.json"
        if not file.exists():
            raise InputError(f"{checkpoint}: nothing of rank {rank}; resume with as many ranks as the run had")
        return json.loads(file.read_bytes())

    def found(self) -> list[Path]:
        """Oldest first, whole or not."""
        return sorted(p for p in self.folder.glob("step-*") if p.is_dir())

    def kept(self) -> str:
        """What a run that stops leaves, in words."""
        found = self.found()
        return f"{found[-1].name} is kept" if found else "there is no checkpoint yet"

    def newest(self) -> Path | None:
        """The newest whole checkpoint. Each newer one that is not whole is named in the log."""
        for path in reversed(self.found()):
            problem = broken(path)
            if problem is None:
                return path
            self.log(f"checkpoint {path.name} is not whole ({problem}); trying the one before")
        return None


def random_state() -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(checkpoint: Path, rank: int) -> None:
    state = torch.load(checkpoint / f"rank-{rank}.pt", weights_only=True)
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def load_weights(file: Path, parameters: Mapping[str, Tensor]) -> None:
    """Copy a file's tensors into the parameters. RunError where names or shapes are not exactly the same."""
    tensors = load_file(file)
    if wrong := sorted(set(tensors) ^ set(parameters)):
        raise RunError(
            f"{file}: weights do not fit the model: {wrong[0]} and {len(wrong) - 1} more are on one side only"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != tensors[name].shape:
                raise RunError(f"{file}: {name} is {list(tensors[name].shape)}, the model's {list(parameter.shape)}")
            parameter.copy_(tensors[name])


def load_optimizer(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint / "optimizer.pt", weights_only=True, map_location="cpu")


def broken(path: Path) -> str | None:
    """Why a checkpoint is not whole, or None."""
    try:
        parts = json.loads((path / DONE).read_bytes())["files"]
        wrong = [name for name, part in parts.items() if describe(path / name) != part]
    except FileNotFoundError as e:
        return f"no {Path(e.filename).name}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{DONE} cannot be read"
    return f"{wrong[0]} is damaged" if wrong else None


def describe(path: Path) -> dict[str, Any]:
    digest = xxhash.xxh3_64()
    with path.open("rb") as f:
        while block := f.read(BLOCK_BYTES):
            digest.update(block)
    return {"bytes": path.stat().st_size, "xxh3": digest.hexdigest()}


def flush(path: Path) -> None:
    """To the disk itself: a rename may otherwise outlive the data that it names."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
