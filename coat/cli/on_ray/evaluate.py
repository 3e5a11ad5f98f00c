"""`coat evaluate --ray-address`: ranks are tasks on a cluster, each with its share of the batches; this process scores.

A rank writes its answers into the folder, which all of them see, as under `accelerate launch`. One that is lost is
started again by Ray, and goes on from what it wrote.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coat.cli.on_ray.ranks import Workers, enter_folder, plain_error
from coat.manifests import InputError, RunError
from coat.pipeline.cluster.ray_connection import connected
from coat.pipeline.cluster.ray_errors import error_summary
from coat.pipeline.cluster.signals import held_signals
from coat.trainer.evaluation.asking.chat import ChatClient
from coat.trainer.evaluation.asking.loop import AnswerFiles
from coat.trainer.evaluation.evaluation import MakeJudge, Progress, Ranks, ask, begin, end
from coat.trainer.evaluation.finishing import all_asks
from coat.trainer.evaluation.out_folder import read_asked
from coat.trainer.evaluation.results import Results
from coat.trainer.evaluation.settings import EvaluationSettings

POLL_S = 1.0  # between looks at what is answered
LOOK_SHARE = 0.05  # of the time, at most, that looking takes: all answers are read


def evaluate_on_ray(
    settings: EvaluationSettings,
    out: Path,
    workers: Workers,
    *,
    threads: int = 2,
    progress: Progress = Progress(),
    make_judge: MakeJudge = lambda judge: ChatClient(judge.url, judge.model),
) -> Results:
    """As `evaluate`, by `workers` that decode with `threads` each. Data, student and `out` must be where all of them,
    and this process, see them.

    InputError and RunError as `evaluate`; RunError where a rank is lost too often, or there is no cluster.
    """
    import ray

    if settings.subject.kind not in ("run", "student"):
        raise InputError(f"--ray-address: for --run and --student; a {settings.subject.kind} is asked from here")
    out = out.absolute()
    settings, asked = begin(settings, out, progress)
    with connected(workers.cluster()):
        workers.say_room(progress.log)
        task: Any = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus, max_retries=workers.retries)(ask_as_rank)
        ranks = [task.remote(str(out), rank, workers.count, threads, os.getcwd()) for rank in range(workers.count)]
        try:
            wait_for(ranks, shown_answers(settings, out, progress))
        finally:
            for rank in ranks:
                ray.cancel(rank, force=True)
    return end(settings, asked, out, make_judge, progress)


def wait_for(ranks: list[Any], look: Callable[[], None]) -> None:
    """InputError or RunError of the first rank that has one."""
    import ray
    from ray.exceptions import RayError

    waiting = list(ranks)
    with held_signals() as deliver:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=POLL_S)
            deliver()
            look()
            for rank in done:
                try:
                    error = ray.get(rank)
                except RayError as e:
                    raise RunError(f"a rank failed: {error_summary(e)}; the same command goes on") from e
                if error is not None:
                    raise error


def shown_answers(settings: EvaluationSettings, out: Path, progress: Progress) -> Callable[[], None]:
    """Tells the progress how many answers have come since it last looked."""
    asks, shown = {one.key for one in all_asks(settings, read_asked(out, settings))}, 0
    next_look = 0.0

    def look() -> None:
        nonlocal shown, next_look
        began = time.monotonic()
        if began < next_look:
            return
        answered = len(asks & AnswerFiles(out).answered().keys())
        progress.asks(answered - shown, len(asks))
        shown = answered
        now = time.monotonic()
        next_look = now + (now - began) / LOOK_SHARE

    return look


def ask_as_rank(out: str, rank: int, count: int, threads: int, folder: str) -> InputError | RunError | None:
    """On a worker. What the user did wrong, or the world, is returned: starting again would not help."""
    from coat.trainer.evaluation.asking.who import make_asker

    enter_folder(folder)
    path = Path(out)
    try:
        if not (path / "config.toml").exists():
            raise RunError(f"{out}: not seen by rank {rank}; --out must be a folder that all ranks share")
        settings = EvaluationSettings.read(path)
        asked = read_asked(path, settings)
        ask(settings, asked, path, make_asker, ranks=Ranks(rank, count), workers=threads, progress=Progress())
    except (InputError, RunError) as e:
        return plain_error(e)
    return None
