"""`coat run --dry-run`: what each stage would take, asked of `coat plan` and `coat plan-train`."""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coat.cli.output import bytes_text
from coat.manifests.errors import InputError, RunError

if TYPE_CHECKING:
    from coat.recipe.grammar import Grammar
    from coat.recipe.running import Job
    from coat.recipe.stages import Stage

PLANNED = (
    "--expert", "--manifest", "--store", "--checkpoint", "--layer", "--dtype", "--precision", "--compile",
    "--pad-margin", "--unit-bytes", "--gpus-per-worker", "--allow-http",
)  # options of extract that plan has, too  # fmt: skip


@dataclass
class Forecast:
    """Of one stage; None where it is not known, for the reason in `notes`."""

    name: str
    command: str
    state: str
    notes: list[str]
    hours: float | None = None
    bytes: float | None = None
    seconds: float | None = None
    cost: float | None = None


def forecast_job(job: "Job", grammar: "Grammar") -> list[Forecast]:
    """In order, from where the commands run. What is read is looked at; nothing is written."""
    with contextlib.chdir(job.recipe.folder):
        return forecast_stages(job, grammar)


def forecast_stages(job: "Job", grammar: "Grammar") -> list[Forecast]:
    found: list[Forecast] = []
    waiting: set[str] = set()  # paths that are made before
    for stage in job.chosen:
        reads = [place.path for place in stage.inputs]
        absent = job.notes.missing(stage, set())
        made = [place.path for place in absent if place.path in waiting]
        given = [place.path for place in absent if place.path not in waiting]
        follows = any(path in waiting for path in reads)
        verdict = None if absent else job.verdict(stage)
        state = (
            verdict.text()
            if verdict and not (verdict.done and follows)
            else "to do"
            if not verdict
            else "again, if what it reads changes"
        )
        one = Forecast(stage.name, job.shown(stage), state, [f"{path}: no such file or folder" for path in given])
        found.append(one)
        if verdict and verdict.done and not follows:
            continue
        waiting |= {place.path for place in stage.outputs}
        if made and not given and stage.command == "extract":
            one.notes.append(f"known when {made[0]} is made")
        if stage.command == "extract" and not absent:
            plan_extract(stage, one, grammar)
        if stage.command == "train":
            plan_train(stage, one, grammar, shards_are_there=not absent)
    return found


def plan_extract(stage: "Stage", one: Forecast, grammar: "Grammar") -> None:
    """Each expert by itself, where they have speeds of their own."""
    speeds, plan = stage.plan.get("speed"), stage.plan
    single = speeds if not isinstance(speeds, dict) else None
    for experts in [[e] for e in stage.experts] if isinstance(speeds, dict) else [list(stage.experts)]:
        speed = speeds.get(experts[0]) if isinstance(speeds, dict) else single
        words = ["plan", *planned(stage, experts)]
        workers = option(stage, "--workers") or "0"
        words += ["--workers", workers] if workers != "0" else []  # 0: in the process itself
        words += ["--speed", str(speed)] if speed else []
        words += ["--gpu-hour-price", str(plan["gpu_hour_price"])] if speed and "gpu_hour_price" in plan else []
        try:
            found = grammar.ask(words)
        except (InputError, RunError) as e:
            one.notes.append(str(e))
            continue
        whole = found["total"]
        one.notes += [
            f"{e['expert']}: {e['covered']:,} of {e['rows']:,} rows are there" for e in found["experts"] if e["covered"]
        ]
        one.hours = max(one.hours or 0.0, whole["hours"])
        for key in ("bytes", "seconds", "cost"):
            if whole[key] is not None:
                setattr(one, key, (getattr(one, key) or 0) + whole[key])
        if whole["seconds"] is None and whole["units"]:
            one.notes.append(f"time of {', '.join(experts)}: give [plan] speed")


def planned(stage: "Stage", experts: list[str]) -> list[str]:
    """The options that plan takes, of the extract's."""
    found, words = [], list(stage.arguments)
    while words:
        word = words.pop(0)
        value = [words.pop(0)] if words and not words[0].startswith("--") else []
        if word in PLANNED and not (word == "--expert" and value[0] not in experts):
            found += [word, *value]
    return found


def option(stage: "Stage", flag: str) -> str | None:
    return next(iter(options(stage, flag)), None)


def plan_train(stage: "Stage", one: Forecast, grammar: "Grammar", shards_are_there: bool) -> None:
    """Memory by plan-train; time by the steps and `[plan] samples_per_s`."""
    from coat.cli.training.train import settings_of

    plan, shards = stage.plan, option(stage, "--shards")
    flags = {"student.path": option(stage, "--student"), "data.shards": shards, "run.out": option(stage, "--out")}
    settings = settings_of(options(stage, "--config"), flags, options(stage, "--set"))
    samples = settings.steps * settings.data.batch_size * settings.run.accumulate * stage.processes
    one.notes.append(f"{settings.steps:,} steps, {samples:,} samples")
    if rate := plan.get("samples_per_s"):
        seconds = one.seconds = samples / rate
        if price := plan.get("gpu_hour_price"):
            one.cost = seconds / 3600 * stage.processes * price
    else:
        one.notes.append("time: give [plan] samples_per_s")
    words = [
        word for flag in ("--config", "--student", "--set") for value in options(stage, flag) for word in (flag, value)
    ]
    words += ["--shards", shards] if shards and shards_are_there else []
    words += [word for key in ("seconds", "tokens", "gpu") if key in plan for word in (f"--{key}", str(plan[key]))]
    try:
        found = grammar.ask(["plan-train", *words])
    except (InputError, RunError, OSError) as e:
        one.notes.append(f"memory: {e}")
        return
    how = "gradient_checkpointing" if settings.run.gradient_checkpointing else "no_checkpointing"
    one.notes.append(f"memory {bytes_text(found['total'][how]['without_experts'])}")
    if "fits" in found:
        fits = found["fits"][how]["without_experts"]
        one.notes.append(f"{'fits' if fits else 'does NOT fit'} {plan['gpu']}")


def options(stage: "Stage", flag: str) -> list[str]:
    words = stage.arguments
    return [words[i + 1] for i, word in enumerate(words) if word == flag]


def total_of(found: list[Forecast]) -> dict[str, Any]:
    """Sums of what is known; hours are of the longest corpus that is read."""
    keys = ("bytes", "seconds", "cost")
    sums = {key: [getattr(f, key) for f in found if getattr(f, key) is not None] for key in keys}
    hours = [f.hours for f in found if f.hours is not None]
    return {"hours": max(hours, default=None), **{key: sum(values) if values else None for key, values in sums.items()}}
