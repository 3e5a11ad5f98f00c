"""What differs between the configuration of a run and that of a command that goes on with it, and whether it may.

Each field of `sections.py` says by its `on_resume` what a resumed run may do with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from coat.trainer.config.sections import ConfigSection, OnResume
from coat.trainer.config.train_config import TrainConfig


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
        section: type[ConfigSection] = TrainConfig
        rule: Any = None
        for key in self.key.split("."):
            if (field := section.model_fields.get(key)) is None:  # the number of a stage, the name of a set
                continue
            extra = field.json_schema_extra
            rule = extra["on_resume"] if isinstance(extra, dict) else section.on_resume
            if (inner := section_within(field.annotation)) is None:
                break
            section, rule = inner, inner.on_resume
        return cast(OnResume, rule)


def section_within(annotation: Any) -> type[ConfigSection] | None:
    """The section that a field is, or has several of."""
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, ConfigSection)), None)


def changes(old: TrainConfig, new: TrainConfig) -> list[Change]:
    """What differs, without what a resumed run may change freely."""
    return [change for change in differences(tables(old), tables(new)) if change.on_resume != "free"]


def tables(config: TrainConfig) -> dict[str, Any]:
    """The sections as dictionaries, the stages by their numbers, the sets of data by their names."""
    tables = config.to_dict()
    tables["data"]["sets"] = {one["name"]: one for one in tables["data"]["sets"]}
    return tables | {"stages": {str(number): stage for number, stage in enumerate(tables["stages"])}}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[Change]:
    """A change for each value that differs, nested, in the order of the keys."""
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield Change(f"{prefix}{key}", before, after)
