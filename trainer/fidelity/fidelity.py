"""`coat fidelity`: a run, and where it is given a run without distillation, over the same held-out shards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import Accelerator

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.fidelity.kept import BUDGET
from coat.trainer.fidelity.listening import Counts, index_with, listen
from coat.trainer.fidelity.measures.classes import PRESENT
from coat.trainer.fidelity.meter import FidelityMeter
from coat.trainer.fidelity.results import FLOOR, MEAN, RUN, FidelityResults
from coat.trainer.fidelity.scoring import score
from coat.trainer.generation.run_student import find_student, load_model
from coat.trainer.model.experts import experts_of, same_targets
from coat.trainer.records.checkpoint_files import Step
from coat.trainer.run_folder import RunFolder

GROUP_KEYS = ("corpus", "dataset", "group")  # of a manifest's row


@dataclass(frozen=True, kw_only=True)
class FidelityOptions:
    run: str
    shards: tuple[str, ...] = ()  # none: those of the run's evaluation
    step: Step = None
    floor_run: str | None = None
    samples: int | None = None  # the first so many of each set; None: all
    batch_size: int | None = None  # None: as the run was trained
    by: tuple[str, ...] = GROUP_KEYS
    present: float = PRESENT
    budget: int = BUDGET  # bytes of records, an expert


@dataclass
class OneRun:
    """A run with its heads, and what these were trained on."""

    path: str
    step: int
    config: TrainConfig
    experts: Mapping[str, ExpertInfo]
    meter: FidelityMeter
    counts: Counts


Start = Callable[[str, int], Callable[[int], None]]  # told of a pass and its clips; gives what is told of its progress


def measure_fidelity(
    options: FidelityOptions,
    accelerator: Accelerator | None = None,
    start: Start = lambda label, total: lambda n: None,
) -> FidelityResults:
    """The same on all ranks.

    InputError: no such run or shards, no heads, other targets than it was trained on, no clip that can be heard.
    """
    if not options.shards:
        held_out = run_config(options.run).evaluation.shards
        if held_out is None:
            raise InputError(f"{options.run}: has no evaluation.shards; give --shards with the targets of its experts")
        options = replace(options, shards=(held_out,))
    run = hear(options.run, options.step, options, accelerator, start, constants=True)
    kept = {name: {RUN: one, MEAN: run.meter.constant[name]} for name, one in run.meter.kept.items() if one.seen}
    if not kept:
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(run.counts.skipped.items())) or "they are empty"
        raise InputError(f"{', '.join(options.shards)}: no clip with a target that {run.path} distils ({why})")
    missing = [name for name in run.experts if name not in kept]
    notes = [f"no clip has a target of {', '.join(missing)}"] if missing else []
    if options.floor_run is not None:
        floor = hear(options.floor_run, None, options, accelerator, start)
        notes += floor_notes(run, floor)
        for name, by_subject in kept.items():
            if name in floor.meter.kept and floor.meter.kept[name].seen:
                by_subject[FLOOR] = floor.meter.kept[name]
    return FidelityResults(
        run=run.path,
        step=run.step,
        floor_run=options.floor_run,
        shards=options.shards,
        present=options.present,
        by=options.by,
        clips=run.counts.clips,
        skipped=dict(sorted(run.counts.skipped.items())),
        experts=tuple(score(name, run.meter.measures[name], by_subject) for name, by_subject in kept.items()),
        notes=tuple(notes),
    )


def hear(
    path: str,
    step: Step,
    options: FidelityOptions,
    accelerator: Accelerator | None,
    start: Start,
    constants: bool = False,
) -> OneRun:
    """The model is in memory only meanwhile."""
    saved, config = find_student(path, step), run_config(path)
    experts = experts_of(config, RunFolder(Path(path)).index)
    if not experts:
        raise InputError(
            f"{path}: has no heads, as it distils nothing; heads on a student without distillation come of a training "
            "with --set heads.detach=true"
        )
    indices = named_indices(options.shards, experts, path)
    total = sum(min(index.samples, options.samples or index.samples) for index in indices.values())
    model = load_model(path, str(accelerator.device) if accelerator else None, step)
    meter = FidelityMeter(model, experts, options.present, constants, options.budget)
    counts = listen(
        model, config, indices, meter, samples=options.samples, batch_size=options.batch_size, by=options.by,
        accelerator=accelerator, advance=start(path, total),
    )  # fmt: skip
    return OneRun(path, saved.step, config, experts, meter, counts)


def run_config(path: str) -> TrainConfig:
    folder = RunFolder(Path(path))
    if not folder.config_file.exists():
        raise InputError(f"{path}: no config.toml; expected what `coat train --out` wrote")
    return folder.config


def named_indices(shards: Sequence[str], experts: Mapping[str, ExpertInfo], run: str) -> dict[str, ShardIndex]:
    """By the name of the folder; where two are called the same, by the whole path."""
    names = [path.rstrip("/").rpartition("/")[2] for path in shards]
    return {
        name if names.count(name) == 1 else path: index_with(path, experts, run)
        for name, path in zip(names, shards, strict=True)
    }


def floor_notes(run: OneRun, floor: OneRun) -> list[str]:
    """What a reader has to know of the comparison. InputError where it is none."""
    shared = [name for name in run.experts if name in floor.experts]
    if not shared:
        raise InputError(f"{floor.path}: has heads of {', '.join(floor.experts)} and none of {', '.join(run.experts)}")
    for name in shared:
        if not same_targets(run.experts[name], floor.experts[name]):
            raise InputError(
                f"{floor.path}: was trained on other targets of {name} than {run.path}; train both on one set"
            )
    notes = []
    if not floor.config.heads.detach:
        notes.append(f"{floor.path} was trained with heads.detach = false: its student learnt from the experts, too")
    ours, its = ({**c.heads.model_dump(), "detach": None, "experts": None} for c in (run.config, floor.config))
    if ours != its:
        differing = ", ".join(f"heads.{key}" for key in ours if ours[key] != its[key])
        notes.append(f"{floor.path} has other heads ({differing}): part of the difference may be theirs")
    if run.config.steps != floor.config.steps:
        notes.append(f"{floor.path} has {floor.config.steps:,} steps, {run.path} {run.config.steps:,}")
    return notes
