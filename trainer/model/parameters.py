"""What is trained, in groups: by rate and decay for the optimizer, by part of the model for what is reported."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from coat.trainer.config.sections import OptimConfig
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.coat_model import CoatModel


def parameter_groups(model: CoatModel, config: TrainConfig) -> Sequence[dict[str, Any]]:
    """AdamW's groups: `heads_lr` for what is new, decay on matrices only. Which there are is the same for all rates."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.trainable().items():
        is_new = name.startswith("heads.") or "trainable_tokens" in name
        groups.setdefault((is_new, parameter.ndim > 1 and "embed" not in name), []).append(parameter)
    return [
        {"params": parameters, **optimizer_options(config.optim, is_new, decays)}
        for (is_new, decays), parameters in groups.items()
    ]


def optimizer_options(optim: OptimConfig, is_new: bool, decays: bool) -> dict[str, Any]:
    lr = optim.heads_lr if is_new else optim.lr
    return {"lr": lr, "base_lr": lr, "weight_decay": optim.weight_decay if decays else 0.0, "betas": optim.betas}


def model_part(name: str) -> str:
    """Which part a parameter of CoatModel belongs to: lora, rows (of think tokens), student, heads/<expert>.

    What a group of several experts shares is heads/<group>.
    """
    if name.startswith("heads."):
        _, _, group, kind, expert, *_ = name.split(".")  # heads.groups.<group>.outputs.<expert>. or .trunk.
        return f"heads/{expert if kind == 'outputs' else group}"
    return "lora" if "lora_" in name else "rows" if "trainable_tokens" in name else "student"
