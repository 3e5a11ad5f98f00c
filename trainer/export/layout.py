"""config.json and the weights as the published checkpoints have them.

What transformers 5 writes fails elsewhere: version 4 asks for `rope_theta`, vLLM for the Thinker within a whole Omni.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict

from coat.manifests import InputError, storage
from coat.trainer.export.names import published_weights
from coat.trainer.students.base import Student
from coat.trainer.students.registry import read_config

OMNI = ("qwen2_5_omni", "qwen3_omni_moe")
OMNI_CLASSES = {
    "qwen2_5_omni": "Qwen2_5OmniForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeForConditionalGeneration",
}
# What is of the machine or the loading, and of no checkpoint.
DROPPED = ("_name_or_path", "_attn_implementation", "transformers_version", "quantization_config")


def write_model(student: Student, model: Any, folder: Path, base: str) -> None:
    """config.json and model*.safetensors. `base`: what was trained, by id or folder.

    InputError: the tokenizer has ids that the embeddings have no row for.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    check_ids(student, rows)
    config = published_config(student, model, rows, base)
    storage.write_bytes(str(folder / "config.json"), storage.to_json(config))
    save_torch_state_dict(published_weights(model, student.model_type), folder, metadata={"format": "pt"})


def check_ids(student: Student, rows: int) -> None:
    known = student.tokenizer.get_vocab()
    token, highest = max(known.items(), key=lambda item: item[1])
    if highest >= rows:
        raise InputError(
            f"{student.source}: {token!r} has id {highest}, and its embeddings {rows} rows: a server would read "
            "another row, or fail; take the tokenizer that the checkpoint was trained with"
        )


def published_config(student: Student, model: Any, rows: int, base: str) -> dict[str, Any]:
    """All settings, those included that are a version's defaults: other versions have others."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    for part in (config, config["text_config"]):
        if part is config["text_config"] or "vocab_size" in part:
            part["vocab_size"] = rows
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False  # see merging.py
    clean(config)
    with_rope_theta(config["text_config"])
    if student.model_type not in OMNI:
        config["architectures"] = [student.model_class]
        return config
    return whole_omni(student, config, base)


def clean(config: dict[str, Any]) -> None:
    """In every part of it."""
    for name in DROPPED:
        config.pop(name, None)
    for part in config.values():
        if isinstance(part, dict):
            clean(part)


def with_rope_theta(text: dict[str, Any]) -> None:
    """As version 4 has it, which version 5 reads, too: `rope_theta`, and `rope_scaling` where there is any."""
    rope = dict(text.pop("rope_parameters", None) or {})
    if "rope_theta" in rope:
        text["rope_theta"] = rope.pop("rope_theta")
    kind = rope.get("rope_type", "default")
    text["rope_scaling"] = None if kind == "default" and len(rope) <= 1 else {**rope, "rope_type": kind, "type": kind}


def whole_omni(student: Student, thinker: dict[str, Any], base: str) -> dict[str, Any]:
    """The configuration of a whole Omni with this Thinker; of its Talker there are settings, and no weights."""
    whole: dict[str, Any] = {}
    with suppress(InputError):  # the base is not here any more: its other parts' settings are of no use without weights
        found = read_config(base)
        whole = found if "thinker_config" in found else {}
    clean(whole)
    return {
        **whole,
        "architectures": [OMNI_CLASSES[student.model_type]],
        "model_type": student.model_type,
        "enable_audio_output": False,  # else transformers makes a Talker of random weights
        "thinker_config": thinker,
        "dtype": thinker.get("dtype"),
    }
