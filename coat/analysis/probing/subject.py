"""Whose states are probed: a run at a step, or a student without coat; told apart by files, without being loaded."""

from dataclasses import dataclass
from pathlib import Path

import torch
import xxhash

from coat.manifests import InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.evaluation.asking.student import base_student
from coat.trainer.evaluation.asking.who import dtype_here
from coat.trainer.generation.generate import Trained
from coat.trainer.generation.run_student import find_student, load_run
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.heads import DistillHeads
from coat.trainer.records.checkpoint_files import BLOCK_BYTES, Step
from coat.trainer.run_folder import RunFolder

# Beside weights: how text becomes ids.
READ = ("*.safetensors", "*.json", "*.jinja", "*.txt")


@dataclass(frozen=True)
class Subject:
    """`source`: a run's folder, or a student's folder or hub id. `digest`: of all that decides its states."""

    kind: str  # run, student
    source: str
    step: int | None
    digest: str
    dtype: str = "auto"

    @property
    def name(self) -> str:
        return self.source if self.step is None else f"{self.source}@{self.step}"

    @classmethod
    def run(cls, source: str, step: Step = None) -> "Subject":
        """InputError, RunError: no such run, or no such checkpoint."""
        folder, saved = RunFolder(Path(source)), find_student(source, step)
        base = folder.config.student.path
        begun = folder.base_file.read_bytes() if folder.base_file.exists() else b""
        whole = [folder.config_file.read_bytes(), begun, digest_of(saved.path).encode()]
        whole += [digest_of(Path(base), READ[1:]).encode()] if Path(base).is_dir() else []
        return cls("run", source, saved.step, xxhash.xxh3_128_hexdigest(b"\0".join(whole)))

    @classmethod
    def student(cls, source: str, dtype: str = "auto") -> "Subject":
        """InputError: no such student."""
        found = digest_of(Path(source)) if Path(source).is_dir() else revision_of(source)
        dtype = dtype_here(dtype)
        return cls("student", source, None, xxhash.xxh3_128_hexdigest(f"{found} {dtype}".encode()), dtype)

    def load(self, device: str | None = None) -> tuple[CoatModel, TrainConfig]:
        """In eval mode, without heads. InputError, RunError where it cannot be read."""
        if self.kind == "run":
            trained = load_run(self.source, device, self.step if self.is_checkpoint else None)
        else:
            trained = base_student(self.source, self.dtype, device)
        return as_model(trained), trained.config

    @property
    def is_checkpoint(self) -> bool:
        folder = RunFolder(Path(self.source))
        return not folder.finished or folder.done_step != self.step


def as_model(trained: Trained) -> CoatModel:
    heads = DistillHeads(trained.config.heads, trained.student.hidden_size, {}, trained.config.losses)
    return CoatModel(trained.student, trained.block, heads).eval()


def digest_of(folder: Path, patterns: tuple[str, ...] = READ) -> str:
    """Of the files in a folder, those of ranks too."""
    digest = xxhash.xxh3_128()
    for path in sorted({path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as f:
            while block := f.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def revision_of(source: str) -> str:
    """The commit of a hub id, as it lies in the cache or on the hub."""
    from transformers.utils.hub import cached_file

    try:
        found = cached_file(source, "config.json")
    except (OSError, ValueError) as e:
        raise InputError(f"{source}: no such folder, and no such checkpoint on the hub") from e
    return f"{source}@{Path(str(found)).parent.name}"


def device_of_sums() -> torch.device:
    """Where sums of products are made: float64 on a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
