"""The pages of the commands: every option with its default, as the command line itself has it."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from coat.cli.main import PANELS, app
from docs.making.markdown import cell

FOLDER = "reference/commands"
MARKUP = re.compile(r"\[/?(?:bold|dim|italic)\]")

EXIT_CODES = """\
Exit codes: 0 done; 1 failed; 2 wrong usage or bad input; 3 finished, but more rows failed than `--max-failed` allows;
130 interrupted (the same command goes on). `coat COMMAND --help` shows the same in a terminal.
"""


def tree() -> Any:
    return typer.main.get_command(app)


def panels() -> dict[str, dict[str, Any]]:
    """Commands by panel of `coat --help`, in its order."""
    commands = tree().commands
    return {panel: {n: c for n, c in commands.items() if c.rich_help_panel == panel} for panel in PANELS}


def slug(panel: str) -> str:
    return re.sub(r"\W+", "-", re.sub(r"^\d+\. ", "", panel)).strip("-").lower()


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command, or those of a group, by their whole names."""
    if hasattr(command, "commands"):
        for sub, inner in command.commands.items():
            yield from leaves(f"{name} {sub}", inner)
    else:
        yield name, command


def navigation() -> list[Any]:
    return [f"{FOLDER}/index.md", *({panel: f"{FOLDER}/{slug(panel)}.md"} for panel in panels())]


def pages() -> dict[str, str]:
    found = {f"{FOLDER}/index.md": index()}
    for panel, commands in panels().items():
        parts = [f"# {panel}\n"]
        for name, command in commands.items():
            parts += [section(full, leaf) for full, leaf in leaves(name, command)]
        found[f"{FOLDER}/{slug(panel)}.md"] = "\n".join(parts)
    return found


def index() -> str:
    lines = ["# Commands\n", "Made from the command line itself.\n", EXIT_CODES]
    for panel, commands in panels().items():
        lines += [f"## {panel}\n", "| command | what it does |", "|---|---|"]
        for name, command in commands.items():
            for full, leaf in leaves(name, command):
                link = f"{slug(panel)}.md#coat-{full.replace(' ', '-')}"
                lines.append(f"| [`coat {full}`]({link}) | {cell(plain(first_line(leaf)))} |")
        lines.append("")
    return "\n".join(lines)


def first_line(command: Any) -> str:
    return (command.help or "").strip().split("\n\n")[0]


def plain(text: str) -> str:
    """Without rich's markup: what stands in bold becomes code."""
    return MARKUP.sub("", re.sub(r"\[bold\](.*?)\[/bold\]", r"`\1`", text)).replace("\\[", "[")


def section(name: str, command: Any) -> str:
    said, examples = split_examples(plain(command.help or ""))
    lines = [f"## coat {name}\n", said, ""]
    if examples:
        lines += ["```sh", *examples, "```", ""]
    context = command.make_context(name, [], resilient_parsing=True)
    rows = [row(p, context) for p in command.params if not getattr(p, "hidden", False)]
    if rows:
        lines += ["| | default | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def split_examples(text: str) -> tuple[str, list[str]]:
    """What a command says of itself, and its examples; brackets two blanks behind one are a comment."""
    before, _, after = text.partition("Example")
    paragraphs = [" ".join(p.split()) for p in before.split("\n\n") if p.strip()]
    block = after.partition(":")[2]
    examples = []
    for line in re.split(r"\n\s*\n", block):
        one = line.strip()
        if one.startswith("coat "):
            command, _, note = re.sub(r"[ ]*\n\s*", " ", one).partition("  (")
            examples.append(f"{command}  # {note.rstrip(')')}" if note else command)
        elif one:
            paragraphs.append(" ".join(one.split()))
    return "\n\n".join(paragraphs), examples


def row(param: Any, context: Any) -> str:
    if param.param_type_name == "argument":
        name = f"`{(param.metavar or param.name.upper())}`"
    else:
        kind = param.display_type(context).strip("<>").removesuffix(" range").upper()
        takes = "" if param.is_flag else param.metavar or kind
        name = ", ".join(f"`{o}`" for o in [*param.opts, *param.secondary_opts]) + (
            f" `{cell(takes)}`" if takes else ""
        )
    return f"| {name} | {default(param)} | {cell(plain(said(param)))} |"


def default(param: Any) -> str:
    if param.required:
        return "must be given"
    value = param.default
    if callable(value) or value is None or value == [] or value == () or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{cell(str(getattr(value, 'value', value)))}`"


def said(param: Any) -> str:
    text = getattr(param, "help", None) or ""
    if getattr(param, "multiple", False) and "epeat" not in text:
        text += " May be repeated."
    if getattr(param, "envvar", None):
        text += f" Also by the variable {param.envvar}."
    low, high = getattr(param, "min", None), getattr(param, "max", None)
    if low is not None or high is not None:
        text += (
            f" From {low}." if high is None else f" From {low} to {high}." if low is not None else f" At most {high}."
        )
    return text
