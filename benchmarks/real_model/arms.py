"""What is compared, and how each run is trained: everything that PROTOCOL.md fixes, in code.

A  plain fine-tuning            no block
B  a block alone                25 think positions behind the audio
C  CoAT                         the same, distilled from five experts
D  distillation at the audio    no block; the same heads read the audio's own positions
E  both                         C, and heads of their own read the audio's positions as D's do

Variants of C and E are these with another setting, asked on validation alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from coat.trainer.config.train_config import TrainConfig

ARMS: Mapping[str, str] = {
    "A": "plain fine-tuning", "B": "a block alone", "C": "CoAT", "D": "distilled at the audio", "E": "both",
}  # fmt: skip
ON_CPUS = ("A", "C", "D", "E")  # arms that two cores have time for
EXPERTS = ("mel", "whisper", "pitch", "yamnet", "prosody")
STATES = {"D": "audio", "E": "both"}  # that are distilled; of all others the block's
THINK = 25  # K: about as many as the clips' audio has positions
TARGET_HZ = 25.0  # frames of a target a second: as many as the audio has positions
BATCH = 8  # clips of a step, each with all that is asked of it
LEARNING_RATE = 1e-3  # of all
SEEDS = (0, 1)
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {  # settings, by section, beside those of the arm before "-"
    "C-listening": {"heads": {"detach": True}},  # heads that the student learns nothing from: B, and fidelity's floor
    "C-K75": {"thinking": {"count": 75}},
    "C-layer20": {"thinking": {"layer": 20}},
    "C-question": {"thinking": {"placement": "before_response"}},  # the block sees what is asked
    "E-K75": {"thinking": {"count": 75}},
    "E-layer20": {"thinking": {"layer": 20}},
    "E-question": {"thinking": {"placement": "before_response"}},
    # In half of the training answers hear through the block alone; sdpa alone has a mask for it.
    "E-hidden": {"thinking": {"hide_audio": 0.5}, "student": {"attention": "sdpa"}},
}
LISTENING = "C-listening"
STEPS: Mapping[str, int] = {"align": 400, "final": 1000, "variant": 1000, "short": 40}
WARMUP = 20
What = Literal["align", "final", "variant", "short"]
Attention = Literal["sdpa", "eager"]  # the kernel; on some CPUs eager is the faster
Dtype = Literal["bfloat16", "float32"]  # of frozen weights and matrix products
ROWS: Mapping[str, tuple[str, ...]] = {
    "final": ("test", "kept"),
    "variant": ("validation",),
    "short": ("test",),
}  # asked

# Clips of each kind. Of the training as many as a pass of 250 steps takes.
CLIPS: Mapping[str, Mapping[str, int]] = {
    "align": {"music": 400, "voice": 1000, "digits": 1400, "event": 400},
    "train": {"music": 800, "voice": 400, "digits": 400, "event": 400},
    "validation": {"music": 60, "voice": 40, "digits": 40, "event": 40},
    "test": {"music": 140, "voice": 100, "digits": 100, "event": 100},
}
PAIRS: Mapping[str, Mapping[str, int]] = {  # minimal pairs of the test's sources, by what their two differ in
    "music": {"melody": 40, "loudness": 10, "tempo": 20},
    "voice": {"voice": 40, "loudness": 10, "tempo": 20},
    "digits": {"loudness": 10},
    "event": {"loudness": 10},
}
SHORT_CLIPS: Mapping[str, Mapping[str, int]] = {  # of one pass of 40 steps
    "train": {"music": 128, "voice": 64, "digits": 64, "event": 64},
    "test": {"music": 28, "voice": 20, "digits": 20, "event": 20},
}


@dataclass(frozen=True)
class Run:
    """One training. `what`: align (the student that all start from), final, variant (validation alone), or short (of
    the form that takes ten minutes).
    """

    arm: str
    lr: float
    seed: int
    what: What
    attention: Attention = "sdpa"
    dtype: Dtype = "bfloat16"

    @property
    def steps(self) -> int:
        return STEPS[self.what]

    @property
    def name(self) -> str:
        return f"{self.arm}-{self.what}-lr{self.lr:g}-seed{self.seed}-steps{self.steps}"


def native_dtype() -> Dtype:
    """bfloat16, as such models are trained; float32 on CPUs that would multiply bfloat16 tens of times slower."""
    import torch  # takes seconds, and few that read this file need it

    fast = torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "bfloat16" if fast else "float32"


ALIGNMENT = Run("align", LEARNING_RATE, 0, "align")


def config_of(run: Run, cache: Path, out: Path) -> TrainConfig:
    """The run as `coat train` takes it. The two stages have the shares and weights of coat's own defaults."""
    align, arm = run.what == "align", run.arm.split("-")[0]
    distilled = arm in "CDE"
    first = round(0.25 * run.steps)
    stages = [
        {"name": "distill", "steps": first, "ce": 0.3, "distill": 1.0 if distilled else 0.0},
        {
            "name": "answer", "steps": run.steps - first, "ce": 1.0,
            "distill": 0.3 if distilled else 0.0, "distill_end": 0.03 if distilled else None,
        },
    ]  # fmt: skip
    if align:
        stages = [{"name": "align", "steps": run.steps, "ce": 1.0, "distill": 0.0}]
    data: dict[str, Any] = {
        "student": {"path": str(cache / ("student" if align else "aligned"))},
        "thinking": {"count": THINK if arm in "BCE" else 0, "states": STATES.get(arm, "think")},
        "data": {
            "shards": str(cache / "shards" / ("align" if align else "train")), "batch_size": BATCH,
            "seed": run.seed, "choices": "ignore", "shuffle": 4096,
        },
        "heads": {"dim": 128, "layers": 1, "heads": 4, "experts": list(EXPERTS) if distilled else []},
        "lora": {"rank": 16, "alpha": 32},
        "optim": {"lr": run.lr, "heads_lr": 1e-3, "warmup": WARMUP},
        "stages": stages,
        "run": {"out": str(out), "seed": run.seed, "save_every": 100, "log_every": 10},
    }  # fmt: skip
    if align:
        data["student"]["train"] = ["multi_modal_projector"]
        data["lora"] = {"rank": 8, "alpha": 16}  # half, since it is committed
    else:  # PROTOCOL.md, additions
        data["student"] |= {"dtype": run.dtype, "attention": run.attention}
        data["run"]["precision"] = "bf16" if run.dtype == "bfloat16" else "no"
        for section, settings in VARIANTS.get(run.arm, {}).items():
            data[section] |= settings
    return TrainConfig.from_dict(data, run.name)
