"""Names of weights as the published checkpoints have them: transformers 4 and 5, vLLM and SGLang all read these.

transformers 5 has others in memory, and what it writes depends on how a student was loaded. E experts of a layer.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from coat.manifests import RunError

# In memory: in files. Names that begin otherwise are none of a student's.
WHISPER_AND_QWEN2 = {
    "lm_head.": "language_model.lm_head.",
    "model.language_model.": "language_model.model.",
    "model.audio_tower.": "audio_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}
THINKER = {
    "lm_head.": "thinker.lm_head.",
    "model.language_model.": "thinker.model.",
    "model.audio_tower.": "thinker.audio_tower.",
    "model.visual.": "thinker.visual.",
}
PREFIXES = {
    "qwen2_audio": WHISPER_AND_QWEN2,
    "audioflamingo3": WHISPER_AND_QWEN2,
    "qwen2_5_omni": THINKER,
    "qwen3_omni_moe": THINKER,
}


def published_weights(model: Any, model_type: str) -> dict[str, Tensor]:
    """The model's tensors by their names in files; `model_type` is the student's. RunError: one has none."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        for published, part in split_experts(published_name(name, PREFIXES[model_type]), tensor).items():
            tensors[published] = part.detach().cpu().contiguous()
    return tensors


def published_name(name: str, prefixes: Mapping[str, str]) -> str:
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise RunError(f"weight {name}: no server has a place for it; expected one that begins with {', '.join(prefixes)}")


def split_experts(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """All experts of a layer are one tensor in memory, `[E, rows, columns]`, and files have one each."""
    layer, _, part = name.rpartition(".experts.")
    if part not in ("gate_up_proj", "down_proj"):
        return {name: tensor}
    names = ("gate_proj", "up_proj") if part == "gate_up_proj" else ("down_proj",)
    return {
        f"{layer}.experts.{e}.{name}.weight": rows.clone()  # else a view of all experts
        for e, weight in enumerate(tensor)
        for name, rows in zip(names, weight.chunk(len(names)), strict=True)
    }
