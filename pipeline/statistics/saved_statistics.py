"""statistics.json"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.pipeline.statistics.saved_sums import FOLDER
from coat.pipeline.statistics.statistics import FORMAT, Statistics
from coat.pipeline.store.target_set import TargetSet

STATISTICS, PCA_FILE = "statistics.json", "pca.npz"


def save(targets: TargetSet, found: Statistics) -> None:
    """pca.npz first: statistics.json vouches for it."""
    if not found.sums.frames:
        return
    data = found.to_dict() | {"units": units_digest(targets)}
    if found.pca is None:
        storage.remove(storage.join(targets.url, FOLDER, PCA_FILE))
    else:
        sink = io.BytesIO()
        np.savez(sink, mean=found.pca.mean_D, axes=found.pca.axes_CD, variance=found.pca.variance_C)
        storage.write_bytes(storage.join(targets.url, FOLDER, PCA_FILE), sink.getvalue())
        data["pca_xxh3"] = xxhash.xxh3_128_hexdigest(sink.getvalue())
    data["statistics_xxh3"] = own_digest(data)
    storage.write_bytes(storage.join(targets.url, STATISTICS), storage.to_json(data))


def read_saved(targets: TargetSet) -> dict[str, Any] | None:
    """statistics.json; None where there is none, or it is damaged, or of other units than are there now."""
    try:
        data = storage.read_json(storage.join(targets.url, STATISTICS))
    except (FileNotFoundError, InputError):
        return None
    if not isinstance(data, dict) or data.get("statistics_xxh3") != own_digest(data):
        return None
    return data if data["format"] == FORMAT and data["units"] == units_digest(targets) else None


def units_digest(targets: TargetSet) -> str:
    """Of the units' names and frames."""
    lines = sorted(f"{unit} {done['xxh3']}" for unit, done in targets.done.items())
    return xxhash.xxh3_128_hexdigest("\n".join(lines).encode())


def own_digest(data: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(storage.to_json({k: v for k, v in data.items() if k != "statistics_xxh3"}))
