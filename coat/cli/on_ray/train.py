"""`coat train --ray-address`: the ranks are workers of Ray Train's TorchTrainer, this process shows their messages.

Ray starts the ranks and connects them. When one is lost, it starts all of them again, and they resume from the last
checkpoint as any run does. A small actor carries their messages here, and the wish to stop to them.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coat.cli.on_ray.ranks import Workers, enter_folder, plain_error
from coat.manifests import InputError, RunError
from coat.pipeline.cluster.ray_connection import connected
from coat.pipeline.cluster.ray_errors import error_summary
from coat.trainer import TrainConfig, TrainResult
from coat.trainer.data.data_sets import DataSets
from coat.trainer.run_folder import RunFolder
from coat.trainer.training.reporting.metrics_log import Report
from coat.trainer.training.stopping import stop_signals
from coat.trainer.training.train import open_run, train

POLL_S = 0.2  # between looks for messages
GRACE_S = 30.0  # for all ranks to end, once one has said why it failed
LAUNCHER_VARIABLES = ("ACCELERATE_", "FSDP_")  # variables that `accelerate launch` sets, for ranks as for this process


class MessageQueue:
    """An actor that carries messages from the ranks to the process that started them, and its wish to stop back."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, Any]] = []
        self.stop_requested = False

    def put(self, kind: str, value: Any) -> None:
        self.messages.append((kind, value))

    def take_all(self) -> list[tuple[str, Any]]:
        messages, self.messages = self.messages, []
        return messages

    def request_stop(self) -> None:
        self.stop_requested = True

    def must_stop(self) -> bool:
        return self.stop_requested


def train_on_ray(
    config: TrainConfig,
    workers: Workers,
    *,
    restart: bool = False,
    change: bool = False,
    on_report: Callable[[Report], None] = lambda _: None,
    log: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """As `train`, on `workers`. The run's folder and the shards must be where all of them, and this process, see them.

    InputError and RunError as `train`; RunError where workers fail too often, or there is no cluster.
    """
    folder = RunFolder(Path(config.run.out))
    for line in open_run(folder, config, DataSets.of_run(config), restart, change):  # not anew with each start
        log(f"changed from here on: {line}")
    with connected(workers.cluster()):
        workers.say_room(log)
        storage = folder.path.absolute().with_name(f"{folder.path.name}.ray")  # where Ray keeps its own notes
        try:
            return forward_messages(RayTrainRun(config, workers, storage), on_report, log)
        finally:
            shutil.rmtree(storage, ignore_errors=True)


class RayTrainRun:
    """TorchTrainer at work, in a thread of its own: Ray's calls do not survive a signal."""

    def __init__(self, config: TrainConfig, workers: Workers, storage: Path) -> None:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        self.queue: Any = ray.remote(num_cpus=0)(MessageQueue).remote()
        environment = {name: value for name, value in os.environ.items() if name.startswith(LAUNCHER_VARIABLES)}
        job = {"config": config.to_dict(), "queue": self.queue, "folder": os.getcwd(), "environment": environment}
        resources = {"CPU": workers.cpus, **({"GPU": workers.gpus} if workers.gpus else {})}
        self.trainer = TorchTrainer(
            run_rank,
            train_loop_config=job,
            scaling_config=ScalingConfig(
                num_workers=workers.count, use_gpu=workers.gpus > 0, resources_per_worker=resources
            ),
            run_config=RunConfig(
                name=f"{time.time_ns()}",
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=workers.retries),
            ),
        )
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            self.trainer.fit()
        except Exception as e:  # noqa: BLE001 - raised by `forward_messages`
            self.error = e


def forward_messages(run: RayTrainRun, on_report: Callable[[Report], None], log: Callable[[str], None]) -> TrainResult:
    """Pass on what the ranks say until they have ended. A first signal stops them behind their step."""
    import ray

    starts, stop_sent, result = 0, False, None
    failed: tuple[float, Exception] | None = None  # since when, and why
    with stop_signals() as stopped:
        while True:
            ended = not run.thread.is_alive()
            for kind, value in ray.get(run.queue.take_all.remote()):
                if kind == "start":
                    starts += 1
                    if starts > 1:
                        log("a worker was lost; all of them start anew")
                elif kind == "report":
                    on_report(value)
                elif kind == "line":
                    log(value)
                elif kind == "result":
                    result = value
                elif failed is None:
                    failed = time.monotonic(), value
            if ended or (failed and time.monotonic() - failed[0] > GRACE_S):
                break
            if stopped and not stop_sent:
                stop_sent = True
                ray.get(run.queue.request_stop.remote())
            time.sleep(POLL_S)
    if failed:
        raise failed[1]
    if result is None:
        raise workers_failed(run.error)
    return result


def workers_failed(error: Exception | None) -> RunError:
    """Why there is no result: of several workers' failures the first that is not a peer's."""
    failures = list(getattr(error, "worker_failures", {}).values())
    return RunError(
        f"the workers failed: {error_summary(failures[0] if failures else error or RuntimeError('no result'))}"
    )


def run_rank(job: dict[str, Any]) -> None:
    """One rank, in a Ray worker. What `train` refuses is sent as a message, not raised: a restart would not help."""
    import ray
    from ray.train import get_context

    queue, main = job["queue"], get_context().get_world_rank() == 0
    os.environ |= job["environment"]
    enter_folder(job["folder"])

    def send(kind: str, value: Any) -> None:
        ray.get(queue.put.remote(kind, value))

    try:
        if main:
            send("start", None)
        result = train(
            TrainConfig.from_dict(job["config"], "the run's config"),
            on_report=lambda report: send("report", report),
            log=lambda line: send("line", line),
            stop=lambda: main and ray.get(queue.must_stop.remote()),
        )
        if main:
            send("result", result)
    except (InputError, RunError) as e:
        send("error", plain_error(e))
