"""`coat plan-train`: a run's model on the meta device, and the memory that it takes."""

from collections.abc import Mapping

import torch

from coat.manifests import ExpertInfo, ShardIndex
from coat.trainer.config.sections import ThinkingConfig
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.build import heads_of
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.experts import experts_of
from coat.trainer.model.thinking import ThinkingBlock, grow_embeddings, max_think_positions
from coat.trainer.model.trained import choose_trained, keep_in_float32
from coat.trainer.planning.activations import Shape
from coat.trainer.planning.footprint import Footprint, footprint
from coat.trainer.planning.online_experts import ONLINE_EXPERTS
from coat.trainer.students.base import Student
from coat.trainer.students.meta import meta_student


def plan_training(config: TrainConfig, shape: Shape, shards: str | None = None) -> Footprint:
    """Of the run of a config, by the shape of one forward pass. Without shards, heads are for five usual experts."""
    experts = {e.name: e.info() for e in ONLINE_EXPERTS} if config.distils else {}
    if shards is not None:
        experts = experts_of(config, ShardIndex.read(shards))
    return footprint(meta_model(config, experts, shape.seconds), config, experts, shape)


def meta_model(config: TrainConfig, experts: Mapping[str, ExpertInfo], seconds: float) -> CoatModel:
    """What `build_model` builds, without numbers: student, block, LoRA (unless `lora.full`) and heads."""
    student = meta_student(config.student.path, config.student.dtype)
    block = thinking_block(student, config.thinking, seconds)
    with torch.device("meta"):
        choose_trained(student, block, config)
        keep_in_float32(student.model)
        return CoatModel(student, block, *heads_of(config, student.hidden_size, experts))


def thinking_block(student: Student, config: ThinkingConfig, seconds: float) -> ThinkingBlock:
    """With a tokenizer as training adds it; without one its rows are put behind the vocabulary."""
    if student.tokenizer is not None:
        return ThinkingBlock.add_to(student, config)
    count = max_think_positions(config, seconds)
    if not count:
        return ThinkingBlock(config, -1, -1, ())
    first = student.model.get_input_embeddings().num_embeddings
    ids = range(first, first + count + 2)
    grow_embeddings(student.model, ids, config.noise)
    return ThinkingBlock(config, ids[0], ids[-1], tuple(ids[1:-1]))
