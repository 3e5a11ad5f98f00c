"""`train`: open a run's folder and its data, and train or go on with the run.

What may differ from when the run stopped is said, the rest is refused.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from coat.manifests import InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.data_sets import DataSet, DataSets
from coat.trainer.data.sample_record import RunData, SampleRecord, longest_seconds, record_of
from coat.trainer.model.experts import same_experts
from coat.trainer.ranks import raise_on_all_ranks
from coat.trainer.run_folder import RunFolder
from coat.trainer.training.distributed.parallel import make_accelerator
from coat.trainer.training.reporting.metrics_log import Report
from coat.trainer.training.reporting.trackers import check_trackers
from coat.trainer.training.run import TrainingRun, TrainResult


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
        data = DataSets.of_run(config)
        if accelerator.is_main_process:
            for line in open_run(folder, config, data, restart, change):
                log_on_main(f"changed from here on: {line}")
    with raise_on_all_ranks(accelerator):
        folder.check_shared(accelerator.process_index)
        data = replace(data, index=same_experts(config, folder.index, data.index))
    if folder.finished:
        early = f" at step {folder.done_step}" if folder.done_step < config.steps else ""
        log_on_main(f"{folder.path}: this run is finished{early}; --restart trains it anew")
        return TrainResult(folder.path, folder.done_step, True, 0.0, {})
    for line in data.describe():
        log_on_main(line)
    return TrainingRun(config, data, folder, accelerator, on_report, log_on_main).run(stop)


def open_run(folder: RunFolder, config: TrainConfig, data: DataSets, restart: bool, change: bool) -> list[str]:
    """Make the folder, or check that it holds this same run: lines say what was changed on purpose.

    InputError where it holds something else. On the main rank alone.
    """
    if folder.finished and not restart and config.steps <= folder.done_step:
        return folder.open(config, data.index, restart, change)  # its record stays what it was trained on
    run_data = RunData(folder.path)
    goes_on = folder.started and not restart
    changed = changed_sets(folder, run_data, data) if goes_on else []
    if changed and not change:
        raise InputError(f"{folder.path}: {'; '.join(changed)}; --change to go on with these, or use another --out")
    lines = folder.open(config, data.index, restart, change) + changed
    if changed and folder.finished:  # it ended early; with other samples its patience begins again
        folder.extend(config, from_anew=True)
    if goes_on and (changed or data.index.identity != folder.index.identity):
        begun = folder.index
        replace(same_experts(config, begun, data.index), sidecars={}).write(str(folder.path))
    known = run_data.read()
    identities = {one.name: one.index.identity for one in data.sets}
    if known is None or known["sets"] != identities or not all(map(run_data.has, identities.values())):
        records = {one.name: record_of(one.index) for one in data.sets}
        for record in records.values():
            run_data.keep(record)
        audio_s = {name: record.longest_s for name, record in records.items()}
        block_s = longest_seconds(data, audio_s) if known is None and not goes_on else run_data.block_s
        run_data.write(identities, audio_s, block_s)
    return lines + too_short_a_block(config, data, run_data)


def changed_sets(folder: RunFolder, run_data: RunData, data: DataSets) -> list[str]:
    """What differs between the shards of a run and those that it is to go on with. InputError where it may not."""
    known = run_data.read()
    if known is None:  # of before there were records
        if folder.index.identity != data.index.identity:
            raise InputError(
                f"{data.index.path}: not the shards that {folder.path} was begun with, and it has no record of its "
                "samples (an earlier coat began it); resume with the same, or use another --out"
            )
        return []
    same_experts(folder.config, folder.index, data.index)
    return [
        describe_change(one, run_data.record(known["sets"][one.name]))
        for one in data.sets
        if one.name in known["sets"] and known["sets"][one.name] != one.index.identity
    ]


def describe_change(one: DataSet, then: SampleRecord) -> str:
    """How many samples were lost and gained. InputError where that cannot be known, or where nothing is the same."""
    now = record_of(one.index)
    if not (then.known and now.known):
        raise InputError(
            f"{one.index.path}: not the shards that this run stopped with, and without samples.parquet nobody knows "
            "which samples are the same; resume with the same shards, or use another --out"
        )
    same = len(set(then.samples.tolist()) & set(now.samples.tolist()))
    if not same:
        raise InputError(
            f"{one.index.path}: none of its {one.index.samples} samples is one of the {then.index.samples} that this "
            "run was trained on; resume with the same shards, or use another --out"
        )
    lost, new = then.index.samples - same, one.index.samples - same
    return f"{one.index.path}: {lost} samples are gone, {new} are new, {same} are as they were"


def too_short_a_block(config: TrainConfig, data: DataSets, run_data: RunData) -> list[str]:
    """A line where audio may be longer now than the run has thinking positions for."""
    made_for_s, longest_s = run_data.block_s, longest_seconds(data, run_data.audio_s)
    if config.thinking.rate_hz is None or made_for_s is None or (longest_s is not None and longest_s <= made_for_s):
        return []
    now = "longer audio" if longest_s is None else f"audio of up to {longest_s:g} s"
    return [f"thinking.rate_hz: the block was made for {made_for_s:g} s; {now} gets no more positions than that"]
