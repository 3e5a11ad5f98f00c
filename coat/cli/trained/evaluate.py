"""Command `evaluate`: parses, and calls one function."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.options import AllowHttp, Json
from coat.cli.output import table
from coat.cli.progress import progress
from coat.cli.training.train import quiet, say

if TYPE_CHECKING:
    from coat.trainer.evaluation.asking.chat import Servers
    from coat.trainer.evaluation.checks.cost import Cost
    from coat.trainer.evaluation.evaluation import Progress
    from coat.trainer.evaluation.results import BenchmarkResults, Results
    from coat.trainer.evaluation.settings import EvaluationSettings

KEY_VARIABLE = "OPENAI_API_KEY"
SERVED_RATE = 16000  # Hz: what the feature extractors of today's LALMs take
SHOWN_GROUPS = 12  # values of a key in the table

Benchmarks = Annotated[
    list[str] | None,
    typer.Option(
        "--benchmark", help="Name from [bold]coat benchmarks[/bold], or file.py:Class. Repeat, with its --data."
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", help="Manifest, or the benchmark's official file; repeat in the order of --benchmark."),
]


def evaluate(
    benchmark: Benchmarks = None,
    data: Data = None,
    out: Annotated[str | None, typer.Option(help="Folder of the evaluation; the same command goes on with it.")] = None,
    run: Annotated[str | None, typer.Option(help="Ask the student of this run.")] = None,
    step: Annotated[str | None, typer.Option(help="Of the run: this checkpoint, or best.")] = None,
    student: Annotated[str | None, typer.Option(help="Ask this student without coat: hub id or folder.")] = None,
    server: Annotated[str | None, typer.Option(help="Ask this OpenAI-compatible server: http://host:8000/v1.")] = None,
    model: Annotated[str | None, typer.Option(help="Of the server, where it has several.")] = None,
    audio_rate: Annotated[
        int, typer.Option(min=0, help="Hz, that a server is sent audio at; 0: each file's own.")
    ] = SERVED_RATE,
    predictions: Annotated[
        list[str] | None, typer.Option(help="Score this file of predictions; repeat in the order of --benchmark.")
    ] = None,
    prediction_key: Annotated[str | None, typer.Option(help="Where the answers are in it, if not found.")] = None,
    audio_root: Annotated[
        str | None, typer.Option(help="Folder that an official file's audio paths count from.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Named prompt template, or a text with {question} and {choices}.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="So many of each benchmark, drawn by --seed.")] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    guard: Annotated[int, typer.Option(min=0, help="Rows asked again with other audio and with silence.")] = 32,
    orders: Annotated[int, typer.Option(min=1, help="Ask with the choices in so many orders.")] = 1,
    train_shards: Annotated[
        list[str] | None, typer.Option(help="Name rows whose audio or question lies in these shards; repeat.")
    ] = None,
    cost: Annotated[int, typer.Option(min=0, help="Rows asked one by one, with a clock.")] = 8,
    cot: Annotated[
        int | None, typer.Option(min=1, help="Time the base student thinking in text, too, within so many tokens.")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer. Default: the benchmark's.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of a batch; of a server, requests at once.")] = 16,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Padded positions of a batch, with its answers.")] = 16384,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode audio ahead.")] = 2,
    dtype: Annotated[str, typer.Option(help="Of --student: auto, float32, bfloat16 or float16.")] = "auto",
    key_variable: Annotated[str, typer.Option(help="Environment variable with the server's key.")] = KEY_VARIABLE,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that a server has for an answer.")] = 600.0,
    judge: Annotated[
        str | None, typer.Option(help="Server (OpenAI-compatible) that judges answers no rule can score.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Of the judge's server, where it has several.")] = None,
    judge_key_variable: Annotated[str, typer.Option(help="Environment variable with its key.")] = KEY_VARIABLE,
    ray_address: Annotated[
        str | None, typer.Option(help="Ask on this Ray cluster (auto, or host:port), which sees --data and --out.")
    ] = None,
    ranks: Annotated[int, typer.Option(help="Ranks there.", min=1)] = 1,
    gpus_per_rank: Annotated[float, typer.Option(help="GPUs of a rank there.", min=0.0)] = 0.0,
    cpus_per_rank: Annotated[float, typer.Option(help="CPUs of a rank there.", min=0.1)] = 1.0,
    rescore: Annotated[str | None, typer.Option(help="Score this evaluation again, without asking.")] = None,
    allow_http: AllowHttp = False,
    json_output: Json = False,
) -> None:
    """Ask a student (or a server) the questions of benchmarks, and score its answers by two rules.

    Examples:

      coat evaluate --benchmark mmau --data mmau.jsonl --run runs/a --out evals/a-mmau

      coat evaluate --benchmark mmau --data mmau.jsonl --student Qwen/Qwen2-Audio-7B-Instruct --out evals/base

      coat evaluate --benchmark mmau --data mmau-test-mini.json --predictions answers.json --out evals/theirs

      coat evaluate --data questions.jsonl --server http://localhost:8000/v1 --out evals/served

      accelerate launch -m coat evaluate --data questions.jsonl --run runs/a --out evals/a

      coat evaluate --data questions.jsonl --run runs/a --out evals/a --ray-address auto --ranks 8 --gpus-per-rank 1
    """
    from coat.manifests.errors import InputError

    if rescore is not None:
        from coat.trainer.evaluation.finishing import rescore as score_again

        show(score_again(Path(rescore)), rescore, json_output)
        return
    if out is None:
        raise InputError("--out is missing; give the folder of the evaluation, or --rescore one that there is")
    settings = settings_of(
        benchmark, data,
        whom={"run": run, "student": student, "server": server, "predictions": predictions},
        subject={
            "step": step, "model": model, "dtype": dtype, "prediction_key": prediction_key,
            "audio_rate": (audio_rate or None) if server else None,
        },
        audio_root=audio_root, template=template, rows=rows, seed=seed, guard=guard, orders=orders,
        max_new_tokens=max_new_tokens, batch_size=batch_size, batch_tokens=batch_tokens,
        train_shards=train_shards or (), cost=cost, cot=cot,
        judge=None if judge is None else {"url": judge, "model": judge_model},
    )  # fmt: skip
    from coat.trainer.evaluation.asking.chat import Servers

    with quiet() if predictions is None else nullcontext():
        servers = Servers(key_variable, judge_key_variable, timeout)
        if ray_address is None:
            result = run_evaluation(settings, Path(out), workers, json_output, servers)
        else:
            from coat.cli.on_ray.evaluate import evaluate_on_ray
            from coat.cli.on_ray.ranks import Workers

            where = Workers(address=ray_address, count=ranks, gpus=gpus_per_rank, cpus=cpus_per_rank)
            with shown_progress(json_output) as told:
                result = evaluate_on_ray(
                    settings, Path(out), where, threads=workers, progress=told, make_judge=servers.judge
                )
    if result is not None:
        show(result, out, json_output)


def settings_of(
    benchmarks: list[str] | None,
    data: list[str] | None,
    *,
    whom: dict[str, Any],
    subject: dict[str, Any] | None = None,
    audio_root: str | None = None,
    template: str | None = None,
    **options: Any,
) -> "EvaluationSettings":
    """`whom` has one value; `options` are fields of EvaluationSettings. InputError where they do not fit each other."""
    from coat.manifests.errors import InputError
    from coat.trainer.evaluation.settings import EvaluationSettings

    names, paths = benchmarks or ["manifest"] * len(data or ()), data or []
    if not paths:
        raise InputError("--data is missing; give a manifest, or the benchmark's official file")
    if len(names) != len(paths):
        raise InputError(f"{len(names)} --benchmark and {len(paths)} --data; expected one --data for each")
    made = {
        "benchmarks": [
            {"name": name, "label": label, "data": path, "audio_root": audio_root, "template": template}
            for name, label, path in zip(names, labels(names, paths), paths, strict=True)
        ],
        "subject": subject_settings(whom, subject or {}, len(names)),
        **options,
    }
    return EvaluationSettings.from_dict(made, "coat evaluate")


def labels(names: list[str], paths: list[str]) -> list[str]:
    """The names; where one is asked of several data, each with the data's."""
    from coat.manifests.errors import InputError

    plain = [name.rsplit(":", 1)[-1] if ".py:" in name else name for name in names]
    often = Counter(plain)
    found = [
        name if often[name] == 1 else f"{name}:{Path(path).name.split('.')[0]}"
        for name, path in zip(plain, paths, strict=True)
    ]
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise InputError(f"{twice[0]} twice; evaluate them into two folders, and `coat compare` these")
    return found


