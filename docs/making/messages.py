"""Every error line of coat, as the source writes it: found by reading the code, nothing is run.

An error line is the message of an exception that reaches the user as one line (`manifests/errors.py`, and what derives
from those), of a setting or row that is refused, or the reason for which a row failed.
"""

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "manifests",
    "extractors",
    "pipeline",
    "trainer",
    "coat/cli",
    "coat/analysis",
    "coat/doctor",
    "coat/drawing",
    "coat/recipe",
)
BASES = {"InputError": 2, "RunError": 1, "AudioError": 0}  # exit codes; 0: it fails a row, and nothing else
REFUSED = {  # where a ValueError says what is wrong with a setting or a row, and is shown as one line
    "trainer/config/": 2,
    "manifests/corpus/": 2,
    "manifests/sources/": 2,
    "manifests/addresses/": 2,
    "trainer/evaluation/benchmarks/": 2,
}
WATCHDOG = "trainer/training/step/watchdog.py"  # puts a line together of step, problem and advice
HOLE = "…"
MOST = 8  # messages of one place
NO_CALLS = 3  # depth from which names and functions are not followed


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: constants, and what the names of its function may be."""

    names: dict[str, str]  # constants of its file
    local: dict[str, list[ast.expr]]


@dataclass(frozen=True)
class Message:
    """One error line. `text` has a name in ‹› or … where a value stands."""

    text: str
    exit_code: int
    file: str
    line: int

    @property
    def room(self) -> str:
        return self.file.rpartition("/")[0]

    @property
    def pattern(self) -> str:
        """A regular expression that a line of this message fits, of JavaScript and of Python."""
        parts = re.split(r"‹[^›]*›|…", self.text)
        return "[^]*?".join(re.escape(p).replace("\\ ", " ") for p in parts)

    @property
    def literal(self) -> int:
        """Letters that always stand in it: what makes it recognisable."""
        return len(re.sub(r"‹[^›]*›|…|\W", "", self.text))


@cache
def sources() -> dict[str, ast.Module]:
    """By file, relative to the checkout."""
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return {str(p.relative_to(ROOT)): ast.parse(p.read_text(encoding="utf-8")) for p in files}


@cache
def error_classes() -> dict[str, int]:
    """The classes that reach a user as one line, with the exit code of the command line."""
    found = dict(BASES)
    classes = [n for tree in sources().values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    before = -1
    while len(found) != before:
        before = len(found)
        for node in classes:
            codes = [found[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in found]
            if codes:
                found[node.name] = codes[0]
    return found


@cache
def constants(file: str) -> dict[str, str]:
    """Texts and numbers that a module gives a name in capitals, or takes from another one of ours."""
    found: dict[str, str] = {}
    for node in sources()[file].body:
        if isinstance(node, ast.ImportFrom) and (module := file_of(node.module)) and module != file:
            theirs = constants(module)
            found |= {a.asname or a.name: theirs[a.name] for a in node.names if a.name in theirs}
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(target, ast.Name) and target.id.isupper():
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str | int | float):
                found[target.id] = str(node.value.value)
            elif len(said := texts(node.value, Scope(found, {}), NO_CALLS)) == 1:
                found[target.id] = said[0]
    return found


def file_of(module: str | None) -> str | None:
    """Where a module of ours lies; None where it is none."""
    path = (module or "").removeprefix("coat.").replace(".", "/")
    names = [f"{path}.py", f"coat/{path}.py"] if (module or "").startswith("coat.") else []
    return next((name for name in names if name in sources()), None)


@cache
def functions() -> dict[str, list[tuple[str, ast.FunctionDef]]]:
    """By name, with their files."""
    found: dict[str, list[tuple[str, ast.FunctionDef]]] = {}
    for file, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, []).append((file, node))
    return found


@cache
def messages() -> tuple[Message, ...]:
    """In the order of the files; a message that stands in two places is there twice."""
    found = []
    for file, tree in sources().items():
        for function in scopes(tree):
            scope = Scope(constants(file), assigned(function))
            for node in (n for n in within(function) if isinstance(n, ast.Call) and n.args):
                for code, expression in raised(node, file):
                    for text in texts(expression, scope):
                        message = Message(text, code, file, node.lineno)
                        if message.literal >= 6:
                            found.append(message)
    return tuple(found)


def scopes(tree: ast.Module) -> Iterator[ast.AST]:
    yield tree
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def within(scope: ast.AST) -> Iterator[ast.AST]:
    """What stands in a module or function, without what stands in functions inside of it."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield child
        yield from within(child)


def assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """What the names of a function may be."""
    found: dict[str, list[ast.expr]] = {}
    for node in within(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
    return found


def raised(node: ast.Call, file: str) -> Iterator[tuple[int, ast.expr]]:
    """The message of what is raised, or of a problem with a row, and the exit code that it leads to."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    refused = [code for folder, code in REFUSED.items() if file.startswith(folder)]
    if name == "Problem" and len(node.args) == 3:
        yield 2, node.args[2]
    elif name == "ValueError" and refused:
        yield refused[0], node.args[-1]
    elif name in error_classes():  # the message is the last argument of an exception that has others, too
        yield error_classes()[name], node.args[-1]
    elif file == WATCHDOG and name in ("error", "skip") and len(node.args) == 3:
        parts = [ast.Constant("step …: "), node.args[1], ast.Constant("; "), node.args[2]]
        yield 1, functools.reduce(lambda a, b: ast.BinOp(a, ast.Add(), b), parts)


def texts(node: ast.expr, scope: Scope, depth: int = 0) -> list[str]:
    """What an expression may say, with holes for values; nothing where it only passes on what others said."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return joined(node.values, scope, depth)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (texts(side, scope, depth) or [HOLE] for side in (node.left, node.right))
        return [a + b for a in left for b in right]
    if isinstance(node, ast.IfExp):
        return [*texts(node.body, scope, depth), *texts(node.orelse, scope, depth)]
    if isinstance(node, ast.Name) and node.id in scope.names:
        return [scope.names[node.id]]
    if isinstance(node, ast.Name) and depth < NO_CALLS:
        return [t for value in scope.local.get(node.id, []) for t in texts(value, scope, depth + 1)]
    if isinstance(node, ast.Call) and depth < NO_CALLS:
        return returned(node, depth)
    return []


def returned(call: ast.Call, depth: int) -> list[str]:
    """What a function of ours, of which there is one of that name, gives back."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    known = functions().get(name, [])
    if len(known) != 1 or name == "one_line":
        return []
    file, function = known[0]
    inner = Scope(constants(file), assigned(function))
    values = [n.value for n in within(function) if isinstance(n, ast.Return) and n.value is not None]
    return [text for value in values for text in texts(value, inner, depth + 1)]


def joined(parts: list[ast.expr], scope: Scope, depth: int) -> list[str]:
    """An f-string: where a value may be one of a few texts, each of them."""
    found = [""]
    for part in parts:
        said = [str(part.value)] if isinstance(part, ast.Constant) else hole(part, scope, depth)
        found = [before + text for before in found for text in said][:MOST]
    return found


def hole(part: ast.expr, scope: Scope, depth: int) -> list[str]:
    """What stands for a value: its texts where the code has them, else its name."""
    assert isinstance(part, ast.FormattedValue)
    value = part.value
    if isinstance(value, ast.Name) and value.id in scope.names:
        return [scope.names[value.id]]
    if isinstance(value, ast.Call) and (said := [t for t in texts(value, scope, depth) if len(t) > 8]):
        return said
    if isinstance(value, ast.Name) and len(value.id) > 2:
        return [f"‹{value.id}›"]
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        return [f"‹{value.attr}›"]
    return [HOLE]
