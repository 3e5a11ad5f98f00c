"""The checkpoints of a run as they lie on the disk: which there are, whether one is whole, and which one is meant.

They are written by training/checkpointing/checkpoints.py, which says what is in them.
"""

import json
from pathlib import Path
from typing import Any, Literal

import xxhash

from coat.manifests import InputError, RunError
from coat.trainer.records.best import BestRecord
from coat.trainer.run_folder import RunFolder

DONE_FILE, STATE_FILE = "done.json", "state.json"
WEIGHTS_FILE, OPTIMIZER_FILE = "model.safetensors", "optimizer.pt"
AVERAGE = "ema."  # before the name of a moving average among the weights
BLOCK_BYTES = 1 << 24

Step = int | Literal["best"] | None  # None: the finished student, or else the newest checkpoint


def parse_step(text: str | None) -> Step:
    """What `--step` says. InputError unless it is a number of steps, or `best`."""
    if text is None or text == "best":
        return text
    if not text.isdecimal():
        raise InputError(f"--step {text}: expected the step of a checkpoint, or best")
    return int(text)


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def checkpoint_paths(folder: Path) -> list[Path]:
    """Oldest first, whole or not."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def chosen_checkpoint(run: RunFolder, step: Step) -> Path:
    """The checkpoint of a step, the best, or (None) the newest.

    InputError: there is none, with those that there are. RunError: it is not whole.
    """
    paths = checkpoint_paths(run.checkpoints)
    if not paths:
        raise InputError(f"{run.path}: no checkpoint in it yet; the same `coat train` command goes on with it")
    if step == "best":
        best = BestRecord.read(run.path)
        if best is None or best.step is None:
            raise InputError(
                f"{run.path}: no best checkpoint was kept; train with run.best (such as accuracy, or ce) and "
                f"evaluation.shards, or choose --step of {steps_text(paths)}"
            )
        step = best.step
    path = paths[-1] if step is None else run.checkpoints / checkpoint_name(step)
    if path not in paths:
        raise InputError(f"{run.path}: no checkpoint of step {step}; there are those of {steps_text(paths)}")
    if problem := damage(path):
        raise RunError(f"{path}: not whole ({problem}); choose another with --step: {steps_text(paths)}")
    return path


def steps_text(paths: list[Path]) -> str:
    return ", ".join(str(step_of(path)) for path in paths)


def is_sharded_checkpoint(checkpoint: Path) -> bool:
    """Whether weights and optimizer are in files of ranks: see training/checkpointing/checkpoints.py."""
    return not (checkpoint / WEIGHTS_FILE).exists()


def read_state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / STATE_FILE).read_bytes())


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint is not whole, or None."""
    try:
        files = json.loads((checkpoint / DONE_FILE).read_bytes())["files"]
        damaged = [name for name, digest in files.items() if file_digest(checkpoint / name) != digest]
    except FileNotFoundError as e:
        return f"no {Path(e.filename).name}"
    except OSError as e:
        return f"{e.filename}: {e.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{DONE_FILE} cannot be read"
    return f"{damaged[0]} is damaged" if damaged else None


def file_digest(path: Path) -> dict[str, Any]:
    digest = xxhash.xxh3_64()
    with path.open("rb") as f:
        while block := f.read(BLOCK_BYTES):
            digest.update(block)
    return {"bytes": path.stat().st_size, "xxh3": digest.hexdigest()}
