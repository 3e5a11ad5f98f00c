"""Checkpoints: written under another name, renamed when whole, and used only with a `done.json` that matches.

RUN/checkpoints/step-00000500/
    model.safetensors    trained weights by name (under LoRA: adapters, new embedding rows, heads); ema.<name>: averages
    optimizer.pt         tensors and numbers only, read with weights_only=True
    shard-00001-*, ...   in place of these two where what is trained is sharded: each rank's part of the same tensors,
                         of the optimizer's as optimizer.<name>.<moment>
    rank-0.pt, ...       random state of each rank
    rank-0.json, ...     its place in the data
    state.json           step, meter, watchdog, ids of the think tokens
    done.json            written LAST: bytes and xxh3 of every file
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from coat.manifests import RunError, storage
from coat.manifests.errors import one_line
from coat.trainer.model.saved_weights import save_shards, save_weights
from coat.trainer.ranks import gather_from_ranks, raise_on_all_ranks, result_or_error
from coat.trainer.records.checkpoint_files import (
    DONE_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    checkpoint_name,
    checkpoint_paths,
    damage,
    file_digest,
    read_state,
)
from coat.trainer.run_folder import disk_errors
from coat.trainer.training.checkpointing.checkpoint_tensors import (
    moments,
    random_state,
    random_state_file,
    save_tensors,
)
from coat.trainer.training.distributed.full_sharding import is_sharded

PARTIAL = ".partial"  # suffix of a checkpoint that is being written, or was when the run was killed


class Checkpoints:
    """The checkpoints of one run, in a folder that all ranks see. All ranks must call `save` and `choose`."""

    def __init__(self, folder: Path, keep: int, accelerator: Accelerator, log: Callable[[str], None]) -> None:
        self.folder, self.keep, self.accelerator, self.log = folder, keep, accelerator, log
        self.is_main, self.rank = accelerator.is_main_process, accelerator.process_index
        self.also_kept: int | None = None  # a step that is never old: of the best

    def path(self, step: int) -> Path:
        return self.folder / checkpoint_name(step)

    def partial_path(self, step: int) -> Path:
        return self.folder / f".{checkpoint_name(step)}{PARTIAL}"

    def save(
        self,
        step: int,
        cursor: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Any],
        state: Mapping[str, Any],
    ) -> None:
        """Each rank writes its `cursor`; the main one the rest, which is the same on all, and drops the oldest.

        RunError, on all ranks alike, where the disk refuses: nothing of it stays, and the checkpoint before does.
        """
        try:
            with self.shared_errors(step):
                if self.is_main:
                    self.partial_path(step).mkdir(parents=True)
            with self.shared_errors(step):
                self.write_rank(step, cursor)
            sharded = is_sharded(weights.values())
            digests = self.write_shards(step, {**weights, **moments(optimizer)}) if sharded else {}
            with self.shared_errors(step):
                if self.is_main:
                    self.write_shared(step, {} if sharded else weights, optimizer, state, digests)
                    self.publish(step)
                    self.drop_old(step)
        except RunError:
            if self.is_main:
                shutil.rmtree(self.partial_path(step), ignore_errors=True)
            raise

    @contextmanager
    def shared_errors(self, step: int) -> Iterator[None]:
        with raise_on_all_ranks(self.accelerator), disk_errors(f"{self.path(step)} was not written", self.kept):
            yield

    def write_rank(self, step: int, cursor: Mapping[str, Any]) -> None:
        """This rank's random state and place in the data."""
        partial = self.partial_path(step)
        save_tensors(random_state(), random_state_file(partial, self.rank))
        cursor_file(partial, self.rank).write_bytes(storage.to_json(cursor))

    def write_shards(self, step: int, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """This rank's part of the weights and of the optimizer: digests of the files of all ranks."""
        partial = self.partial_path(step)
        failed = result_or_error(lambda: save_shards(tensors, partial))
        with self.shared_errors(step):
            if isinstance(failed, Exception):
                raise failed
            own = {path.name: file_digest(path) for path in partial.glob(f"shard-{self.rank + 1:05d}-*")}
        return dict(gather_from_ranks(self.accelerator, list(own.items())))

    def write_shared(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Any],
        state: Mapping[str, Any],
        digests: Mapping[str, Any],
    ) -> None:
        """What is the same on all ranks; last the file that says that all is there. `digests`: of files of ranks."""
        partial = self.partial_path(step)
        if weights:
            save_weights(weights, partial / WEIGHTS_FILE)
            save_tensors(dict(optimizer), partial / OPTIMIZER_FILE)
        (partial / STATE_FILE).write_bytes(storage.to_json({**state, "step": step}))
        files = {path.name: digests.get(path.name) or file_digest(path) for path in sorted(partial.iterdir())}
        (partial / DONE_FILE).write_bytes(storage.to_json({"step": step, "files": files}))

    def publish(self, step: int) -> None:
        """Give the checkpoint its own name, when all of it is on the disk."""
        partial, final = self.partial_path(step), self.path(step)
        for path in (*partial.iterdir(), partial):
            sync_to_disk(path)
        if final.exists():
            shutil.rmtree(final)
        os.replace(partial, final)
        sync_to_disk(self.folder)

    def drop_old(self, step: int) -> None:
        """All but the newest and the best; and any of a later step: it was broken when the run went on from an older
        one.
        """
        paths = self.all()
        later = {path for path in paths if path.name > self.path(step).name}
        best = set() if self.also_kept is None else {self.path(self.also_kept)}
        for old in sorted({*paths[: -self.keep]} - best | later):
            self.remove(old)

    def remove(self, old: Path) -> None:
        """What cannot be removed (a file of NFS that somebody reads) costs room, and no run."""
        try:
            shutil.rmtree(old)
        except OSError as e:
            self.log(f"{old}: could not be removed ({e.strerror or one_line(e)}); the run goes on, remove it by hand")

    def choose(self) -> Path | None:
        """The newest whole checkpoint: the main rank looks, and tells the others. It removes half-written ones.

        RunError where a rank does not see it.
        """
        newest: list[Path | None] = []
        with raise_on_all_ranks(self.accelerator):
            if self.is_main:
                for partial in self.folder.glob(f".*{PARTIAL}"):
                    self.remove(partial)
                newest = [self.newest()]
        chosen = gather_from_ranks(self.accelerator, newest)[0]
        with raise_on_all_ranks(self.accelerator):
            if chosen is not None:
                self.check(chosen)
        return chosen

    def check(self, checkpoint: Path) -> None:
        if not (checkpoint / DONE_FILE).exists():
            raise RunError(f"{checkpoint}: not seen by rank {self.rank}; run.out must be a folder that all ranks share")

    @staticmethod
    def state(checkpoint: Path) -> dict[str, Any]:
        return read_state(checkpoint)

    @staticmethod
    def cursors(checkpoint: Path) -> list[dict[str, Any]]:
        """The places in the data of all ranks that wrote it, by rank."""
        ranks = len(list(checkpoint.glob("rank-*.json")))
        return [json.loads(cursor_file(checkpoint, rank).read_bytes()) for rank in range(ranks)]

    def all(self) -> list[Path]:
        """Oldest first, whole or not."""
        return checkpoint_paths(self.folder)

    def kept(self) -> str:
        """What a run that stops leaves, in words."""
        paths = self.all()
        return f"{paths[-1].name} is kept" if paths else "there is no checkpoint yet"

    def newest(self) -> Path | None:
        """The newest whole checkpoint. Each newer one that is not whole is named in the log."""
        paths = self.all()
        for path in reversed(paths):
            problem = damage(path)
            if problem is None:
                return path
            next_try = "trying the one before" if path != paths[0] else "there is none before; beginning anew"
            self.log(f"checkpoint {path.name} is not whole ({problem}); {next_try}")
        return None


def cursor_file(checkpoint: Path, rank: int) -> Path:
    return checkpoint / f"rank-{rank}.json"


def sync_to_disk(path: Path) -> None:
    """Wait until it is on the disk itself: a rename may otherwise outlive the data that it names."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
