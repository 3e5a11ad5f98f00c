"""Ranks as real processes that can really be killed, without the seconds that each would take to import torch.

They are forked from a server that has everything imported, are told of each other as torchrun does it, and end as it
ends them: when one fails, the others are killed.
"""

import json
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers.utils.logging import disable_progress_bar

from coat.manifests import RunError
from coat.trainer.config.train_config import TrainConfig
from tests.integration.helpers import ROOT, forked_python

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.trainer.training.preloaded"])
GRACE_S = 10.0  # for the others, when a rank has failed: they may be about to say the same


def run_ranks(ranks: int, function: Callable[..., None], *args: Any, timeout: float = 300) -> list[int | None]:
    """Call a module's function in so many processes; their exit codes: 0, 1 where it raised, -9 where it was killed."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    processes = [SERVER.Process(target=one_rank, args=(rank, ranks, port, function, args)) for rank in range(ranks)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + timeout
    while alive := [p for p in processes if p.is_alive()]:
        wait([p.sentinel for p in alive], timeout=max(0.0, deadline - time.monotonic()))
        if any(p.exitcode for p in processes):
            deadline = min(deadline, time.monotonic() + GRACE_S)
        if time.monotonic() >= deadline:
            for p in alive:
                p.kill()
            wait([p.sentinel for p in alive])
    return [p.exitcode for p in processes]


def one_rank(rank: int, ranks: int, port: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    torch.set_num_threads(1)
    disable_progress_bar()
    function(*args)


def launch(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """A launcher of ranks on CPUs, in a process of its own, as are its ranks."""
    python = folder / "python"  # what torchrun starts them with
    python.write_text(f'#!/bin/sh\nexec {shlex.join(forked_python())} "$@"\n')
    python.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHON_EXEC": str(python)}
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # else ranks that are started anew read old addresses
    done = subprocess.run(
        [python, "-m", *map(str, command)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def accelerate_launch(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Two ranks of a module, as people launch them on a machine of CPUs."""
    settings = ["--cpu", "--num_processes", 2, "--num_machines", 1, "--mixed_precision", "no", "--dynamo_backend", "no"]
    return launch(folder, "accelerate.commands.launch", *settings, "-m", *command)


def train_and_die(config: TrainConfig, deadly: tuple[int, int, str] | None, out: Path) -> None:
    """Train; `deadly` (rank, step, where): that rank is killed with signal 9 there.

    Where: `step`, behind a forward pass of it; `weights`, `done` or `rename`: in the writing of the checkpoint behind
    it, before these. Lines of the log go to `out`; the error that ends it too.
    """
    from coat.trainer.training import train
    from coat.trainer.training.checkpointing import checkpoints
    from coat.trainer.training.step import trainer

    def line(text: str) -> None:
        with out.open("a") as f:
            f.write(text + "\n")

    rank = int(os.environ.get("RANK", "0"))
    if deadly and deadly[0] == rank:
        arm(checkpoints, trainer, deadly[1], deadly[2])
    try:
        train.train(config, log=line)
    except Exception as e:  # noqa: BLE001 - the test reads it
        line(f"rank {rank}: {type(e).__name__}: {e}")
        raise SystemExit(1) from None


def train_and_log_ids(config: TrainConfig, steps: int | None, out: Path) -> None:
    """Train so many steps (None: to the end); the ids of a rank's batches go to a file beside the run."""
    from coat.trainer.training import train

    def line(text: str) -> None:
        with out.open("a") as f:
            f.write(text + "\n")

    calls: list[int] = []
    with noting_ids(config):
        train.train(config, log=line, stop=lambda: calls.append(1) or len(calls) == steps)


@contextmanager
def noting_ids(config: TrainConfig) -> Iterator[None]:
    """The ids of this rank's batches go to a file beside the run."""
    from coat.trainer.training.step.trainer import Trainer

    file = Path(f"{config.run.out}.ids-{os.environ.get('RANK', '0')}")
    step = Trainer.step

    def noted(trainer: Trainer, batches: Any, *, stop: bool = False, error: Exception | None = None) -> bool:
        with file.open("a") as f:
            f.write("".join(f"{i}\n" for batch in batches for i in batch.ids))
        return step(trainer, batches, stop=stop, error=error)

    Trainer.step = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        Trainer.step = step  # type: ignore[method-assign]


