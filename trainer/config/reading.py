"""TOML files and `key=value` overrides, merged into one dictionary."""

import tomllib
from collections.abc import Mapping
from typing import Any

from coat.manifests import InputError, storage
from coat.trainer.config.sections import DEFAULT_STAGES


def read_toml(path: str) -> dict[str, Any]:
    """InputError: no such file, or not TOML."""
    try:
        return tomllib.loads(storage.read_bytes(path).decode())
    except FileNotFoundError as e:
        raise InputError(f"{path}: no such config") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: not TOML ({e})") from e


def merge_tables(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merged key by key; any other value is that of `above`."""
    tables = [key for key in above if isinstance(below.get(key), Mapping) and isinstance(above[key], Mapping)]
    return {**below, **above, **{key: merge_tables(below[key], above[key]) for key in tables}}


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set `a.b=value` of an `override` in `data`; the value is TOML where it parses as such, else a string."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override}: expected key=value, such as optim.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    if parents[:1] == ["stages"] and "stages" not in data:
        data["stages"] = [stage.model_dump() for stage in DEFAULT_STAGES]
    node: Any = data
    for name in parents:
        node = child(node, name, override)
    if isinstance(node, list):
        node[index_of(node, last, override)] = value
    else:
        node[last] = value


def child(node: Any, name: str, override: str) -> Any:
    if isinstance(node, list):  # stages.0.steps=10
        return node[index_of(node, name, override)]
    found = node.setdefault(name, {})
    if not isinstance(found, dict | list):
        raise InputError(f"--set {override}: {name} is a value, not a table")
    return found


def index_of(node: list[Any], name: str, override: str) -> int:
    if not name.isdigit() or int(name) >= len(node):
        raise InputError(f"--set {override}: {name} is not a position below {len(node)}")
    return int(name)
