"""What an evaluation is: E/config.toml. The same command goes on with it; another one is refused."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coat.manifests import InputError, storage
from coat.trainer.config.reading import read_toml
from coat.trainer.config.train_config import describe_error, without_none

CONFIG = "config.toml"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BenchmarkSettings(Section):
    name: str  # as the registry knows it
    label: str  # in results.json: the name, or with the data's where one is asked twice
    data: str  # manifest, or official file
    audio_root: str | None = None
    template: str | None = None  # None: the benchmark's own
    digest: str = ""  # of its rows; set when they are read


class SubjectSettings(Section):
    """Who is asked; `sources` of `predictions` are a file a benchmark."""

    kind: Literal["run", "student", "server", "predictions"]
    sources: tuple[str, ...] = Field(min_length=1)
    step: str | None = None  # of a run: a number, or best; None: its end
    model: str | None = None  # of a server
    audio_rate: int | None = Field(default=None, ge=1)  # Hz, that a server is sent; None: each clip's own
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # of a student
    prediction_key: str | None = None


class JudgeSettings(Section):
    url: str
    model: str | None = None


class EvaluationSettings(Section):
    # What may differ when an evaluation goes on: how fast it asks (in bf16 also last digits), and what is done beside.
    FREE: ClassVar[frozenset[str]] = frozenset({"batch_size", "batch_tokens", "train_shards", "judge", "cost", "cot"})

    benchmarks: tuple[BenchmarkSettings, ...] = Field(min_length=1)
    subject: SubjectSettings
    rows: int | None = Field(default=None, ge=1)  # of each benchmark, drawn by seed; None: all
    seed: int = 0
    max_new_tokens: int | None = Field(default=None, ge=1)  # None: as the benchmark says
    batch_size: int = Field(default=16, ge=1)  # of a server: requests at once
    batch_tokens: int | None = Field(default=16384, ge=1)  # padded positions, to the end of the longest answer
    guard: int = Field(default=32, ge=0)  # rows that are asked again with other audio and with silence
    orders: int = Field(default=1, ge=1)  # of choices
    cost: int = Field(default=8, ge=0)  # rows that are asked one by one, with a clock
    cot: int | None = Field(default=None, ge=1)  # new tokens of the base student that thinks in text; None: not asked
    transcribe_prompt: str = "Transcribe the speech."  # of rows that have text alone
    train_shards: tuple[str, ...] = ()
    judge: JudgeSettings | None = None

    def to_toml(self) -> str:
        return tomli_w.dumps(without_none(self.model_dump(mode="json")))

    @classmethod
    def read(cls, folder: Path) -> "EvaluationSettings":
        """Of an evaluation's folder. InputError where it is none."""
        if not (folder / CONFIG).exists():
            raise InputError(f"{folder}: no {CONFIG}; expected a folder of `coat evaluate`")
        return cls.from_dict(read_toml(str(folder / CONFIG)), str(folder / CONFIG))

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str) -> "EvaluationSettings":
        try:
            return cls.model_validate(data)
        except ValidationError as e:
            raise InputError("; ".join(f"{source}: {describe_error(error)}" for error in e.errors()[:3])) from e


def open_folder(folder: Path, settings: EvaluationSettings) -> None:
    """Make the folder, or check that it holds this same evaluation. InputError where it holds something else."""
    if not (folder / CONFIG).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: not empty, and not an evaluation of coat; choose another --out")
    elif changed := differences(EvaluationSettings.read(folder), settings):
        raise InputError(f"{folder}: holds another evaluation ({'; '.join(changed[:3])}); choose another --out")
    storage.write_bytes(str(folder / CONFIG), settings.to_toml().encode())


def differences(before: EvaluationSettings, now: EvaluationSettings) -> list[str]:
    a, b = (flat(one.model_dump(mode="json", exclude=set(one.FREE))) for one in (before, now))
    return [f"{key} was {a.get(key)!r}, now {b.get(key)!r}" for key in sorted(a | b) if a.get(key) != b.get(key)]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, inner in items for k, v in flat(inner, f"{name}.{key}".lstrip(".")).items()}
    return {name: value}
