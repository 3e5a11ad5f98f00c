"""Student, thinking block and heads as one module: what is trained.

B batch, T positions of a sequence, R response tokens of a batch, K think positions, D dim.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.models import OptimConfig, TrainConfig
from coat.trainer.data.batches import IGNORED, Batch
from coat.trainer.model.heads import CrossBlock, DistillHeads, chosen_experts
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from coat.trainer.students.registry import load_student
from coat.trainer.training.monitor import Pulls


class CoatModel(nn.Module):
    """Gives *sums* of losses, so that the caller can divide by counts over accumulation and ranks."""

    def __init__(self, student: Student, block: ThinkingBlock, heads: DistillHeads) -> None:
        super().__init__()
        self.student, self.block = student, block
        self.network = student.model
        self.heads = heads
        self.layer = block.config.layer
        self.pulls = Pulls()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`ce` and each expert's loss, summed over its tokens or frames."""
        states_BTD, distilled_BTD = self.states(batch.inputs)
        sums = {"ce": self.cross_entropy(states_BTD, batch.labels_BT)}
        if len(self.heads.heads):
            index_BKD = batch.think_BK[..., None].expand(-1, -1, distilled_BTD.shape[-1])
            states_BKD = distilled_BTD.gather(1, index_BKD).float()
            with torch.autocast(states_BKD.device.type, enabled=False):  # heads are float32 where the student is not
                sums |= self.heads(states_BKD, batch.think_mask_BK, batch.seconds_B, batch.targets, self.pulls.watch)
        return sums

    def states(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The last hidden states, and those that are distilled (`thinking.layer`), `[B, T, D]` each."""
        if self.layer is None:
            states_BTD = self.student.hidden_states(inputs)
            return states_BTD, states_BTD
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            kept.append(output[0] if isinstance(output, tuple) else output)

        # A hook keeps one layer's states; `output_hidden_states` would keep them all.
        handle = cast(nn.ModuleList, self.student.language_model.layers)[self.layer].register_forward_hook(keep)
        try:
            states_BTD = self.student.hidden_states(inputs)
        finally:
            handle.remove()
        return states_BTD, kept[0]

    def cross_entropy(self, states_BTD: Tensor, labels_BT: Tensor) -> Tensor:
        """Logits are made at the positions before response tokens alone: never over audio or block."""
        labelled_BT = labels_BT[:, 1:] != IGNORED
        states_RD = self.pulls.watch("ce", states_BTD[:, :-1][labelled_BT])
        if not len(states_RD):  # every rank must reach every weight
            return self.student.logits(states_BTD[:1, :1]).float().sum() * 0
        logits_RV = self.student.logits(states_RD).float()
        return F.cross_entropy(logits_RV, labels_BT[:, 1:][labelled_BT], reduction="sum")

    def trainable(self) -> dict[str, nn.Parameter]:
        """By name, in the module's order: what a checkpoint holds."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def build_model(config: TrainConfig, experts: Mapping[str, ExpertInfo]) -> CoatModel:
    """The student with block, LoRA (unless `lora.full`) and heads, as a run starts: random by `run.seed`."""
    student = load_student(config.student.path, config.student.dtype)
    block = ThinkingBlock.add_to(student, config.thinking)
    layers = len(cast(nn.ModuleList, student.language_model.layers))
    if config.thinking.layer is not None and not -layers <= config.thinking.layer < layers:
        raise InputError(f"thinking.layer {config.thinking.layer}: the student has {layers} layers")
    torch.manual_seed(config.run.seed)
    if config.lora.full:
        if config.student.dtype != "float32":
            raise InputError(
                f"student.dtype {config.student.dtype} with lora.full: small updates would be rounded away; "
                "use float32 (run.precision computes in bf16 where it can)"
            )
        student.model.requires_grad_(True)
        freeze_constants(student.model)
    else:
        add_lora(student, block, config)
    if config.run.gradient_checkpointing:
        checkpoint_gradients(student.model)
    model = CoatModel(student, block, DistillHeads(config.heads, student.hidden_size, experts, config.losses))
    if config.run.compile is not None:
        compile_blocks(model, config.run.compile)
    return model


def checkpoint_gradients(model: Any) -> None:
    """Keep a layer's inputs alone for the way back, of layers that lie on it.

    transformers makes the inputs of every part require a gradient, as only reentrant checkpoints need, and keeps those
    of frozen layers: a frozen audio tower would be kept, computed anew and led back through, for nothing.
    """
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.disable_input_require_grads()
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False) and not any(p.requires_grad for p in module.parameters()):
            module.gradient_checkpointing = False


