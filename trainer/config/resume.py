"""What differs between the configuration of a run and that of a command that goes on with it, and whether it may.

Each field of `sections.py` says by its `on_resume` what a resumed run may do with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from coat.trainer.config.reading import merge_tables, read_toml
from coat.trainer.config.sections import ConfigSection, OnResume
from coat.trainer.config.train_config import TrainConfig

# What a run's own config.toml means where it lacks a key, because it was written before there was one: keys whose
# default is not what such runs did.
MEANT_BEFORE = {"losses": {"scale": "none"}}


@dataclass(frozen=True)
class Change:
    """A value that differs; `key` is dotted, with the number of a stage."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.old!r} -> {self.new!r}"

    @property
    def on_resume(self) -> OnResume:
        """What its field says of it, or else its section."""
        name, *keys = self.key.split(".")
        annotation: Any = TrainConfig.model_fields[name].annotation
        section: type[ConfigSection] = get_args(annotation)[0] if get_args(annotation) else annotation  # of stages
        field = next((section.model_fields[key] for key in keys if key in section.model_fields), None)
        extra = field.json_schema_extra if field is not None else None
        return cast(OnResume, extra["on_resume"]) if isinstance(extra, dict) else section.on_resume


def read_run_config(file: str) -> TrainConfig:
    """RUN/config.toml, which says all that a run is."""
    return TrainConfig.from_dict(merge_tables(MEANT_BEFORE, read_toml(file)), file)


def as_begun(config: TrainConfig, run: TrainConfig) -> TrainConfig:
    """A command's config, with `losses.scale` as the `run` has it that it goes on with, unless the command names it.

    So the command that began a run before there was that key goes on with the same losses.
    """
    if "scale" in config.losses.model_fields_set:
        return config
    return config.model_copy(update={"losses": config.losses.model_copy(update={"scale": run.losses.scale})})


def changes(old: TrainConfig, new: TrainConfig) -> list[Change]:
    """What differs, without what a resumed run may change freely."""
    return [change for change in differences(tables(old), tables(new)) if change.on_resume != "free"]


def tables(config: TrainConfig) -> dict[str, Any]:
    """The sections as dictionaries, the stages by their numbers."""
    data = config.to_dict()
    return data | {"stages": {str(number): stage for number, stage in enumerate(data["stages"])}}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[Change]:
    """A change for each value that differs, nested, in the order of the keys."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield Change(f"{prefix}{key}", before, after)
