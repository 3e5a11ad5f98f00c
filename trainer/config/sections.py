"""The sections of a run's TOML file, one frozen model each, each knob in the model of the part that owns it.

Where the paper (arXiv 2606.18273) does not say a value, the defaults are ours: see docs/training.md.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, field_validator, model_validator

from coat.manifests.targets.spec import Family

Weight = Annotated[float, Field(ge=0)]


def check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as e:
        raise ValueError(f"not a regular expression ({e})") from e
    return text


Pattern = Annotated[str, Field(min_length=1), AfterValidator(check_pattern)]


# Whether a resumed run may have another value than the run that it goes on with. fixed: no. with_change: only with
# --change, since it alters how the model is trained from here on, but not what is trained. free: yes, since it
# alters neither weights nor order.
OnResume = Literal["fixed", "with_change", "free"]


def on_resume(rule: OnResume) -> dict[str, Any]:
    """For a field's `json_schema_extra`: its own rule, where that is not its section's."""
    return {"on_resume": rule}


FREE, WITH_CHANGE, FIXED = on_resume("free"), on_resume("with_change"), on_resume("fixed")


class ConfigSection(BaseModel):
    on_resume: ClassVar[OnResume] = "fixed"  # of the fields that have no rule of their own

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StudentConfig(ConfigSection):
    path: str = Field(min_length=1)  # hub id or folder
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the frozen weights
    # Frozen weights of the language model's layers in 4 bits (extra [4bit]); None: in dtype.
    quantize: Literal["nf4"] | None = None
    # What is trained whole beside LoRA: regular expressions found in names of weights (projector, audio_tower).
    train: tuple[Pattern, ...] = ()
    # The kernel of the language model's attention in training; flash_attention_2 needs the package flash-attn.
    attention: Literal["sdpa", "flash_attention_2", "eager"] = Field(default="sdpa", json_schema_extra=WITH_CHANGE)


class ThinkingConfig(ConfigSection):
    """The block of continuous thinking positions.

    `count` 0 leaves it out: a baseline, without distillation unless `states` is "audio".
    """

    count: int = Field(default=32, ge=0)  # K, unless rate_hz is given
    rate_hz: float | None = Field(default=None, gt=0)  # positions per second of audio
    placement: Literal["after_audio", "before_response"] = "after_audio"  # behind the audio, or the whole prompt
    layer: int | None = None  # decoder layer whose output is distilled; None: behind the final norm
    # Whose states are distilled: the block's, the audio's own (multi-task learning, for comparison), or both, each with
    # heads of their own.
    states: Literal["think", "audio", "both"] = "think"
    noise: float = Field(default=0.02, ge=0)  # of new embeddings, in standard deviations of the old ones
    # Share of the training's samples in which what stands behind the block does not attend to the audio: answers hear
    # it through the block alone. Drawn anew each time. Afterwards, and in held-out figures, all is attended to.
    hide_audio: float = Field(default=0.0, ge=0, le=1, json_schema_extra=WITH_CHANGE)

    @model_validator(mode="after")
    def both_there(self) -> Self:
        if self.states == "both" and self.count == 0:
            raise ValueError('states "both" without a block (count 0); states "audio" distils the audio\'s alone')
        if self.hide_audio and self.count == 0:
            raise ValueError(f"hide_audio {self.hide_audio:g} without a block (count 0) to hear the audio through")
        return self


ONE_SET = "shards"  # name of the set that `data.shards` gives


class DataSetConfig(ConfigSection):
    """One of several shard sets that are mixed. A limit of its own stands for that of [data]."""

    on_resume = "with_change"

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")  # in logs, and in metrics.jsonl
    shards: str = Field(min_length=1, json_schema_extra=FREE)  # folder or URL with index.json
    weight: float | None = Field(default=None, gt=0)  # share of the samples that are drawn, against those of the others
    max_seconds: float | None = Field(default=None, gt=0)  # in place of data.max_seconds
    max_tokens: int | None = Field(default=None, ge=1)  # in place of data.max_tokens


class DataConfig(ConfigSection):
    """`shards` is one set, `sets` are several."""

    shards: str | None = Field(default=None, json_schema_extra=FREE)  # folder or URL with index.json
    sets: tuple[DataSetConfig, ...] = Field(default=(), json_schema_extra=WITH_CHANGE)  # several sets, mixed
    # Where no set has a weight, it is samples^(1 / temperature): 1 draws as if all were one set, more evens them out.
    temperature: float = Field(default=1.0, gt=0, json_schema_extra=WITH_CHANGE)
    # Samples of one forward pass, per rank.
    batch_size: int = Field(default=8, ge=1, json_schema_extra=WITH_CHANGE)
    # Padded positions of one forward pass, at most: samples of like length go together, up to batch_size of them.
    # None: batch_size samples as they come.
    batch_tokens: int | None = Field(default=None, ge=1, json_schema_extra=WITH_CHANGE)
    # Samples that are held and permuted together, at most; twice that in memory.
    shuffle: int = Field(default=256, ge=1, json_schema_extra=WITH_CHANGE)
    # The same by their bytes ("2GiB"). None: 1 GiB, and no bound in runs that were begun before there was one.
    shuffle_bytes: ByteSize | None = Field(default=None, gt=0, json_schema_extra=WITH_CHANGE)
    seed: int = 0  # of the order
    # Threads that decode; the order never depends on them.
    workers: int = Field(default=2, ge=0, json_schema_extra=FREE)
    shards_ahead: int = Field(default=4, ge=1, json_schema_extra=FREE)  # tars that are read at a time, each by a thread
    # Leave longer audio out (default: the student's limit).
    max_seconds: float | None = Field(default=None, gt=0, json_schema_extra=WITH_CHANGE)
    # Leave longer sequences out, of prompt, block and answer: nothing is cut (default: the student's positions).
    max_tokens: int | None = Field(default=None, ge=1, json_schema_extra=WITH_CHANGE)
    exclude: tuple[str, ...] = Field(default=(), json_schema_extra=WITH_CHANGE)  # ids of samples to leave out
    exclude_file: str | None = Field(default=None, json_schema_extra=WITH_CHANGE)  # the same, an id a line
    unusable: Literal["skip", "raise"] = "skip"  # audio that the student cannot hear whole, or broken
    transcribe_prompt: str = "Transcribe the speech."  # of samples that have text, but no prompt and response
    turns: Literal["all", "last"] = "all"  # whose answers have a cross-entropy, where a sample has several turns
    choices: Literal["append", "ignore"] = "append"  # write a sample's choices behind its prompt

    @model_validator(mode="after")
    def one_or_several_sets(self) -> Self:
        if bool(self.shards) == bool(self.sets):
            given = "are both given" if self.sets else "are both missing"
            raise ValueError(f'shards (--shards) and sets {given}; expected one of them (shards = "" takes it away)')
        names = [one.name for one in self.sets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sets are named {', '.join(twice)}; expected names that differ")
        unweighted = [one.name for one in self.sets if one.weight is None]
        if unweighted and len(unweighted) < len(self.sets):
            raise ValueError(f"{', '.join(unweighted)} without a weight; expected one for each set, or for none")
        return self

    @property
    def named_sets(self) -> tuple[DataSetConfig, ...]:
        return self.sets or (DataSetConfig(name=ONE_SET, shards=self.shards or ""),)


class HeadsConfig(ConfigSection):
    experts: tuple[str, ...] | None = None  # None: all of the shards
    dim: int = Field(default=256, ge=8)  # width of a head
    layers: int = Field(default=2, ge=1)  # of cross-attention
    heads: int = Field(default=4, ge=1)  # of attention, in each layer
    # Experts that share norm, projection and layers, by a name for each group. Others have their own, and all have an
    # output layer of their own.
    groups: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    # Which positions of the block a head reads: all, or a share of its own (each group's, or single expert's, every so
    # many-th), so that what experts teach is kept apart.
    positions: Literal["all", "own"] = "all"
    # Heads learn, and the student learns nothing from them: what the experts' targets can be read from without
    # distillation, the floor that `coat fidelity` compares with.
    detach: bool = False

    @model_validator(mode="after")
    def divisible(self) -> Self:
        if self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} must be a multiple of twice the heads ({self.heads})")
        return self

    @model_validator(mode="after")
    def in_one_group(self) -> Self:
        members = [name for group in self.groups.values() for name in group]
        if twice := sorted({name for name in members if members.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} in two groups; expected one at most")
        return self

    def group_of(self, expert: str) -> str:
        """The name of its group; an expert alone is one."""
        return next((group for group, members in self.groups.items() if expert in members), expert)


class LossConfig(ConfigSection):
    """L = ce * CE + distill * sum_k weight_k / scale_k * L_k; ce and distill are the stage's."""

    on_resume = "with_change"

    weights: Mapping[str, Weight] = Field(default_factory=dict)  # by expert
    families: Mapping[Family, Weight] = Field(default_factory=dict)  # by family, of experts that are not named
    default: Weight = 1.0  # of all others
    audio: Weight = 1.0  # times these, of what is read off the audio's states where `thinking.states` is "both"
    # What is summed, of targets of this kind.
    representation: Literal["cosine+smooth_l1", "cosine", "smooth_l1", "mse"] = "cosine+smooth_l1"
    scalars: Literal["smooth_l1", "mse"] = "smooth_l1"  # the same, of scalars
    # What a loss is divided by. none: nothing, which did best where it was measured (docs/scale-model.md). prior: what
    # the best constant prediction would lose (model/loss_scales.py): equal weights are one footing for all kinds.
    scale: Literal["none", "prior"] = "none"
    # Whether weights follow the training, by the norms of gradients or by learned variances:
    # training/step/loss_balance.py.
    balance: Literal["fixed", "grad_norm", "uncertainty"] = "fixed"

    def weight(self, expert: str, family: Family) -> float:
        return self.weights.get(expert, self.families.get(family, self.default))