def compile_blocks(model: CoatModel, backend: str) -> None:
    """Compile what is called often and costs most: the language model's layers and the blocks of the heads.

    In place, so that names of weights stay. Lengths differ from batch to batch, so shapes are dynamic. Only `forward`
    is compiled: hooks (of `thinking.layer`, of FSDP2) stay outside, where a later one is not missed.
    """
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise InputError(f"run.compile {backend!r}: torch has no such backend; it has {known}")
    blocks = [*cast(nn.ModuleList, model.student.language_model.layers)]
    blocks += [module for module in model.heads.modules() if isinstance(module, CrossBlock)]
    for block in blocks:
        block.forward = torch.compile(block.forward, backend=backend, dynamic=True)


def freeze_constants(model: nn.Module) -> None:
    """Whisper's sinusoidal positions, as transformers has them; and what nothing ever reaches, so that ranks would wait
    for its gradients: a vision tower, and embeddings that Qwen2.5-Omni's audio tower has and does not use.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(("embed_positions.weight", "audio_bos_eos_token.weight")) or ".visual." in name:
            parameter.requires_grad_(False)


def add_lora(student: Student, block: ThinkingBlock, config: TrainConfig) -> None:
    """Put adapters into the language model, and train the new embedding rows alone."""
    from peft import LoraConfig, get_peft_model

    targets = check_lora(student)
    names = [name for name, module in student.model.named_modules() if module is student.model.get_input_embeddings()]
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]
        lora_dropout=config.lora.dropout,
        target_modules=student.lora_targets,
        # Of a mixture of experts, peft keeps the targets' last names alone, which the audio tower has, too.
        exclude_modules=r"(?!.*language_model\.).*",
        trainable_token_indices={names[0]: block.new_ids} if block.new_ids else None,
    )
    student.adapted = get_peft_model(student.model, lora)
    adapted = [name for name, module in student.model.named_modules() if hasattr(module, "lora_A")]
    assert adapted == targets, set(adapted) ^ set(targets)
    for name, parameter in student.model.named_parameters():
        assert not parameter.requires_grad or "language_model" in name, name


def check_lora(student: Student) -> list[str]:
    """The modules that LoRA adapts.

    InputError where it would miss the student, or one of its layers: it would be left as it is, silently.
    """
    own = set(cast(nn.ModuleList, student.language_model.layers))
    hit = [name for name, _ in student.model.named_modules() if re.fullmatch(student.lora_targets, name)]
    layers = [name for name, module in student.model.named_modules() if module in own]
    missed = [layer for layer in layers if not any(name.startswith(f"{layer}.") for name in hit)]
    if missed or not layers:
        raise InputError(
            f"{student.source}: LoRA has nothing to adapt in {len(missed)} of {len(layers)} layers "
            f"({', '.join(missed[:2])}): no module's name fits {student.lora_targets!r}, the lora_targets of "
            f"{type(student).__name__}"
        )
    return hit


def experts_of(config: TrainConfig, index: ShardIndex) -> dict[str, ExpertInfo]:
    """What is distilled."""
    names = chosen_experts(index, config.heads.experts, config.losses.weights)
    return {name: index.experts[name] for name in names} if config.distils else {}


def same_experts(config: TrainConfig, begun: ShardIndex, now: ShardIndex) -> ShardIndex:
    """The index of the shards now, with the experts that a run was begun with: a sidecar added since is not for it.

    InputError where one that it trains is gone, or has other targets.
    """
    for name, expert in experts_of(config, begun).items():
        found = now.experts.get(name)
        if found is None or (found.spec.fingerprint, found.mean, found.std) != (
            expert.spec.fingerprint, expert.mean, expert.std,
        ):  # fmt: skip
            what = f"are other ones now ({found.spec.fingerprint})" if found else "are gone"
            raise InputError(
                f"{now.path}: the targets of {name} that this run was begun with ({expert.spec.fingerprint}) {what}; "
                "put them back, or use another --out"
            )
    kept = {name: expert for name, expert in now.experts.items() if name in begun.experts}
    return replace(now, experts=kept, sidecars={n: s for n, s in now.sidecars.items() if n in kept})


def parameter_groups(model: CoatModel, config: TrainConfig) -> Sequence[dict[str, Any]]:
    """AdamW's groups: `heads_lr` for what is new, decay on matrices only. Which there are is the same for all rates."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.trainable().items():
        new = name.startswith("heads.") or "trainable_tokens" in name
        groups.setdefault((new, parameter.ndim > 1 and "embed" not in name), []).append(parameter)
    return [
        {"params": parameters, **settings(config.optim, new, decays)} for (new, decays), parameters in groups.items()
    ]


def settings(optim: OptimConfig, new: bool, decays: bool) -> dict[str, Any]:
    lr = optim.heads_lr if new else optim.lr
    return {"lr": lr, "base_lr": lr, "weight_decay": optim.weight_decay if decays else 0.0, "betas": optim.betas}
