"""The page of the training config: every key with its default, whether a resumed run may change it, and its meaning.

Meanings are the comments of `trainer/config/sections.py`: behind a field, and in the lines above it.
"""

import ast
import inspect
import re
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from coat.trainer.config import sections
from coat.trainer.config.train_config import TrainConfig
from docs.making.markdown import cell

RESUME = {"fixed": "", "with_change": "with `--change`", "free": "yes"}

HEAD = """\
# The training config

Every key of `coat train --config FILE.toml`, made from the code. A key is given in its section of the file, or on
the command line:
`--set optim.lr=5e-5`, `--set stages.0.steps=500`. `coat train` writes the whole configuration of a run to
RUN/config.toml.

*On resume* says whether a run that goes on may have another value than the one it began with: *yes*, only with
`--change`, or (empty) not
at all. [A run from its start to its end](../training/runs.md) says what that means. `configs/` has a file for each
student.
"""


def page() -> str:
    parts = [HEAD]
    for name, field in TrainConfig.model_fields.items():
        parts += tables(name, model_of(field.annotation))
    return "\n".join(parts)


def model_of(annotation: Any) -> type[BaseModel]:
    """The section's model, also of a section that may be there several times."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(model_of(part) for part in get_args(annotation) if part is not Ellipsis)


def is_nested(annotation: Any) -> bool:
    return any(isinstance(a, type) and issubclass(a, BaseModel) for a in get_args(annotation))


def tables(path: str, model: type[BaseModel]) -> list[str]:
    several = path in ("stages", "data.sets", "evaluation.benchmarks")
    lines = [f"## {'[[' if several else '['}{path}{']]' if several else ']'}\n"]
    if model.__doc__ and model.__dict__.get("__doc__"):
        lines.append(inspect.cleandoc(model.__doc__) + "\n")
    lines += ["| key | type | default | on resume | |", "|---|---|---|---|---|"]
    said = meanings(model)
    inner: list[str] = []
    properties = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        resume = RESUME[str(extra.get("on_resume", getattr(model, "on_resume", "fixed")))]
        if is_nested(field.annotation):
            inner += tables(f"{path}.{name}", model_of(field.annotation))
            kind = f"tables `[[{path}.{name}]]`"
        else:
            kind = type_text(properties[name])
        lines.append(f"| `{name}` | {kind} | {default(field)} | {resume} | {cell(said[name])} |")
    return [*lines, "", *inner]


def default(field: Any) -> str:
    if field.is_required():
        return "must be given"
    value = field.default_factory() if field.default is PydanticUndefined else field.default
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return "`{}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def type_text(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f'`"{v}"`' for v in schema["enum"])
    if "const" in schema:
        return f'`"{schema["const"]}"`'
    if "anyOf" in schema:
        return " or ".join(type_text(s) for s in schema["anyOf"] if s.get("type") != "null")
    kind = str(schema.get("type", ""))
    if kind == "array":
        return "list of " + type_text(schema["items"]) if "items" in schema else "list"
    if kind == "object":
        return "table"
    bounds = [
        f"{word} {schema[key]:g}"
        for key, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "below"),
        )
        if key in schema
    ]
    return " ".join([WORDS.get(kind, kind), *bounds])


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """By field, the lines of comment above it and the comment behind it."""
    source = inspect.getsource(sections).splitlines()
    (found,) = [
        n for n in ast.parse("\n".join(source)).body if isinstance(n, ast.ClassDef) and n.name == model.__name__
    ]
    said: dict[str, str] = {}
    for node in found.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        behind = source[(node.end_lineno or node.lineno) - 1][node.end_col_offset :]
        lines = [behind.strip()]
        at = node.lineno - 2
        while source[at].strip().startswith("#"):
            lines.insert(0, source[at].strip())
            at -= 1
        text = " ".join(line.removeprefix("#").strip() for line in lines if line)
        said[node.target.id] = re.sub(r"(?<![;,] )\bNone:", "Not given:", text[:1].upper() + text[1:]).replace(
            "None:", "not given:"
        )
    return said
