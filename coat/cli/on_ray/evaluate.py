"""`coat evaluate --ray-address`: ranks are tasks on a cluster, each with its share of the batches; this process scores.

A rank writes its answers into the folder, which all of them see, as under `accelerate launch`. One that is lost is
started again by Ray, and goes on from what it wrote.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coat.manifests import InputError, RunError
from coat.pipeline.cluster.ray_connection import connected
from coat.pipeline.cluster.ray_errors import error_summary
from coat.pipeline.cluster.resources import Cluster
from coat.trainer.evaluation.asking.chat import Servers
from coat.trainer.evaluation.asking.loop import AnswerFiles
from coat.trainer.evaluation.evaluation import Progress, Ranks, ask, begin, end
from coat.trainer.evaluation.finishing import all_asks
from coat.trainer.evaluation.out_folder import read_asked
from coat.trainer.evaluation.results import Results
from coat.trainer.evaluation.settings import EvaluationSettings

POLL_S = 1.0  # between looks at what is answered


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Ranks on a cluster. `retries`: how often a lost one is started anew."""

    address: str
    count: int = 1
    gpus: float = 0.0  # of each
    cpus: float = 1.0
    retries: int = 3


def evaluate_on_ray(
    settings: EvaluationSettings, out: Path, workers: Workers, threads: int, servers: Servers, progress: Progress
) -> Results:
    """As `evaluate`. Data, student and `out` must be where all ranks, and this process, see them."""
    import ray

    out = out.absolute()
    settings, asked = begin(settings, out, progress)
    cluster = Cluster(
        workers=workers.count, address=workers.address, cpus_per_worker=workers.cpus, gpus_per_worker=workers.gpus
    )
    with connected(cluster):
        task: Any = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=workers.retries)(ask_as_rank)
        ranks = [
            task.remote(str(out), rank, workers.count, threads, servers, os.getcwd()) for rank in range(workers.count)
        ]
        try:
            wait_for(ranks, shown_answers(settings, out, progress))
        finally:
            for rank in ranks:
                ray.cancel(rank, force=True)
    return end(settings, asked, out, servers.judge, progress)


def wait_for(ranks: list[Any], look: Callable[[], None]) -> None:
    """InputError or RunError of the first rank that has one."""
    import ray
    from ray.exceptions import RayError

    waiting = list(ranks)
    while waiting:
        done, waiting = ray.wait(waiting, timeout=POLL_S)
        look()
        for rank in done:
            try:
                said = ray.get(rank)
            except RayError as e:
                raise RunError(f"a rank failed: {error_summary(e)}; the same command goes on") from e
            if said is not None:
                kind, text = said
                raise InputError(text) if kind == "input" else RunError(text)


def shown_answers(settings: EvaluationSettings, out: Path, progress: Progress) -> Callable[[], None]:
    """Tells the progress how many answers have come since it last looked."""
    asks, shown = {one.key for one in all_asks(settings, read_asked(out, settings))}, [0]
    last = [0.0]

    def look() -> None:
        if time.monotonic() - last[0] < POLL_S:
            return
        last[0] = time.monotonic()
        answered = len(asks & AnswerFiles(out).answered().keys())
        progress.asks(answered - shown[0], len(asks))
        shown[0] = answered

    return look


def ask_as_rank(out: str, rank: int, count: int, threads: int, servers: Servers, folder: str) -> tuple[str, str] | None:
    """On a worker. What the user did wrong, or the world, is returned: starting again would not help."""
    from coat.trainer.evaluation.asking.who import make_asker

    if os.path.isdir(folder):
        os.chdir(folder)  # where relative paths are meant from
    path = Path(out)
    try:
        if not (path / "config.toml").exists():
            raise RunError(f"{out}: not seen by rank {rank}; --out must be a folder that all ranks share")
        settings = EvaluationSettings.read(path)
        ask(
            settings,
            read_asked(path, settings),
            path,
            lambda found: make_asker(found, None, servers),
            ranks=Ranks(rank, count),
            workers=threads,
            progress=Progress(),
        )
    except InputError as e:
        return "input", str(e)
    except RunError as e:
        return "run", str(e)
    return None
