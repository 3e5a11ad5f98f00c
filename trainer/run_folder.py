"""A run's folder: what belongs to it, how it is opened again, and what is exported at its end.

RUN/config.toml         the whole config
RUN/index.json          of the shards it was trained on
RUN/metrics.jsonl, evaluation.jsonl, samples.jsonl, tensorboard/   see metrics.py
RUN/tracked.json        the run's id with trackers, where there are any
RUN/checkpoints/        see checkpoint.py
RUN/student/            at the end: the student (or its LoRA adapter), with processor and think tokens
RUN/heads.safetensors   at the end: the projection heads, which generation does not need
RUN/done.json           written LAST
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from coat.manifests import InputError, RunError, ShardIndex, storage
from coat.trainer.config.resume import changes
from coat.trainer.config.train_config import TrainConfig

if TYPE_CHECKING:
    from coat.trainer.model.coat_model import CoatModel
    from coat.trainer.students.base import Student

OWN = (
    "config.toml", "index.json", "metrics.jsonl", "evaluation.jsonl", "samples.jsonl", "tensorboard", "wandb",
    "tracked.json", "checkpoints", "student", "heads.safetensors",
)  # fmt: skip


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.toml"
        self.done_file = path / "done.json"
        self.checkpoints = path / "checkpoints"
        self.student = path / "student"

    @property
    def finished(self) -> bool:
        return self.done_file.exists()

    @property
    def started(self) -> bool:
        return self.finished or any(self.checkpoints.glob("step-*"))

    @property
    def index(self) -> ShardIndex:
        """Of the shards, as it was when the run began; with the experts of sidecars."""
        return ShardIndex.read(str(self.path))

    def open(self, config: TrainConfig, index: ShardIndex, restart: bool = False, change: bool = False) -> list[str]:
        """Make the folder, or check that it holds this same run: but for what was changed on purpose, which is given.

        InputError where it holds something else.
        """
        if self.config_file.exists() and (restart or not self.started):
            self.clear()  # what never reached a checkpoint is no run: a mistake in its config may be mended
        if not self.config_file.exists():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise InputError(f"{self.path}: not empty, and not a run of coat; choose another --out")
            replace(index, sidecars={}).write(str(self.path))  # with all experts
            storage.write_bytes(str(self.config_file), config.to_toml().encode())
            return []
        changed = changes(TrainConfig.read(str(self.config_file)), config)
        fixed = [c for c in changed if c.on_resume == "fixed"]
        if fixed or (changed and not change):
            or_change = "" if fixed else ", --change to go on with it"
            raise InputError(
                f"{self.path}: holds a run with another config ({'; '.join(map(str, (fixed or changed)[:3]))}); "
                f"use another --out{or_change}, or --restart to drop it"
            )
        if changed:
            storage.write_bytes(str(self.config_file), config.to_toml().encode())
        return list(map(str, changed))

    def check_shared(self, rank: int) -> None:
        """RunError where a rank does not see what the main one has opened."""
        if not self.config_file.exists():
            raise RunError(f"{self.path}: not seen by rank {rank}; run.out must be a folder that all ranks share")

    def clear(self) -> None:
        """Remove what a run wrote, and nothing else."""
        self.done_file.unlink(missing_ok=True)
        for name in OWN:
            path = self.path / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def export(self, model: "CoatModel", step: int) -> None:
        """Write what generation needs, and the heads beside it."""
        student = model.student
        shutil.rmtree(self.student, ignore_errors=True)
        if student.peft_model is None:
            student.model.save_pretrained(self.student)
        else:
            save_adapter(student, self.student)
        student.processor.save_pretrained(self.student)
        heads = {k: v.detach().cpu().contiguous() for k, v in model.heads.state_dict().items()}
        save_file(heads, self.path / "heads.safetensors")
        storage.write_bytes(str(self.done_file), storage.to_json({"step": step, "think_ids": model.block.new_ids}))


def save_adapter(student: "Student", folder: Path) -> None:
    """LoRA, and the rows of the think tokens (trainable tokens): whole embeddings would make it large."""
    student.peft_model.save_pretrained(folder, save_embedding_layers=False)
