"""The commands of coat as recipes see them: their options, whether a command line is one, what a command answers."""

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from typer.exceptions import TyperException

from coat.recipe.grammar import Grammar, Option, nearest

USED = (
    "manifest import", "manifest split", "manifest synthetic", "extract", "stats", "build-shards", "tiny-student",
    "train", "fidelity", "probe", "listen", "evaluate", "report", "export",
)  # fmt: skip

T = TypeVar("T")


def grammar_of(root: Any, folder: Path) -> Grammar:
    """Of the command line itself (a typer group), so that a recipe takes the options that the commands take.

    `folder`: where commands run; paths count from it.
    """

    def there(call: Callable[..., T], *arguments: Any) -> T:
        with contextlib.chdir(folder):
            return call(*arguments)

    return Grammar(
        {name: options_of(command_of(root, name.split(" "))) for name in USED},
        check=lambda words: there(mistake, root, words),
        ask=lambda words: there(answer, root, words),
        unusable=lambda expert: there(unusable, expert),
        version=lambda expert: there(version, expert),
    )


def command_of(root: Any, names: Sequence[str]) -> Any:
    for name in names:
        root = root.commands[name]
    return root


def options_of(command: Any) -> dict[str, Option]:
    """By key: the longest flag without dashes."""
    found: dict[str, Option] = {}
    for parameter in command.params:
        flags = [flag for flag in parameter.opts if flag.startswith("--")]
        if parameter.param_type_name != "option" or not flags:
            continue
        flag = max(flags, key=len)
        off = next((one for one in parameter.secondary_opts if one.startswith("--")), None)
        key = flag.removeprefix("--").replace("-", "_")
        found[key] = Option(flag, bool(parameter.is_flag), off, bool(parameter.multiple))
    return found


def mistake(root: Any, words: Sequence[str]) -> str | None:
    """What is wrong with a command line, in one line: by its own parser; then its experts, config, benchmarks."""
    from coat.manifests.errors import InputError

    names = words[:2] if words[0] == "manifest" else words[:1]
    try:
        with command_of(root, names).make_context(" ".join(names), list(words[len(names) :])) as context:
            parsed = dict(context.params)
        CHECKS.get(names[0], lambda _: None)(parsed)
    except TyperException as e:
        return " ".join(e.format_message().split()).rstrip(".")
    except InputError as e:
        return str(e)
    return None


def check_extract(parsed: Mapping[str, Any]) -> None:
    from coat.extractors.registry import expert_names
    from coat.manifests.errors import InputError

    known = expert_names()
    for name in parsed["expert"]:
        if ":" not in name and name not in known:
            raise InputError(f"--expert {name}: no such expert; {nearest(name, known)}")


def check_train(parsed: Mapping[str, Any]) -> None:
    from coat.cli.training.train import settings_of

    flags = {"student.path": parsed["student"], "data.shards": parsed["shards"], "run.out": parsed["out"]}
    settings_of(parsed["config"], flags, parsed["set_"])


def check_evaluate(parsed: Mapping[str, Any]) -> None:
    from coat.manifests.errors import InputError
    from coat.trainer.evaluation.registry import benchmark_names

    known = benchmark_names()
    for name in parsed["benchmark"] or ():
        if ":" not in name and name not in known:
            raise InputError(f"--benchmark {name}: no such benchmark; {nearest(name, known)}")


CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    "extract": check_extract, "train": check_train, "evaluate": check_evaluate
}  # fmt: skip


def answer(root: Any, words: Sequence[str]) -> Any:
    """The --json document of a command that only looks, run in this process. Errors are its own."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        root.main(args=[*words, "--json"], prog_name="coat", standalone_mode=False)
    return json.loads(said.getvalue())


def unusable(expert: str) -> str | None:
    """InputError: no such expert."""
    from coat.extractors.registry import find, why_unusable

    return why_unusable(find(expert).card)


def version(expert: str) -> Any:
    """Of an expert's code; None where there is no such expert, which `check` says."""
    from coat.extractors.registry import find
    from coat.manifests.errors import InputError

    try:
        return find(expert).version
    except InputError:
        return None