class LoraConfig(ConfigSection):
    full: bool = False  # train every weight instead
    rank: int = Field(default=16, ge=1)  # of the matrices A and B
    alpha: float = Field(default=32, gt=0)  # what they add is scaled by alpha / rank
    dropout: float = Field(default=0.0, ge=0, lt=1)  # of an adapter's input; it costs memory
    # Which linear layers are adapted: regular expressions that fit a name or its end behind a dot (q_proj,
    # layers.(2|3).mlp.down_proj). Empty: attention and MLP of the language model, as the student's class has it.
    targets: tuple[Pattern, ...] = ()
    ranks: Mapping[Pattern, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)  # by such a pattern; first fit
    alphas: Mapping[Pattern, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)  # the same of alphas
    dora: bool = False  # magnitude and direction apart (arXiv 2402.09353)
    rslora: bool = False  # scale by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732)


class OptimConfig(ConfigSection):
    on_resume = "with_change"

    lr: float = Field(default=1e-4, gt=0)  # of LoRA, and the student; a stage scales it, as those below
    heads_lr: float = Field(default=5e-4, gt=0)  # of the heads and, under LoRA, the thinking embeddings
    rows_lr: float | None = Field(default=None, gt=0)  # of the thinking embeddings under LoRA; None: heads_lr
    student_lr: float | None = Field(default=None, gt=0)  # of what student.train names, or lora.full trains; None: lr
    weight_decay: float = Field(default=0.01, ge=0)  # of matrices only
    betas: tuple[float, float] = (0.9, 0.98)  # of AdamW
    clip: float = Field(default=1.0, gt=0)  # of the global gradient norm
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"  # of the rate, in each stage anew: see schedule.py
    warmup: int = Field(default=100, ge=0)  # steps, at the start of each stage
    decay: float = Field(default=0.2, gt=0, le=1)  # share of a stage in which wsd lets the rate down
    lr_end: float = Field(default=0.1, ge=0, le=1)  # share of the rate that is left at the end of a stage
    # Decay of a moving average of what is trained, which is then evaluated and exported instead of the last weights.
    # It decides what a checkpoint holds.
    ema: float | None = Field(default=None, gt=0, lt=1, json_schema_extra=FIXED)


