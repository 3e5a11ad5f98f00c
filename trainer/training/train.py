"""`train`: open a run's folder, and train or go on with the run."""

from collections.abc import Callable
from pathlib import Path

from coat.manifests import ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.experts import same_experts
from coat.trainer.ranks import raise_on_all_ranks
from coat.trainer.run_folder import RunFolder
from coat.trainer.training.metrics_log import Report
from coat.trainer.training.parallel import make_accelerator
from coat.trainer.training.run import TrainingRun, TrainResult
from coat.trainer.training.trackers import check_trackers


def train(
    config: TrainConfig,
    *,
    restart: bool = False,
    change: bool = False,
    on_report: Callable[[Report], None] = lambda _: None,
    log: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train, or go on with, the run of `config.run.out`.

    `restart` drops the run that is there; `change` goes on with it though optimizer, losses or stages differ.
    `on_report` is called at every logged step, `log` with single lines for the user; both on the main rank. `stop` is
    called in every step: True, on any rank, ends the run after it, as SIGTERM does.
    InputError: the folder holds a run with another config, or data and student do not fit. RunError: the run cannot
    get anywhere (see watchdog.Watchdog); its last checkpoint stays.
    """
    check_trackers(config.run.trackers)
    folder = RunFolder(Path(config.run.out))
    accelerator = make_accelerator(config)
    log_on_main = log if accelerator.is_main_process else lambda _: None
    with raise_on_all_ranks(accelerator):
        config = folder.as_begun(config, restart, log_on_main)
    with raise_on_all_ranks(accelerator):
        index = ShardIndex.read(config.data.shards)
        if accelerator.is_main_process:
            for line in folder.open(config, index, restart, change):
                log_on_main(f"changed from here on: {line}")
    with raise_on_all_ranks(accelerator):
        folder.check_shared(accelerator.process_index)
        index = same_experts(config, folder.index, index)
    if folder.finished:
        early = f" at step {folder.done_step}" if folder.done_step < config.steps else ""
        log_on_main(f"{folder.path}: this run is finished{early}; --restart trains it anew")
        return TrainResult(folder.path, folder.done_step, True, 0.0, {})
    return TrainingRun(config, index, folder, accelerator, on_report, log_on_main).run(stop)
