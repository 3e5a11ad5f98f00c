"""The student that all arms start from, kept small: what its alignment trained, in float16, among the results.

results/aligned.safetensors   <layer>.lora_A, <layer>.lora_B (float16), and the projector's weights (float16)

The aligned student is always built from this file, so that whoever builds it has the same weights, wherever the
alignment ran.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from coat.manifests import storage
from coat.trainer.generation.run_student import UNFROZEN_FILE

SCALE = "scale"  # of the adapter: alpha / rank, in the file's metadata


def keep(run: Path, file: Path) -> None:
    """Of a finished run, whose adapter has one rank for all layers."""
    adapter = load_file(run / "student/adapter_model.safetensors")
    settings = storage.read_json(str(run / "student/adapter_config.json"))
    trained = load_file(run / "student" / UNFROZEN_FILE)
    kept = {name.removeprefix("base_model.model.").removesuffix(".weight"): value for name, value in adapter.items()}
    kept |= trained
    half = {name: value.half().contiguous() for name, value in kept.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(half, file, metadata={SCALE: str(settings["lora_alpha"] / settings["r"])})


@torch.no_grad()
def build(student: Path, file: Path, folder: Path) -> None:
    """The student with the adapter merged into it, in float32. SystemExit where the file does not fit."""
    from transformers import Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    model = Qwen2AudioForConditionalGeneration.from_pretrained(student, dtype=torch.float32)
    weights, kept = dict(model.named_parameters()), load_file(file)
    with safe_open(file, "pt") as opened:
        scale = float(opened.metadata()[SCALE])
    layers = {name.removesuffix(".lora_A") for name in kept if name.endswith(".lora_A")}
    plain = {name for name in kept if ".lora_" not in name}
    if unknown := ({f"{layer}.weight" for layer in layers} | plain) - set(weights):
        raise SystemExit(f"{file}: {min(unknown)} is no weight of {student}; build the student anew")
    for layer in layers:
        down, up = (kept[f"{layer}.lora_{part}"].float() for part in "AB")
        weights[f"{layer}.weight"].add_(scale * (up @ down))
    for name in plain:
        weights[name].copy_(kept[name].float())
    model.save_pretrained(folder)
    Qwen2AudioProcessor.from_pretrained(student).save_pretrained(folder)