class StageConfig(ConfigSection):
    on_resume = "with_change"

    name: str  # in logs
    steps: int = Field(ge=1)  # of the optimizer
    ce: Weight = 1.0  # weight of the answer's cross-entropy
    distill: Weight = 1.0  # weight of all experts' losses together
    distill_end: Weight | None = None  # annealed to, linearly; None: constant
    lr: float = Field(default=1.0, gt=0)  # times optim.lr and optim.heads_lr


DEFAULT_STAGES = (
    StageConfig(name="distill", steps=1000, ce=0.1, distill=1.0),
    StageConfig(name="answer", steps=2000, ce=1.0, distill=0.3, distill_end=0.03),
)


class BenchmarkConfig(ConfigSection):
    """A benchmark or manifest that is asked beside the training, as `coat evaluate` does it."""

    on_resume = "free"

    data: str = Field(min_length=1)  # a manifest, or the benchmark's official file
    name: str = "manifest"  # of a benchmark: `coat benchmarks`
    audio_root: str | None = None  # what the paths of an official file count from
    template: str | None = None  # None: the benchmark's own
    rows: int | None = Field(default=200, ge=1)  # drawn by seed; None: all
    seed: int = 0  # of that draw
    every: int | None = Field(default=None, ge=1)  # steps, and at the end; None: evaluation.every
    max_new_tokens: int | None = Field(default=None, ge=1)  # None: as the benchmark says
    guard: int = Field(default=8, ge=0)  # rows that are asked again with other audio and with silence