def subject_settings(whom: dict[str, Any], subject: dict[str, Any], count: int) -> dict[str, Any]:
    from coat.manifests.errors import InputError

    given = {kind: value for kind, value in whom.items() if value}
    if len(given) != 1:
        raise InputError(
            f"{' and '.join('--' + kind for kind in given) or 'nobody to ask'}: expected one of --run, --student, "
            "--server and --predictions"
        )
    ((kind, value),) = given.items()
    if kind == "predictions" and len(value) != count:
        raise InputError(f"{len(value)} --predictions for {count} benchmarks; expected one for each")
    if subject.get("step") is not None and kind != "run":
        raise InputError(f"--step {subject['step']}: of a --run")
    if subject.get("model") is not None and kind != "server":
        raise InputError(f"--model {subject['model']}: of a --server")
    return {"kind": kind, "sources": value if isinstance(value, list) else [value], **subject}


def run_evaluation(
    settings: "EvaluationSettings",
    out: Path,
    workers: int,
    silent: bool,
    servers: "Servers | None" = None,
) -> "Results | None":
    """On this rank. None on all but the main one."""
    from coat.trainer.evaluation.asking.chat import Servers
    from coat.trainer.evaluation.evaluation import Progress, evaluate

    servers = servers or Servers()
    if settings.subject.kind == "predictions":  # nothing is asked: no student, and none of its libraries
        log = Progress(log=(lambda _: None) if silent else say)
        return evaluate(settings, out, no_asker, progress=log, make_judge=servers.judge)
    from coat.trainer.evaluation.asking.who import launched_ranks, make_asker

    ranks, device = launched_ranks()
    with shown_progress(silent or not ranks.is_main) as told:
        return evaluate(
            settings,
            out,
            lambda found: make_asker(found, device, servers),
            ranks=ranks,
            workers=workers,
            progress=told,
            make_judge=servers.judge,
        )


