"""The `coat` command: parses, then calls one function per command. Heavy imports wait until then."""

import os
import signal
import sys
import threading
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from coat.cli import doctor
from coat.cli.data import manifest, shards
from coat.cli.targets import experts, extract, inspect, plan, stats, status, verify
from coat.cli.telemetry import silence
from coat.cli.trained import (
    benchmarks,
    compare,
    evaluate,
    export,
    fidelity,
    generate,
    intervene,
    listen,
    probe,
    report,
    serve_check,
)
from coat.cli.training import inspect_batch, plan_train, runs, train
from coat.cli.whole import quickstart, run

EPILOG = (
    "Try it:  [bold]coat quickstart --out runs/quickstart[/bold]\n\n"
    "The main job:  coat extract → coat build-shards → coat train → coat export\n\n"
    "All of it from one file:  coat run recipe.toml"
)

UNEXPECTED = (  # under a traceback
    "This is a fault of coat, or of what it runs on. `coat doctor` says whether this machine is to blame, and what to\n"
    "do. Else please report it: the template .github/ISSUE_TEMPLATE/bug.yml asks for the command, these lines, and\n"
    "the output of `coat doctor --json`."
)
LEAVE_S = 3.0  # for threads to end, at the exit

# Panels of `coat --help`, in the order of the work.
START, CORPUS, TARGETS, SHARDS, TRAINING, TRAINED = PANELS = (
    "Start here",
    "1. A corpus",
    "2. Targets of experts",
    "3. Shards",
    "4. Training",
    "5. A trained student",
)


class InPanelOrder(TyperGroup):
    """Lists commands by panel: typer itself would put groups of commands, such as `manifest`, last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: PANELS.index(self.commands[name].rich_help_panel))  # type: ignore[attr-defined]


app = typer.Typer(
    name="coat",
    cls=InPanelOrder,
    help="Continuous Audio Thinking: run frozen audio experts over a corpus once, then train a large audio "
    "language model to keep what they extract.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("quickstart", rich_help_panel=START)(quickstart.quickstart)
app.command("run", rich_help_panel=START)(run.run)
app.command("doctor", rich_help_panel=START)(doctor.doctor)
app.add_typer(manifest.app, name="manifest", rich_help_panel=CORPUS)
app.command("experts", rich_help_panel=TARGETS)(experts.experts)
app.command("plan", rich_help_panel=TARGETS)(plan.plan)
app.command("extract", rich_help_panel=TARGETS)(extract.extract)
app.command("status", rich_help_panel=TARGETS)(status.status)
app.command("verify", rich_help_panel=TARGETS)(verify.verify)
app.command("stats", rich_help_panel=TARGETS)(stats.stats)
app.command("inspect", rich_help_panel=TARGETS)(inspect.inspect)
app.command("build-shards", rich_help_panel=SHARDS)(shards.build_shards)
app.add_typer(shards.app, name="shards", rich_help_panel=SHARDS)
app.command("plan-train", rich_help_panel=TRAINING)(plan_train.plan_train)
app.command("inspect-batch", rich_help_panel=TRAINING)(inspect_batch.inspect_batch)
app.command("train", rich_help_panel=TRAINING)(train.train)
app.command("runs", rich_help_panel=TRAINING)(runs.runs)
app.command("tiny-student", rich_help_panel=TRAINING)(train.tiny_student)
app.command("generate", rich_help_panel=TRAINED)(generate.generate)
app.command("listen", rich_help_panel=TRAINED)(listen.listen)
app.command("evaluate", rich_help_panel=TRAINED)(evaluate.evaluate)
app.command("compare", rich_help_panel=TRAINED)(compare.compare)
app.command("report", rich_help_panel=TRAINED)(report.report)
app.command("benchmarks", rich_help_panel=TRAINED)(benchmarks.benchmarks)
app.add_typer(benchmarks.app, name="benchmark", rich_help_panel=TRAINED)
app.command("fidelity", rich_help_panel=TRAINED)(fidelity.fidelity)
app.command("probe", rich_help_panel=TRAINED)(probe.probe)
app.command("intervene", rich_help_panel=TRAINED)(intervene.intervene)
app.command("export", rich_help_panel=TRAINED)(export.export)
app.command("serve-check", rich_help_panel=TRAINED)(serve_check.serve_check)


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from coat import __version__

        typer.echo(f"coat {__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; what goes wrong in a known way is one line on stderr and an exit code."""
    silence()
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    try:
        app(args=arguments)
    except Interrupted:
        typer.echo("interrupted; what was committed is kept, and the same command goes on from there", err=True)
        leave(130, at_once=arguments is None)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has what they wanted
        sys.exit(0)
    except Exception as e:
        from coat.manifests.errors import InputError, RunError  # numpy and all: --help does without

        if not isinstance(e, InputError | RunError):
            e.add_note(UNEXPECTED)
            raise
        typer.echo(f"error: {e}", err=True)
        leave(2 if isinstance(e, InputError) else 1, at_once=arguments is None)


def leave(code: int, at_once: bool) -> NoReturn:
    """Exit; Python waits for threads, which may hang in a model or on a disk: not `at_once` for longer than LEAVE_S."""
    if at_once:
        watchdog = threading.Timer(LEAVE_S, os._exit, [code])
        watchdog.daemon = True
        watchdog.start()
    sys.exit(code)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not a KeyboardInterrupt: typer would swallow that before anything can be said."""


def interrupt(signum: int, frame: Any) -> None:
    raise Interrupted
