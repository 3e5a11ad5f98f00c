"""`--filter "duration < 30 and language == 'en'"`: an expression over the keys of a manifest's row.

A small language that is interpreted here; nothing of Python is evaluated. Names are the row's keys (None where a row
has no such key), with `duration` in decoded seconds; `len(text)` counts characters. A comparison with None other than
`==` and `!=` is false.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from coat.manifests.errors import InputError

ManifestRow = Mapping[str, Any]
Evaluate = Callable[[ManifestRow], Any]

ORDERED: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
EQUAL: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {ast.Eq: operator.eq, ast.NotEq: operator.ne}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def row_filter(text: str) -> Callable[[ManifestRow], bool]:
    """A function that says of a row whether it is kept.

    InputError where the text is not such an expression, or a row has values that it cannot take.
    """
    try:
        value = compile_expression(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, NotImplementedError, RecursionError) as e:
        raise InputError(
            f"--filter {text!r}: {getattr(e, 'msg', e)}; expected comparisons of a row's keys with and, or, not, "
            "as \"duration < 30 and language == 'en'\""
        ) from e

    def accepts(row: ManifestRow) -> bool:
        try:
            return bool(value(row))
        except (TypeError, ZeroDivisionError) as e:
            raise InputError(f"--filter {text!r}: row {row.get('id')!r}: {e}") from e

    return accepts


def compile_expression(node: ast.expr) -> Evaluate:
    match node:
        case ast.Constant(value=str() | int() | float() | None as constant):
            return lambda row: constant
        case ast.Name(id=name):
            return lambda row: row.get(name)
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            values = [compile_expression(p) for p in parts]
            return lambda row: [v(row) for v in values]
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            value = compile_expression(inner)
            return lambda row: not value(row)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            value = compile_expression(inner)
            return lambda row: -value(row)
        case ast.BoolOp(op=op, values=parts):
            values, combine = [compile_expression(p) for p in parts], all if isinstance(op, ast.And) else any
            return lambda row: combine(v(row) for v in values)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            a, b, apply = compile_expression(left), compile_expression(right), ARITHMETIC[type(op)]
            return lambda row: apply(a(row), b(row))
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(o) in EQUAL | ORDERED for o in ops):
            sides = [compile_expression(left), *(compile_expression(r) for r in rest)]
            return lambda row: all(compare(o, a(row), b(row)) for o, a, b in zip(ops, sides, sides[1:], strict=False))
        case ast.Call(func=ast.Name(id="len"), args=[inner], keywords=[]):
            value = compile_expression(inner)
            return lambda row: len(value(row) or "")
    raise NotImplementedError(f"{ast.unparse(node)} is not understood")


def compare(op: ast.cmpop, a: Any, b: Any) -> bool:
    if type(op) in EQUAL:
        return EQUAL[type(op)](a, b)
    return a is not None and b is not None and ORDERED[type(op)](a, b)
