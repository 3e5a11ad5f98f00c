"""A part of a large checkpoint: the tensors of one encoder, from the safetensors that hold them, and no others.

Only those shards are fetched from the hub; of these only the part's tensors are read, digested and loaded: another
language model around the same encoder leaves its targets, and their fingerprint, as they are.
"""

import json
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
    read_features,
    read_json_object,
    read_model_config,
)
from coat.extractors.checkpoints.weights import read_tensor, tensor_digest, tensor_names
from coat.manifests.errors import InputError

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
    config = read_model_config(folder, where, model_types)
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
