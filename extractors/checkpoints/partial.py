"""A part of a large checkpoint: the tensors of one encoder, from the safetensors that hold them, and no others.

Only those shards are fetched from the hub; of these only the part's tensors are read, digested and loaded: another
language model around the same encoder leaves its targets, and their fingerprint, as they are.
"""

import functools
import json
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from coat.extractors.checkpoints.checkpoint import (
    CONFIGS,
    Checkpoint,
    checkpoint_folder,
    quiet_transformers,
    read_config,
    read_features,
    read_json_object,
)
from coat.manifests.errors import InputError, one_line

if TYPE_CHECKING:
    import torch

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class PartialCheckpoint(Checkpoint):
    """`names` holds, by the part's own name of a tensor, its file and its name there."""

    names: dict[str, tuple[Path, str]]

    def digest_with(self, *settings: Any) -> str:
        """Of the part's tensors, and of what the user's configurations say of it. InputError: not finite."""
        found = []
        for name, (path, key) in sorted(self.names.items()):
            digest, finite = tensor_digest(path, key, path.stat().st_size, path.stat().st_mtime_ns)
            if not finite:
                raise InputError(
                    f"{self.where}: {path.name} holds NaN or infinite values in {key}; get the checkpoint anew"
                )
            found.append((name, digest))
        return "xxh3:" + xxhash.xxh3_128_hexdigest(json.dumps([found, *settings], sort_keys=True).encode())

    def tensor(self, name: str) -> "torch.Tensor":
        return read_tensor(*self.names[name])

    def tensors_under(self, prefix: str) -> dict[str, "torch.Tensor"]:
        """The tensors below `prefix`, without it, float32."""
        return {name[len(prefix) :]: self.tensor(name).float() for name in self.names if name.startswith(prefix)}


def open_partial(expert: str, name: str, model_types: Iterable[str], pattern: str) -> PartialCheckpoint:
    """The tensors whose names match `pattern` from their start; what follows the match is the part's own name."""
    where = f"--expert {expert}: {name}"
    folder = checkpoint_folder(expert, name, [*CONFIGS, INDEX])
    config = read_config(folder, where, model_types)
    read_features(folder, where)
    if (folder / INDEX).is_file():
        placed = read_json_object(folder / INDEX, where).get("weight_map")
        if not isinstance(placed, dict):
            raise InputError(f"{where}: {INDEX} has no weight_map")
        shards = sorted({Path(str(file)).name for key, file in placed.items() if re.match(pattern, key)})
    else:
        shards = [SINGLE]
    folder = checkpoint_folder(expert, name, [*CONFIGS, INDEX, *shards])
    weights = tuple(folder / shard for shard in shards)
    if missing := [path.name for path in weights if not path.is_file()]:
        raise InputError(f"{where}: no {', '.join(missing)}; expected safetensors as save_pretrained writes them")
    names = {
        key[match.end() :]: (path, key)
        for path in weights
        for key in tensor_names(path, where)
        if (match := re.match(pattern, key))
    }
    if not names:
        raise InputError(f"{where}: no weights named {pattern} in it; expected a whole model")
    return PartialCheckpoint(where, folder, config, weights, names)


def tensor_names(path: Path, where: str) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as found:
            return list(found.keys())
    except (SafetensorError, OSError) as e:
        raise InputError(f"{where}: {path.name}: the weights cannot be loaded ({e})") from e


def read_tensor(path: Path, key: str) -> "torch.Tensor":
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as found:
        return found.get_tensor(key)


@functools.lru_cache(maxsize=8192)  # a tower has about 500; size and mtime tell a rewritten file
def tensor_digest(path: Path, key: str, size: int, mtime_ns: int) -> tuple[str, bool]:
    """Of its type, shape and bytes; and whether it is finite."""
    import torch

    tensor = read_tensor(path, key)
    h = xxhash.xxh3_128(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    h.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return h.hexdigest(), not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def load_partial(where: str, cls: Any, config: Any, state: dict[str, "torch.Tensor"]) -> Any:
    """A transformers model of these tensors, float32; InputError where some are missing or do not fit."""
    with quiet_transformers():
        try:
            model, report = cls.from_pretrained(
                None, config=config, state_dict=state, output_loading_info=True, dtype="float32"
            )
        except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as e:
            reason = one_line(e, 200)
            raise InputError(f"{where}: the weights cannot be loaded ({reason})") from e
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{where}: {len(missing)} weights are missing, the first is {missing[0]}")
    return model
