"""Students by the `model_type` of their config.json. A new one is one file and one line here."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coat.manifests import InputError
from coat.manifests.errors import one_line
from coat.trainer.students.four_bit import check_rows, quantization_config, without_repacking

if TYPE_CHECKING:
    import torch

    from coat.trainer.students.base import Student

STUDENTS = {
    "qwen2_audio": "coat.trainer.students.qwen2_audio:Qwen2Audio",
    "audioflamingo3": "coat.trainer.students.audio_flamingo3:AudioFlamingo3",
    "qwen2_5_omni": "coat.trainer.students.qwen2_5_omni:Qwen25Omni",
    "qwen2_5_omni_thinker": "coat.trainer.students.qwen2_5_omni:Qwen25Omni",  # saved by itself
    "qwen3_omni_moe": "coat.trainer.students.qwen3_omni:Qwen3Omni",
    "qwen3_omni_moe_thinker": "coat.trainer.students.qwen3_omni:Qwen3Omni",
}
DTYPES = ("float32", "bfloat16", "float16")


def load_student(
    source: str, dtype: str = "float32", attention: str = "sdpa", quantize: str | None = None
) -> "Student":
    """Read a student of a hub id or folder; `quantize` nf4: with frozen weights in 4 bits (see four_bit.py).

    InputError: no such checkpoint, or none that coat trains.
    """
    adapter, precision = student_class(source, read_config(source)), dtype_of(dtype)
    options = {"quantization_config": quantization_config(precision)} if quantize else {}
    try:
        student = adapter.load(source, precision, attention, **options)
        if quantize:
            check_rows(student.model, source)
        without_repacking(student.model)
        return student
    except InputError:
        raise
    except (
        OSError,
        ValueError,
        RuntimeError,
        ImportError,
    ) as e:  # ImportError: of torchvision, extra [omni]
        raise InputError(f"{source}: cannot be read as a {adapter.model_type} checkpoint ({one_line(e, 200)})") from e


def dtype_of(name: str) -> "torch.dtype":
    import torch

    if name not in DTYPES:
        raise InputError(f"student.dtype {name!r} is not one of {', '.join(DTYPES)}")
    return getattr(torch, name)


def student_class(source: str, config: Mapping[str, Any]) -> "type[Student]":
    """The adapter of a config.json's `model_type`. InputError where there is none."""
    model_type = config.get("model_type")
    if model_type not in STUDENTS:
        raise InputError(f"{source}: model type {model_type!r} is not one of {', '.join(STUDENTS)}")
    module, name = STUDENTS[model_type].split(":")
    return getattr(importlib.import_module(module), name)


def read_config(source: str) -> dict[str, Any]:
    """The config.json of a folder or hub id, or that file itself. Code of a checkpoint is never run."""
    file = Path(source) if Path(source).is_file() else Path(source) / "config.json"
    if Path(source).exists():
        if not file.is_file():
            raise InputError(f"{source}: no config.json; expected a checkpoint of {', '.join(STUDENTS)}")
        try:
            return json.loads(file.read_bytes())
        except ValueError as e:
            raise InputError(f"{file}: not JSON ({e})") from e
    from transformers import PreTrainedConfig

    try:
        return PreTrainedConfig.get_config_dict(source)[0]
    except (OSError, ValueError) as e:
        raise InputError(f"{source}: no such folder, and no such checkpoint on the hub ({one_line(e, 200)})") from e
