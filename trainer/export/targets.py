"""Whom an export is for, and what that server can't do: refused in one line, for all of it would go wrong in silence.

Each line was read in the server's code or measured (docs/serving.md has where and when).
"""

from typing import Any, Literal, get_args

from coat.manifests import InputError
from coat.trainer.generation.generate import Trained
from coat.trainer.students.base import Student

Target = Literal["transformers", "vllm", "sglang"]
TARGETS: tuple[Target, ...] = get_args(Target)
SERVERS = {"vllm": "vLLM", "sglang": "SGLang", "transformers": "transformers"}

SERVED = {  # students whose class the server has
    "transformers": ("qwen2_audio", "qwen2_5_omni", "audioflamingo3", "qwen3_omni_moe"),
    "vllm": ("qwen2_audio", "qwen2_5_omni", "audioflamingo3", "qwen3_omni_moe"),
    "sglang": ("qwen2_audio", "qwen3_omni_moe"),
}
WHISPER_TOWERS = ("qwen2_audio", "audioflamingo3")
WHOLE_TOWER = 1500  # source positions: 30 s, 3,000 mel frames
HEAD_DIMS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of vLLM's attention on CPUs; GPUs have these, too


def check_target(target: Target, trained: Trained, whole: bool) -> None:
    """InputError where `target` cannot serve the student. `whole`: the export is a whole model, no adapter."""
    student = trained.student
    name, model_type = SERVERS[target], student.model_type
    if getattr(student.model.config, "quantization_config", None) and not trained.config.student.quantize:
        raise InputError(
            f"{student.source}: its weights are quantised, and an adapter can't be merged into these; train on the "
            "checkpoint that it was made from (student.quantize nf4 saves the memory), and quantise the export"
        )
    if target == "transformers":
        return
    if not whole:
        raise InputError(
            f"--for {target}: {name} takes no adapter with rows of think tokens, and may skip them without a word; "
            "add --merged"
        )
    if model_type not in SERVED[target]:
        others = " and ".join(SERVERS[t] for t in TARGETS if model_type in SERVED[t])
        raise InputError(f"--for {target}: {name} has no {model_type}; {others} have")
    check_language_model(name, student)
    if model_type in WHISPER_TOWERS:
        check_tower(name, student)


def check_language_model(name: str, student: Student) -> None:
    layers: Any = student.language_model.layers
    text, attention = student.model.config.text_config, layers[0].self_attn
    if student.model_type in WHISPER_TOWERS and (
        text.model_type != "qwen2" or any(getattr(attention, p).bias is None for p in ("q_proj", "k_proj", "v_proj"))
    ):
        raise InputError(
            f"{student.source}: its language model is {text.model_type}, and {name} takes every {student.model_type}'s "
            "for a Qwen2 with biases on queries, keys and values: it would answer with zeros in silence. Write the "
            "language model as a Qwen2 with biases of 0, or serve the export by transformers"
        )
    dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if name == "vLLM" and dim not in HEAD_DIMS:
        raise InputError(
            f"{student.source}: heads of {dim} dims, and vLLM's attention has kernels for "
            f"{', '.join(map(str, HEAD_DIMS))}; serve the export by transformers"
        )


def check_tower(name: str, student: Student) -> None:
    extractor: Any = student.processor.feature_extractor
    positions = student.model.config.audio_config.max_source_positions
    if positions != WHOLE_TOWER or extractor.nb_max_frames != 2 * WHOLE_TOWER:
        raise InputError(
            f"{student.source}: its audio tower has {positions} positions, its processor {extractor.nb_max_frames} mel "
            f"frames; {name} takes {WHOLE_TOWER} and {2 * WHOLE_TOWER} alone (30 s). Serve the export by transformers"
        )
