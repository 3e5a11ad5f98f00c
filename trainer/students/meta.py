"""A student without weights: its true class on the meta device, where tensors have shapes and no numbers.

For what asks only how large it is, or what its processor makes of a sample.
"""

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from coat.manifests import InputError
from coat.manifests.errors import one_line
from coat.trainer.students.attention import use_tower_attention
from coat.trainer.students.base import Student
from coat.trainer.students.registry import dtype_of, read_config, student_class


def meta_student(source: str, dtype: str = "float32", attention: str = "sdpa") -> Student:
    """A student of a hub id, a folder, or a config.json alone.

    A config alone has no tokenizer, and its feature extractor is taken to be Whisper's, as in all public checkpoints.
    InputError: no such config, or none that coat trains.
    """
    import torch
    import transformers

    is_config_file = Path(source).is_file()
    adapter = student_class(source, read_config(source))
    precision = dtype_of(dtype)
    model_class, processor_class = (getattr(transformers, n) for n in (adapter.model_class, adapter.processor_class))
    try:
        config = model_class.config_class.from_pretrained(source)
        processor = whisper_feature_extractor() if is_config_file else processor_class.from_pretrained(source)
        with torch.device("meta"):
            model = model_class._from_config(config, dtype=precision, attn_implementation=attention)
    except (OSError, ValueError, TypeError, ImportError) as e:
        raise InputError(f"{source}: cannot be read as a {adapter.model_type} checkpoint ({one_line(e, 200)})") from e
    if not is_config_file:
        with suppress(OSError):  # a checkpoint may have none
            model.generation_config = transformers.GenerationConfig.from_pretrained(source)
    use_tower_attention(model)
    return adapter(source, model, processor)


def whisper_feature_extractor() -> Any:
    """What stands for a processor where there is none: lengths of audio are known, text is not."""
    from transformers import WhisperFeatureExtractor

    return SimpleNamespace(feature_extractor=WhisperFeatureExtractor(feature_size=128), tokenizer=None)
