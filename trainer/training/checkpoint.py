"""Checkpoints: written beside, renamed when whole, and believed only with a `done.json` that matches.

RUN/checkpoints/step-00000500/
    model.safetensors    trained weights by name (under LoRA: adapters, new embedding rows, heads); ema.<name>: averages
    optimizer.pt         tensors and numbers only, read with weights_only=True
    rank-0.pt, ...       random state of each rank
    rank-0.json, ...     its place in the data
    state.json           step, meters, what the monitor remembers, ids of the think tokens
    done.json            written LAST: bytes and xxh3 of every file
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import xxhash
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from coat.manifests import InputError, RunError, storage
from coat.manifests.errors import one_line
from coat.trainer.training.ranks import gathered, together

DONE = "done.json"
PARTIAL = ".partial"  # what is being written, and what a kill leaves of it
BLOCK_BYTES = 1 << 24


class Checkpoints:
    """The checkpoints of one run, in a folder that all ranks see. All of them call `save` and `choose` together."""

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator, log: Callable[[str], None]) -> None:
        self.folder, self.keep, self.accelerator, self.log = folder, keep, accelerator, log
        self.main, self.rank = accelerator.is_main_process, accelerator.process_index

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def temporary(self, step: int) -> Path:
        return self.folder / f".step-{step:08d}{PARTIAL}"

    def save(
        self,
        step: int,
        cursor: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Any],
        state: Mapping[str, Any],
    ) -> None:
        """Each rank writes its `cursor`, the main one the rest, which is the same on all; then the oldest is dropped.

        RunError, on all ranks alike, where the disk refuses: nothing of it stays, and the checkpoint before does.
        """
        try:
            with self.writing(step):
                if self.main:
                    self.temporary(step).mkdir(parents=True)
            with self.writing(step):
                self.add_rank(step, cursor)
            with self.writing(step):
                if self.main:
                    self.finish(step, weights, optimizer, state)
        except RunError:
            if self.main:
                shutil.rmtree(self.temporary(step), ignore_errors=True)
            raise

    @contextmanager
    def writing(self, step: int) -> Iterator[None]:
        with together(self.accelerator), disk_errors(f"{self.path(step)} was not written", self.kept):
            yield

    def add_rank(self, step: int, cursor: Mapping[str, Any]) -> None:
        save_state(random_state(), self.temporary(step) / f"rank-{self.rank}.pt")
        (self.temporary(step) / f"rank-{self.rank}.json").write_bytes(storage.to_json(cursor))

    def finish(
        self, step: int, weights: Mapping[str, Tensor], optimizer: Mapping[str, Any], state: Mapping[str, Any]
    ) -> None:
        """Write the shared files, mark the checkpoint whole, and drop the oldest."""
        temporary, final = self.temporary(step), self.path(step)
        save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, temporary / "model.safetensors")
        save_state(dict(optimizer), temporary / "optimizer.pt")
        (temporary / "state.json").write_bytes(storage.to_json({**state, "step": step}))
        parts = {p.name: describe(p) for p in sorted(temporary.iterdir())}
        (temporary / DONE).write_bytes(storage.to_json({"step": step, "files": parts}))
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        flush(self.folder)
        found = self.found()
        # What is newer than this one was broken when the run went on, and must not take a whole one's place.
        for old in {*found[: -self.keep], *(p for p in found if p.name > final.name)}:
            shutil.rmtree(old)

    def choose(self) -> Path | None:
        """The newest whole checkpoint: the main rank looks, and tells the others. It drops what a kill left half-made.

        InputError where it is of another number of ranks; RunError where a rank does not see it.
        """
        chosen: list[Path | None] = []
        with together(self.accelerator):
            if self.main:
                for left in self.folder.glob(f".*{PARTIAL}"):
                    shutil.rmtree(left)
                chosen = [self.newest()]
        found = gathered(self.accelerator, chosen)[0]
        with together(self.accelerator):
            if found is not None:
                self.check(found)
        return found

    def check(self, checkpoint: Path) -> None:
        if not (checkpoint / DONE).exists():
            raise RunError(f"{checkpoint}: not seen by rank {self.rank}; run.out must be a folder that all ranks share")
        had = len(list(checkpoint.glob("rank-*.json")))
        if had != self.accelerator.num_processes:
            raise InputError(
                f"{checkpoint}: of a run of {had} ranks, and these are {self.accelerator.num_processes}, to which the "
                f"data would be dealt otherwise; resume with {had}"
            )

    @staticmethod
    def state(checkpoint: Path) -> dict[str, Any]:
        return json.loads((checkpoint / "state.json").read_bytes())

    def rank_state(self, checkpoint: Path) -> dict[str, Any]:
        return json.loads((checkpoint / f"rank-{self.rank}.json").read_bytes())

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
            before = "trying the one before" if path != self.found()[0] else "there is none before; beginning anew"
            self.log(f"checkpoint {path.name} is not whole ({problem}); {before}")
        return None


@contextmanager
def disk_errors(what: str, kept: Callable[[], str]) -> Iterator[None]:
    """What the disk does not take is a RunError of one line: `what`, why, what is `kept`, what to do."""
    try:
        yield
    except (OSError, SafetensorError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else one_line(e)
        raise RunError(f"{what} ({why}); {kept()}; make room, and the same command goes on from there") from e


def save_state(value: Mapping[str, Any], path: Path) -> None:
    """Tensors and numbers. By way of memory: of a full disk torch.save says nothing that could be told."""
    made = io.BytesIO()
    torch.save(value, made)
    path.write_bytes(made.getbuffer())


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
    except OSError as e:
        return f"{e.filename}: {e.strerror}"
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
