"""The `coat` command: parses, then calls one function per command. Heavy imports wait until then."""

import os
import signal
import sys
import threading
from typing import Any, NoReturn

import typer

from coat.cli import (
    experts,
    export,
    extract,
    generate,
    inspect,
    inspect_batch,
    manifest,
    plan,
    plan_train,
    quickstart,
    shards,
    stats,
    status,
    train,
)
from coat.cli.telemetry import silence

EPILOG = (
    "Start here:  [bold]coat quickstart --out runs/quickstart[/bold]\n\n"
    "The main job:  coat extract → coat build-shards → coat train → coat export"
)

LEAVE_S = 3.0

app = typer.Typer(
    name="coat",
    help="Continuous Audio Thinking: extract what frozen audio experts hear, frame by frame, once; "
    "then distil it into a large audio language model.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(manifest.app, name="manifest")
app.add_typer(shards.app, name="shards")
app.command("experts")(experts.experts)
app.command("plan")(plan.plan)
app.command("extract")(extract.extract)
app.command("status")(status.status)
app.command("verify")(extract.verify)
app.command("inspect")(inspect.inspect)
app.command("stats")(stats.stats)
app.command("build-shards")(shards.build_shards)
app.command("inspect-batch")(inspect_batch.inspect_batch)
app.command("plan-train")(plan_train.plan_train)
app.command("train")(train.train)
app.command("generate")(generate.generate)
app.command("export")(export.export)
app.command("tiny-student")(train.tiny_student)
app.command("quickstart")(quickstart.quickstart)


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
