"""A stage: one command of coat, what it reads and what it makes."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["file", "config", "tree", "manifest", "targets", "shards", "run", "evaluation", "page"]

# Options that decide where and how fast, not what: a stage is not done again for them.
RESOURCES: dict[str, set[str]] = {
    "manifest import": {"quiet"},
    "extract": {
        "workers", "ray_address", "device", "gpus_per_worker", "cpus_per_worker", "batch_seconds", "decode_threads",
        "share_decode", "max_workers", "unit_deadline", "patience", "unit_bytes", "shuffle_units", "max_failed",
    },
    "stats": {"ray_address"},
    "build-shards": {"workers", "ray_address", "block_size", "scratch", "scratch_size", "overwrite"},
    "train": {
        "track", "ray_address", "workers", "gpus_per_worker", "cpus_per_worker", "max_failures", "change", "resume",
    },
    "evaluate": {
        "batch_size", "batch_tokens", "workers", "ray_address", "ranks", "gpus_per_rank", "cpus_per_rank", "timeout",
        "key_variable", "judge_key_variable",
    },
    "fidelity": {"batch_size"},
    "probe": {"batch_size", "batch_tokens", "cache"},
    "listen": {"workers"},
}  # fmt: skip
ON_A_CLUSTER = ("extract", "stats", "build-shards", "train", "evaluate")  # that take --ray-address
CLUSTER_ONLY = {
    "train": {"workers", "gpus_per_worker", "cpus_per_worker", "max_failures"},
    "evaluate": {"ranks", "gpus_per_rank", "cpus_per_rank"},
}  # options without a meaning on this machine
RANKS = {"train": "workers", "evaluate": "ranks"}  # what a cluster calls `processes`
LAUNCHED = ("train", "evaluate", "fidelity", "probe")  # that run under `accelerate launch`


@dataclass(frozen=True)
class Place:
    """Something that a stage reads or makes, by path or URL. `label` is what messages call it."""

    kind: Kind
    path: str
    label: str = ""


@dataclass(frozen=True)
class Stage:
    """One command. `values` are the settings by which it is known, beside what it reads."""

    name: str  # shards.train
    command: str  # build-shards; manifest import
    arguments: tuple[str, ...]
    values: Mapping[str, Any]
    inputs: tuple[Place, ...] = ()
    outputs: tuple[Place, ...] = ()
    experts: tuple[str, ...] = ()  # that it extracts, or whose targets it reads
    processes: int = 1  # of `accelerate launch`
    alone: bool = False  # its folder holds one result: what other settings made there is moved aside, or stays
    summary: str | None = None  # file to which the command writes what it did
    plan: Mapping[str, Any] = field(default_factory=dict)  # what a forecast is told

    def words(self, fingerprints: Mapping[str, str]) -> list[str]:
        """What follows `coat`. `fingerprints`: `name@fingerprint` of experts, once they are known."""
        words = [*self.command.split(" "), *self.arguments]
        if self.command == "build-shards":
            words += ["--experts", ",".join(fingerprints.get(e, e) for e in self.experts)]
        return words

    def argv(self, python: Sequence[str], fingerprints: Mapping[str, str]) -> list[str]:
        """What is run."""
        launch = ["-m", "accelerate.commands.launch", "--num_processes", str(self.processes)]
        return [*python, *(launch if self.processes > 1 else []), "-m", "coat", *self.words(fingerprints)]

    def shown(self, fingerprints: Mapping[str, str]) -> str:
        """What a user would type."""
        launch = ["accelerate", "launch", "--num_processes", str(self.processes), "-m"]
        return shlex.join([*(launch if self.processes > 1 else []), "coat", *self.words(fingerprints)])


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of nested tables by dotted key; lists of tables by number."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            found |= flatten({str(i): one for i, one in enumerate(value)}, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
