"""A run as a whole: its sections, read from TOML files and overrides, and written back.

config = TrainConfig.read("train.toml", ["optim.lr=1e-4", "run.out=runs/a"])
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import tomli_w
from pydantic import Field, ValidationError, model_validator

from coat.manifests import InputError
from coat.trainer.config.reading import apply_override, merge_tables, read_toml
from coat.trainer.config.sections import (
    DEFAULT_STAGES,
    ConfigSection,
    DataConfig,
    EvaluationConfig,
    HeadsConfig,
    LoraConfig,
    LossConfig,
    OptimConfig,
    RunConfig,
    StageConfig,
    StudentConfig,
    ThinkingConfig,
)


class TrainConfig(ConfigSection):
    """A run as a whole. InputError, one line with file and key, where it is not one."""

    student: StudentConfig
    thinking: ThinkingConfig = ThinkingConfig()
    data: DataConfig
    heads: HeadsConfig = HeadsConfig()
    losses: LossConfig = LossConfig()
    lora: LoraConfig = LoraConfig()
    optim: OptimConfig = OptimConfig()
    stages: tuple[StageConfig, ...] = Field(default=DEFAULT_STAGES, min_length=1)
    evaluation: EvaluationConfig = EvaluationConfig()
    run: RunConfig

    @model_validator(mode="after")
    def best_has_evaluations(self) -> Self:
        if self.run.best is not None and self.evaluation.shards is None:
            raise ValueError(f"run.best {self.run.best!r} is a held-out figure; give evaluation.shards")
        return self

    @model_validator(mode="after")
    def four_bits_are_frozen(self) -> Self:
        if self.lora.full and self.student.quantize:
            raise ValueError(
                "student.quantize with lora.full: weights in 4 bits cannot be trained; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def train_is_beside_lora(self) -> Self:
        if self.lora.full and self.student.train:
            raise ValueError("student.train with lora.full: all weights are trained anyhow; leave one of them out")
        return self

    @model_validator(mode="after")
    def hidden_audio_has_a_mask(self) -> Self:
        if self.thinking.hide_audio and self.student.attention != "sdpa":
            raise ValueError(
                f"thinking.hide_audio with student.attention {self.student.attention!r}: it needs a mask of its own, "
                "which 'sdpa' alone takes"
            )
        return self

    @property
    def steps(self) -> int:
        return sum(s.steps for s in self.stages)

    @property
    def distils(self) -> bool:
        """Whether heads have states to read, and a stage in which their losses weigh something."""
        has_states = self.thinking.count > 0 or self.thinking.states == "audio"
        return has_states and any(s.distill or s.distill_end for s in self.stages)

    @classmethod
    def read(cls, path: str | Sequence[str] | None, overrides: Sequence[str] = ()) -> "TrainConfig":
        """Parse a TOML file with `dotted.key=value` overrides on top. Of several files the later lie over the earlier.

        A later file's values replace those of their keys, its [[stages]] all stages. No file: the overrides alone.
        """
        paths = [path] if isinstance(path, str) else list(path or ())
        data: dict[str, Any] = {}
        for file in paths:
            data = merge_tables(data, read_toml(file))
        for override in overrides:
            apply_override(data, override)
        return cls.from_dict(data, " with --set ".join([" and ".join(paths), *overrides]).strip())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], source: str) -> "TrainConfig":
        try:
            return cls.model_validate(dict(data))
        except ValidationError as e:
            raise InputError("; ".join(f"{source}: {describe_error(error)}" for error in e.errors()[:3])) from e

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def to_toml(self) -> str:
        """All of it, so that a run can be made again from its own folder; keys without a value are left out."""
        return tomli_w.dumps(without_none(self.to_dict()))


def without_none(value: Any) -> Any:
    """TOML has no null: a key that is not there means the same."""
    if isinstance(value, dict):
        return {key: without_none(v) for key, v in value.items() if v is not None}
    return [without_none(v) for v in value] if isinstance(value, list) else value


def describe_error(error: Any) -> str:
    key = ".".join(str(step) for step in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown key {key}"
    if error["type"] == "missing":
        flag = {"student": "--student", "data": "--shards", "run": "--out"}.get(key.split(".")[0])
        return f"{key} is missing" + (f" (give {flag}, or a --config that has it)" if flag else "")
    message = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], Mapping):  # of a section as a whole
        return f"{key}: {message}" if key else message
    return f"{key} = {error['input']!r}: {message}"
