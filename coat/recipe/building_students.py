"""The later stages of a recipe: the student, its training, and all that is done with a run."""

from pathlib import Path
from typing import Any

from coat.manifests.errors import InputError
from coat.recipe.building import Builder
from coat.recipe.grammar import Grammar, nearest, toml_text
from coat.recipe.reading import NUMBER, Recipe, Section
from coat.recipe.stages import Place, Stage, flatten

PLAN = ("speed", "gpu_hour_price", "gpu", "seconds", "tokens", "samples_per_s")
RUN, REPORT = "run", "report.html"


def build_stages(
    recipe: Recipe, grammar: Grammar, ray_address: str | None = None
) -> tuple[list[Stage], dict[str, str]]:
    """All stages in their order; experts that are left out, with the reason. InputError: a mistake in the recipe."""
    builder = Builder(recipe, grammar, ray_address)
    builder.plan = read_plan(recipe)
    builder.add_manifests()
    add_student(builder)
    builder.add_targets()
    builder.add_shards()
    add_train(builder)
    for add in (add_fidelity, add_probe, add_listen, add_evaluations, add_report, add_export):
        add(builder)
    if not builder.stages:
        raise InputError(
            f"{recipe.label}: nothing to do; expected sections such as [manifests.NAME] and [experts.NAME]"
        )
    return builder.stages, builder.left_out


def read_plan(recipe: Recipe) -> dict[str, Any]:
    """What a forecast is told: `[plan]`."""
    section = recipe.section("plan")
    if section is None:
        return {}
    found = dict(section.left)
    for key, value in found.items():
        if key not in PLAN:
            raise InputError(f"{section.where}.{key}: unknown; {nearest(key, PLAN)}")
        numbers = value.values() if key == "speed" and isinstance(value, dict) else [value]
        if key != "gpu" and not all(isinstance(n, NUMBER) and not isinstance(n, bool) and n > 0 for n in numbers):
            raise InputError(f"{section.where}.{key} = {value!r}: expected a number above 0")
    return found


def add_student(builder: Builder) -> None:
    """A tiny one, made here: for rehearsals."""
    if section := builder.recipe.section("student"):
        name, words = section.take("tiny", str), section.take("words", str)
        if name is None:
            raise InputError(f"{section.where}.tiny is missing; one that there is, is named by [train] student")
        out = builder.recipe.made("student")
        arguments, inputs = [name, out], []
        if words:
            path = builder.manifest(f"{section.where}.words", words)
            arguments, inputs = [*arguments, "--words", path], [Place("manifest", path)]
        outputs = [Place("tree", out, "student")]
        builder.add(
            "student",
            "tiny-student",
            arguments,
            section,
            values={"tiny": name},
            inputs=inputs,
            outputs=outputs,
            alone=True,
        )


def add_train(builder: Builder) -> None:
    section = builder.recipe.section("train")
    if section is None:
        return
    recipe = builder.recipe
    out, settings = recipe.made(section.take("out", str) or RUN), section.take("settings", dict) or {}
    configs = [recipe.given(path) for path in section.take_names("config") or []]
    shards = shards_of(builder, section, "shards", "train")
    valid = shards_of(builder, section, "valid", "valid")
    student = section.take("student", str)
    words = [word for path in configs for word in ("--config", path)]
    inputs = [Place("config", path, path) for path in configs]
    if "student" in recipe.tables:
        if student is not None:
            raise InputError(f"{section.where}.student: the recipe makes one, [student]; leave one of them out")
        student = recipe.made("student")
        inputs.append(Place("tree", student, "student"))
    elif student is not None and Path(recipe.folder, recipe.given(student)).exists():
        student = recipe.given(student)
        inputs.append(Place("tree", student, f"student {student}"))
    words += ["--student", student] if student is not None else []
    if shards is None:
        raise InputError(f"{section.where}.shards is missing; expected a name of [shards.NAME], or a path")
    words += ["--shards", shards, "--out", out]
    flat = flatten(settings)
    values: dict[str, Any] = {f"settings.{key}": value for key, value in flat.items()}
    if valid is not None:
        words += ["--set", f"evaluation.shards={toml_text(valid)}"]
        inputs.append(Place("shards", valid))
    for key, value in leaves(settings).items():
        words += ["--set", f"{key}={toml_text(value)}"]
    if student is not None and not any(place.path == student for place in inputs):
        values["student"] = student
    inputs.append(Place("shards", shards))
    builder.add("train", "train", words, section, values=values, inputs=inputs, outputs=[Place("run", out)])


