"""The runs of a folder, compared: state, steps, last figures, and what differs between their configs."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from coat.manifests import InputError, RunError, storage
from coat.manifests.processes import process_is_alive, this_process
from coat.trainer.config.resume import tables
from coat.trainer.records.best import BestRecord
from coat.trainer.records.checkpoint_files import checkpoint_paths, step_of
from coat.trainer.run_folder import PROCESS_FILE, RunFolder, read_evaluations, read_metrics

State = Literal["running", "finished", "early", "stopped", "unreadable"]
SILENT_S = 1800.0  # a run of another host that has logged nothing for so long is taken to have stopped
NEVER_COMPARED = ("run.out",)


@dataclass(frozen=True)
class RunSummary:
    """One run. `early`: finished by `run.patience`; `stopped`: the same command goes on with it."""

    name: str  # its path within the folder that was looked into
    state: State
    step: int = 0  # of its last checkpoint, or its last line of metrics.jsonl while it runs
    steps: int = 0  # of all its stages
    figures: Mapping[str, Any] = field(default_factory=dict)  # the last line of metrics.jsonl
    held_out: Mapping[str, Any] = field(default_factory=dict)  # the last line of evaluation.jsonl
    best: BestRecord | None = None
    config: Mapping[str, Any] = field(default_factory=dict)  # by dotted key
    problem: str | None = None  # why it is unreadable

    def to_dict(self) -> dict[str, Any]:
        best = None if self.best is None else self.best.model_dump()
        return {
            "run": self.name, "state": self.state, "step": self.step, "steps": self.steps,
            "figures": dict(self.figures), "held_out": dict(self.held_out), "best": best,
            "config": dict(self.config), "problem": self.problem,
        }  # fmt: skip


def runs_of(folder: str | Path) -> list[RunSummary]:
    """The run that a folder is, or those in it, down to folders of folders. InputError where there are none."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    found = (
        [root]
        if is_run(root)
        else sorted(p.parent for depth in ("*", "*/*") for p in root.glob(f"{depth}/config.toml"))
    )
    runs = [path for path in found if is_run(path)]
    if not runs:
        raise InputError(f"{root}: no runs in it; expected folders that `coat train --out` wrote")
    return [summary(path, path.name if path == root else str(path.relative_to(root))) for path in runs]


def is_run(path: Path) -> bool:
    """config.toml alone may be anything; a run has the index of its shards beside it."""
    return (path / "config.toml").is_file() and (path / "index.json").is_file()


def summary(path: Path, name: str) -> RunSummary:
    folder = RunFolder(path)
    try:
        config = folder.config
        metrics = read_metrics(path) if (path / "metrics.jsonl").exists() else []
        evaluations, best = read_evaluations(path), BestRecord.read(path)
        state, step = state_of(folder, config.steps), last_step(folder, metrics)
    except (InputError, RunError, OSError, KeyError, ValueError) as e:
        return RunSummary(name, "unreadable", problem=str(e))
    return RunSummary(
        name, state, step, config.steps, last(metrics), last(evaluations), best, flat(tables(config))
    )  # fmt: skip


def last(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return rows[-1] if rows else {}


def last_step(folder: RunFolder, metrics: Sequence[Mapping[str, Any]]) -> int:
    if folder.finished:
        return folder.done_step
    kept = [step_of(path) for path in checkpoint_paths(folder.checkpoints)]
    return max([*kept, *(row["step"] for row in metrics[-1:])], default=0)


def state_of(folder: RunFolder, steps: int) -> State:
    if folder.finished:
        return "early" if folder.done_step < steps else "finished"
    return "running" if is_at_work(folder.path) else "stopped"


def is_at_work(run: Path) -> bool:
    """Whether the process that wrote process.json runs; one of another host is believed while it logs."""
    file = run / PROCESS_FILE
    try:
        process = json.loads(file.read_bytes())
        logged = max(p.stat().st_mtime for p in (file, run / "metrics.jsonl") if p.exists())
    except (FileNotFoundError, ValueError):
        return False
    alive = process_is_alive(process["host"], process["pid"], process["started"])
    return time.time() - logged < SILENT_S if alive is None else alive


def note_process(run: Path) -> None:
    """Say which process trains a run."""
    host, pid = this_process().rsplit("+", 1)
    started = psutil.Process(os.getpid()).create_time()
    storage.write_bytes(str(run / PROCESS_FILE), storage.to_json({"host": host, "pid": int(pid), "started": started}))


def drop_process(run: Path) -> None:
    with suppress(OSError):  # it is only asked whether that process still runs
        (run / PROCESS_FILE).unlink()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """By dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return found


def differing(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """What is not the same in all readable runs, by dotted key: a value a run, None where it has no such key."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    values = {key: [run.config.get(key) for run in runs if run.config] for key in keys if key not in NEVER_COMPARED}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}