class EvaluationConfig(ConfigSection):
    """Beside the training: losses, accuracy and answers on held-out shards, and benchmarks. It never changes it."""

    on_resume = "free"

    shards: str | None = None  # folder or URL with index.json; None: no evaluation
    every: int = Field(default=500, ge=1)  # steps, and at the end
    samples: int = Field(default=256, ge=1)  # the first so many: their losses
    fidelity: bool = False  # of these samples, how well heads say what the experts heard: fidelity/<expert>/<measure>
    answers: int = Field(default=64, ge=0)  # the first so many of those are asked, too
    max_new_tokens: int = Field(default=256, ge=1)  # of an answer; those that are cut there are counted
    benchmarks: tuple[BenchmarkConfig, ...] = ()  # what is asked beside the training


class RunConfig(ConfigSection):
    out: str = Field(min_length=1, json_schema_extra=FREE)  # folder of the run
    seed: int = 0  # of new weights and dropout
    accumulate: int = Field(default=1, ge=1, json_schema_extra=WITH_CHANGE)  # forward passes of one step
    # Autocast; auto: bf16 where the device has it.
    precision: Literal["auto", "no", "bf16"] = Field(default="auto", json_schema_extra=WITH_CHANGE)
    # Compute activations of the layers again in the backward pass: less memory, more time.
    gradient_checkpointing: bool = Field(default=False, json_schema_extra=WITH_CHANGE)
    # torch.compile of the language model's layers and of the heads, with this backend (inductor); None: not compiled.
    compile: str | None = Field(default=None, json_schema_extra=WITH_CHANGE)
    save_every: int = Field(default=500, ge=1, json_schema_extra=FREE)  # steps between checkpoints
    keep: int = Field(default=2, ge=1, json_schema_extra=FREE)  # newest checkpoints that stay
    # Keep the checkpoint whose held-out figure is best, too: accuracy, ce, distill/<expert>, a key of evaluation.jsonl.
    best: str | None = Field(default=None, min_length=1, json_schema_extra=FREE)
    # Which of its values is the best; None: the highest of accuracies, the lowest of losses and error rates.
    best_is: Literal["highest", "lowest"] | None = Field(default=None, json_schema_extra=FREE)
    # End the run behind so many evaluations without a better one. None: never.
    patience: int | None = Field(default=None, ge=1, json_schema_extra=FREE)
    log_every: int = Field(default=10, ge=1, json_schema_extra=FREE)  # steps between lines of metrics.jsonl
    # Stop where the gradient's norm is over so many times its median for 10 steps running. None: never.
    max_growth: float | None = Field(default=None, gt=1, json_schema_extra=FREE)
    # Steps of the run whose loss or gradient is not finite, that are left out (and named) before one stops it.
    max_skipped_steps: int = Field(default=0, ge=0, json_schema_extra=FREE)
    # Beside metrics.jsonl and TensorBoard: wandb, trackio, mlflow, ...
    trackers: tuple[str, ...] = Field(default=(), json_schema_extra=FREE)
    project: str = Field(default="coat", min_length=1, json_schema_extra=FREE)  # where a tracker files the run

    @field_validator("out")
    @classmethod
    def local(cls, out: str) -> str:
        if "://" in out:
            raise ValueError("checkpoints are renamed when whole, which object stores cannot; expected a local folder")
        return out

    @model_validator(mode="after")
    def best_is_known(self) -> Self:
        if self.best is None and (self.best_is or self.patience):
            raise ValueError("best_is and patience are of a figure; give best, such as accuracy or ce")
        if self.best is not None and self.best_is is None and is_highest(self.best) is None:
            raise ValueError(
                f"best {self.best!r}: its name does not say what is better; give best_is: highest or lowest"
            )
        return self

    @property
    def best_is_highest(self) -> bool:
        return is_highest(self.best or "") is True if self.best_is is None else self.best_is == "highest"


def is_highest(figure: str) -> bool | None:
    """Whether more of a held-out figure is better; None where its name does not say."""
    name = figure.rpartition(".")[2]
    if re.match(r"accuracy(/|$)|fidelity/", name):
        return not name.endswith("/voicing_false_alarm")
    return False if re.match(r"(ce|loss|distill/.+|cut|unparsed|missing|wer|cer)(/|$)", name) else None