def leaves(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; lists as they are, since `--set` replaces them whole."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def shards_of(builder: Builder, section: Section, key: str, usual: str) -> str | None:
    """The set that is named; else the one with the usual name, or (of training) the only one."""
    name = section.take(key, str)
    if name is None:
        only = [n for n in builder.shards if n != "valid"] if usual == "train" else []
        name = usual if usual in builder.shards else only[0] if len(only) == 1 else None
    return None if name is None else builder.shard_set(f"{section.where}.{key}", name)


def run_of(builder: Builder, section: Section) -> str:
    """The run of the recipe, or the one that is named."""
    run = section.take("run", str)
    if run is not None:
        return builder.recipe.given(run)
    for stage in builder.stages:
        if stage.name == "train":
            return stage.outputs[0].path
    raise InputError(f"{section.where}.run is missing; expected the folder of a run, or a section [train]")


def add_fidelity(builder: Builder) -> None:
    if section := builder.recipe.section("fidelity"):
        run, shards = run_of(builder, section), shards_of(builder, section, "shards", "valid")
        if shards is None:
            raise InputError(f"{section.where}.shards is missing; expected a name of [shards.NAME] of held-out clips")
        page = builder.recipe.made("fidelity.html")
        words = ["--run", run, "--shards", shards, "--out", page]
        inputs = [Place("run", run), Place("shards", shards)]
        builder.add("fidelity", "fidelity", words, section, inputs=inputs, outputs=[Place("page", page)])


def add_probe(builder: Builder) -> None:
    if section := builder.recipe.section("probe"):
        run, shards = run_of(builder, section), shards_of(builder, section, "shards", "valid")
        if shards is None:
            raise InputError(f"{section.where}.shards is missing; expected a name of [shards.NAME] of held-out clips")
        page, cache = builder.recipe.made("probes.html"), builder.recipe.made("states")
        words = [
            "--run",
            run,
            "--shards",
            shards,
            "--out",
            page,
            *([] if "cache" in section.left else ["--cache", cache]),
        ]
        inputs = [Place("run", run), Place("shards", shards)]
        builder.add("probe", "probe", words, section, inputs=inputs, outputs=[Place("page", page)])


def add_listen(builder: Builder) -> None:
    """A gallery of clips of a manifest, with the targets where there are some."""
    if section := builder.recipe.section("listen"):
        run, name = run_of(builder, section), section.take("manifest", str)
        if name is None:
            raise InputError(f"{section.where}.manifest is missing; expected a name of [manifests.NAME]")
        manifest, folder = builder.manifest(f"{section.where}.manifest", name), builder.recipe.made("heard")
        words = ["--run", run, "--manifest", manifest, "--out", folder]
        words += ["--store", builder.store] if builder.experts else []
        inputs = [Place("run", run), Place("manifest", manifest), *builder.targets()]
        outputs = [Place("page", f"{folder}/index.html")]
        builder.add("listen", "listen", words, section, inputs=inputs, outputs=outputs, alone=True)


def add_evaluations(builder: Builder) -> None:
    for name, section in builder.recipe.sections("evaluate").items():
        data, known = section.take_names("data"), builder.manifest_names()
        if data is None:
            raise InputError(f"{section.where}.data is missing; expected a manifest, or the benchmark's official file")
        paths = [known.get(one) or data_path(builder, section, one) for one in data]
        out = builder.recipe.made(section.take("out", str) or f"evaluations/{name}")
        words = [word for path in paths for word in ("--data", path)]
        inputs = [Place("manifest", path) for path in paths]
        if not {"student", "server", "predictions"} & section.left.keys():
            run = run_of(builder, section)
            words, inputs = [*words, "--run", run], [*inputs, Place("run", run)]
        outputs = [Place("evaluation", out)]
        builder.add(
            f"evaluate.{name}", "evaluate", [*words, "--out", out], section, inputs=inputs, outputs=outputs, alone=True
        )


def data_path(builder: Builder, section: Section, name: str) -> str:
    """What is no manifest of the recipe is a file; a name like one is a slip."""
    path, known = builder.recipe.given(name), builder.manifest_names()
    if "/" not in name and not Path(builder.recipe.folder, path).exists():
        hint = nearest(name, known, "expected a manifest of the recipe, or a file")
        raise InputError(f"{section.where}.data: {name}: neither a manifest of this recipe nor a file; {hint}")
    return path


def evaluations(builder: Builder) -> list[Place]:
    return [place for stage in builder.stages if stage.command == "evaluate" for place in stage.outputs]


def add_report(builder: Builder) -> None:
    if section := builder.recipe.section("report"):
        found = evaluations(builder)
        if not found:
            raise InputError(f"{section.where}: nothing to report; expected a section [evaluate.NAME]")
        page = builder.recipe.made(section.take("out", str) or REPORT)
        words = [*(place.path for place in found), "--out", page]
        builder.add("report", "report", words, section, inputs=found, outputs=[Place("page", page)])


def add_export(builder: Builder) -> None:
    """Its card has the evaluations of the run."""
    if section := builder.recipe.section("export"):
        run = run_of(builder, section)
        out = builder.recipe.made(section.take("out", str) or "exported")
        of_run = [
            stage.outputs[0]
            for stage in builder.stages
            if stage.command == "evaluate" and Place("run", run) in stage.inputs
        ]
        words = ["--run", run, "--out", out]
        if "evaluation" not in section.left:
            words += [word for place in of_run for word in ("--evaluation", place.path)]
        inputs = [Place("run", run), *of_run]
        builder.add(
            "export", "export", words, section, inputs=inputs, outputs=[Place("tree", out, "export")], alone=True
        )