def arm(checkpoints: Any, trainer: Any, step: int, where: str) -> None:
    def deadly(owner: Any, name: str, due: Callable[..., bool]) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if due(*args):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, call)

    if where == "step":
        deadly(trainer.Trainer, "weighted_mean", lambda trainer, *_: trainer.steps_done == step - 1)
        return
    name = f".step-{step:08d}.partial"
    owner, call = {
        "weights": (checkpoints, "save_weights"), "done": (checkpoints, "file_digest"),
        "rename": (checkpoints, "sync_to_disk"),
    }[where]  # fmt: skip
    deadly(owner, call, lambda *args: any(name in str(a) for a in args if isinstance(a, Path)))


def train_sharded(config: TrainConfig, deadly: tuple[int, int, str] | None, out: Path) -> None:
    """The same as `accelerate launch --use_fsdp --fsdp_version 2` has it."""
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    train_and_die(config, deadly, out)


def count_shards(config: TrainConfig, out: Path) -> None:
    """Write what a rank holds where weights are sharded: values of frozen parameters by whether layers own them; and
    how often weights are gathered in a held-out evaluation. A rank that reads the student, and is not the first, fails.
    """
    from coat.trainer.data.data_sets import DataSets
    from coat.trainer.model import build
    from coat.trainer.run_folder import RunFolder
    from coat.trainer.training.distributed.parallel import make_accelerator
    from coat.trainer.training.run import TrainingRun

    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    if os.environ["RANK"] != "0":
        build.load_student = None  # type: ignore[assignment]
    data, folder = DataSets.open(config.data), RunFolder(Path(config.run.out))
    run = TrainingRun(config, data, folder, make_accelerator(config), lambda _: None, lambda _: None)
    model = run.model
    held = {"layers": [0, 0], "rest": [0, 0], "trained": [0, 0], "heads": [0, 0]}
    for name, p in model.named_parameters():
        kind = "trained" if p.requires_grad else "layers" if "language_model.layers" in name else "rest"
        kind = "heads" if name.startswith("heads.") else kind
        here: Any = p.to_local() if isinstance(p, DTensor) else p
        held[kind][0] += here.numel()
        held[kind][1] += p.numel()
    before = [p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor)]
    gathered = count_gathers(run)
    after = [p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor)]
    assert after == before  # sharded again
    (out / f"held-{os.environ['RANK']}.json").write_text(json.dumps({**held, "gathered": gathered}))


def count_gathers(run: Any) -> dict[str, int]:
    """All-gathers of a held-out evaluation, and what it evaluated."""
    from torch.profiler import ProfilerActivity, profile

    assert run.held_out is not None
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        results = run.held_out.evaluate(lambda batch: run.trainer.forward(batch, run.model))
    events: Any = profiled.events()
    gathers = sum(event.name == "FSDP::all_gather" or "FSDP::all_gather (" in event.name for event in events)
    return {"gathers": gathers, "answers": len(results.answers), "samples": int(results.values["samples"])}


def train_offloaded(config: TrainConfig, out: Path) -> None:
    """With weights that the launcher wants in the host's memory."""
    os.environ["FSDP_OFFLOAD_PARAMS"] = "true"
    train_sharded(config, None, out)


def save_gradients(config: TrainConfig, out: Path) -> None:
    """Those of a run's first step, as each rank has them."""
    from coat.trainer.training import train
    from coat.trainer.training.step import trainer

    def stop_here(trained: dict[str, Any]) -> None:
        gradients = {name: p.grad.contiguous() for name, p in trained.items()}
        save_file(gradients, out / f"{os.environ.get('RANK', 'alone')}.safetensors")
        raise RunError("the gradients are saved")

    trainer.gradient_norms = stop_here  # type: ignore[assignment]
    with pytest.raises(RunError, match="are saved"):
        train.train(config)


if __name__ == "__main__":  # under torchrun: rank 1 is killed in step 5, unless torchrun has restarted them
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    train_and_die(TrainConfig.read(sys.argv[1]), (1, 5, "step") if first else None, Path(sys.argv[2]))
