"""The files of a target set's statistics.

STORE/<expert>/<fingerprint>/statistics.json      all that is said per dimension, with a digest of its own
STORE/<expert>/<fingerprint>/statistics/pca.npz   mean and axes of the principal components
"""

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

STATISTICS_FILE, PCA_FILE = "statistics.json", "pca.npz"


def save_statistics(targets: TargetSet, statistics: Statistics) -> None:
    """pca.npz first: statistics.json vouches for it."""
    if not statistics.sums.frames:
        return
    data = statistics.to_dict() | {"units": units_digest(targets)}
    if statistics.pca is None:
        storage.remove(storage.join(targets.url, FOLDER, PCA_FILE))
    else:
        sink = io.BytesIO()
        np.savez(sink, mean=statistics.pca.mean_D, axes=statistics.pca.axes_CD, variance=statistics.pca.variance_C)
        storage.write_bytes(storage.join(targets.url, FOLDER, PCA_FILE), sink.getvalue())
        data["pca_xxh3"] = xxhash.xxh3_128_hexdigest(sink.getvalue())
    data["statistics_xxh3"] = own_digest(data)
    storage.write_bytes(storage.join(targets.url, STATISTICS_FILE), storage.to_json(data))


def read_statistics(targets: TargetSet) -> dict[str, Any] | None:
    """statistics.json; None where there is none, or it is damaged, or of other units than are there now."""
    try:
        data = storage.read_json(storage.join(targets.url, STATISTICS_FILE))
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