@contextmanager
def shown_progress(silent: bool) -> "Iterator[Progress]":
    """A bar on a terminal, lines elsewhere."""
    from coat.trainer.evaluation.evaluation import Progress

    with progress(None, "answers", "ask", quiet=silent) as advance:
        yield Progress(lambda n, total: advance(n, total), (lambda _: None) if silent else say)


def no_asker(settings: "EvaluationSettings") -> Any:
    raise AssertionError(f"nobody is asked where predictions are given, as by {settings.subject.kind}")


def show(results: "Results", out: str, as_json: bool) -> None:
    """The heading first; then tables by benchmark and group."""
    if as_json:
        typer.echo(json.dumps(results.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return
    from coat.trainer.evaluation.checks.cost import Cost

    typer.echo(results.heading)
    columns = ["rows", "official", "strict", "chance", "missing", "unparsed", "cut"]
    lines = [[label, *line_of(found, found)] for label, found in results.benchmarks.items()]
    table("Scores", ["benchmark", *columns], lines)
    for label, found in results.benchmarks.items():
        for key, values in found.groups.items():
            shown = list(values.items())[:SHOWN_GROUPS]
            table(f"{label} by {key}", [key, *columns], [[value, *line_of(found, part)] for value, part in shown])
        if found.orders is not None:
            o = found.orders
            typer.echo(
                f"{label}: {o.orders} orders of choices: {o.accuracy:.1%} right, the same choice in all of them for "
                f"{o.consistency:.1%} of {o.rows} rows, position bias {o.bias:.2f}"
            )
    if measured := Cost.read(Path(out)):
        show_cost(measured)
    typer.echo(f"Results: {Path(out) / 'results.json'}")


def show_cost(cost: "Cost") -> None:
    """One row who was asked, as the paper compares them."""
    columns = ["asked", "first token", "p95", "answer", "p95", "tokens/s", "prompt", "block", "answer tokens"]
    lines = []
    for mode, found in cost.modes.items():
        first = [seconds(found.first_token.p50), seconds(found.first_token.p95)] if found.first_token else ["-", "-"]
        tokens = [found.tokens_per_s, found.prompt_tokens, found.block_tokens, found.answer_tokens]
        numbers = ["-" if t is None else f"{t:,.1f}" for t in tokens]
        lines.append([mode, *first, seconds(found.total.p50), seconds(found.total.p95), *numbers])
    table(f"Cost, one by one, on {cost.device} ({cost.threads} threads)", columns, lines)
    if "server" in cost.modes and cost.modes["server"].first_token is None:
        typer.echo("The server does not say when its first token comes: it does not stream.")


def seconds(value: float) -> str:
    return f"{value:.3f} s"


def line_of(benchmark: "BenchmarkResults", part: Any) -> list[str]:
    metric = benchmark.metrics[0]
    official, strict = part.scores.official.get(metric), part.scores.strict.get(metric)
    figures = ["-" if v is None else f"{100 * v:.1f}%" for v in (official, strict, part.chance)]
    return [f"{part.rows:,}", *figures, *(f"{n:,}" for n in (part.missing, part.unparsed, part.cut))]
