"""What is trained, in groups: by rate and decay for the optimizer, by part of the model for what is reported."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from coat.manifests import RunError
from coat.trainer.config.sections import OptimConfig
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.batch import at_audio
from coat.trainer.model.coat_model import CoatModel


def parameter_groups(model: CoatModel, config: TrainConfig) -> Sequence[dict[str, Any]]:
    """AdamW's groups, with the names of their parameters: a rate for each part, decay on matrices only.

    Which groups there are is the same for all rates.
    """
    groups: dict[tuple[str, bool], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.trainable().items():
        part = model_part(name).partition("/")[0]
        groups.setdefault((part, decays(name, parameter)), []).append((name, parameter))
    return [
        {"params": parameters, **optimizer_options(config.optim, part, has_decay)}
        for (part, has_decay), parameters in groups.items()
    ]


def decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and "embed" not in name


def optimizer_options(optim: OptimConfig, part: str, has_decay: bool) -> dict[str, Any]:
    lr = learning_rates(optim)[part]
    return {"lr": lr, "base_lr": lr, "weight_decay": optim.weight_decay if has_decay else 0.0, "betas": optim.betas}


def learning_rates(optim: OptimConfig) -> dict[str, float]:
    """The base rate of each part of the model (see `model_part`)."""
    return {
        "lora": optim.lr,
        "student": optim.lr if optim.student_lr is None else optim.student_lr,
        "rows": optim.heads_lr if optim.rows_lr is None else optim.rows_lr,
        "heads": optim.heads_lr,
    }


def model_part(name: str) -> str:
    """Which part a parameter of CoatModel belongs to: lora, rows (of think tokens), student, heads/<expert>.

    What a group of several experts shares is heads/<group>.
    """
    if name.startswith(("heads.", "audio_heads.")):
        place, _, group, kind, expert, *_ = name.split(".")  # heads.groups.<group>.outputs.<expert>. or .trunk.
        head = expert if kind == "outputs" else group
        return f"heads/{at_audio(head) if place == 'audio_heads' else head}"
    return "lora" if "lora_" in name else "rows" if "trainable_tokens" in name else "student"


def optimizer_state_by_name(state: Mapping[str, Any], trainable: Mapping[str, nn.Parameter]) -> dict[str, Any]:
    """What an optimizer's `state_dict` holds of each parameter. RunError where it is of others.

    Before it had names, its groups were two by two: what is new (heads, rows) or not, with decay or not.
    """
    names = [group.get("param_names") for group in state["param_groups"]]
    if None in names:
        groups: dict[tuple[bool, bool], list[str]] = {}
        for name, parameter in trainable.items():
            is_new = name.startswith("heads.") or "trainable_tokens" in name
            groups.setdefault((is_new, decays(name, parameter)), []).append(name)
        names = list(groups.values())
    found: dict[str, Any] = {}
    for group, group_names in zip(state["param_groups"], names, strict=False):
        found |= {name: state["state"].get(i) for i, name in zip(group["params"], group_names, strict=False)}
    if wrong := sorted(set(found) ^ set(trainable)):
        raise RunError(f"the optimizer's state does not fit the model: {wrong[0]} and {len(wrong) - 1} more")
    return found
