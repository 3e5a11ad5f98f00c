"""The pages of the Python interface: what each package names in `__all__`, from its docstrings; and the contracts."""

import ast
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "reference/python"
PACKAGES = {
    "manifests": "Manifests",
    "extractors": "Experts",
    "pipeline": "Extraction and shards",
    "trainer": "Training",
}

CONTRACTS = {  # what is derived from, or called, beside what packages name
    "extractors": ("coat.extractors.conformance.suite.run_checks",),
    "pipeline": (
        "coat.pipeline.statistics.compute.compute_statistics",
        "coat.pipeline.inspect.inspection.inspect",
        "coat.pipeline.inspect.page.inspection_page",
    ),
    "manifests": ("coat.manifests.corpus.synthesis.make_corpus",),
    "trainer": ("coat.trainer.students.base.Student", "coat.trainer.evaluation.benchmark.Benchmark"),
}

HEAD = """\
# Python

What each package names for others to use, made from its docstrings. Everything else may change without a word. In
docstrings
letters behind a name are the shape of an array: `frames_ND` is [N, D], N frames of D dimensions.

| package | what it is |
|---|---|
"""


def navigation() -> list[Any]:
    return [f"{FOLDER}/index.md", *({f"coat.{name}": f"{FOLDER}/{name}.md"} for name in PACKAGES)]


def pages() -> dict[str, str]:
    index = HEAD + "".join(
        f"| [`coat.{name}`]({name}.md) | {title}: {len(names(name))} names |\n" for name, title in PACKAGES.items()
    )
    return {f"{FOLDER}/index.md": index, **{f"{FOLDER}/{name}.md": page(name) for name in PACKAGES}}


def page(package: str) -> str:
    tree = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
    head = f"# coat.{package}\n\n{ast.get_docstring(tree)}\n"
    listed = [f"::: {path}\n" for path in (*names(package).values(), *CONTRACTS.get(package, ()))]
    return "\n".join([head, *listed])


def names(package: str) -> dict[str, str]:
    """Where each name of `__all__` is defined."""
    tree = parse(f"coat.{package}")
    (listed,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    ]
    imports = imported(tree)
    return {name: defined(*imports[name]) for name in listed}


def parse(module: str) -> ast.Module:
    path = ROOT / module.removeprefix("coat.").replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """By name, the module that it is taken from, and its name there."""
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def defined(module: str, name: str) -> str:
    """A module may only pass on what another one defines."""
    further = imported(parse(module)).get(name)
    return defined(*further) if further else f"{module}.{name}"
