"""A run's folder and its data, opened: what may differ from when the run stopped is said, the rest is refused."""

from dataclasses import replace

from coat.manifests import InputError
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.data_sets import DataSet, DataSets
from coat.trainer.data.sample_record import RunData, SampleRecord, longest_seconds, record_of
from coat.trainer.model.experts import same_experts
from coat.trainer.run_folder import RunFolder


def open_run(folder: RunFolder, config: TrainConfig, data: DataSets, restart: bool, change: bool) -> list[str]:
    """Make the folder, or check that it holds this same run: lines say what was changed on purpose.

    InputError where it holds something else. On the main rank alone.
    """
    run_data = RunData(folder.path)
    goes_on = folder.started and not restart
    changed = changed_sets(folder, run_data, data) if goes_on else []
    if changed and not change:
        raise InputError(f"{folder.path}: {'; '.join(changed)}; --change to go on with these, or use another --out")
    lines = folder.open(config, data.index, restart, change) + changed
    if goes_on and (changed or data.index.identity != folder.index.identity):
        begun = folder.index
        replace(same_experts(config, begun, data.index), sidecars={}).write(str(folder.path))
    known = run_data.read()
    identities = {one.name: one.index.identity for one in data.sets}
    if known is None or known["sets"] != identities or not all(map(run_data.has, identities.values())):
        records = [record_of(one.index) for one in data.sets]
        for record in records:
            run_data.keep(record)
        longest_s = longest_seconds(data, records) if known is None and not goes_on else run_data.longest_s
        run_data.write(identities, longest_s)
        lines += too_short_a_block(config, longest_s, longest_seconds(data, records))
    return lines


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
    same_experts(folder_config(folder), folder.index, data.index)
    return [
        describe_change(one, run_data.record(known["sets"][one.name]))
        for one in data.sets
        if one.name in known["sets"] and known["sets"][one.name] != one.index.identity
    ]


def folder_config(folder: RunFolder) -> TrainConfig:
    return TrainConfig.read(str(folder.config_file))


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


def too_short_a_block(config: TrainConfig, made_for_s: float | None, longest_s: float | None) -> list[str]:
    if config.thinking.rate_hz is None or made_for_s is None or (longest_s is not None and longest_s <= made_for_s):
        return []
    now = "longer audio" if longest_s is None else f"audio of up to {longest_s:g} s"
    return [f"thinking.rate_hz: the block was made for {made_for_s:g} s; {now} gets no more positions than that"]
