"""What a batch knows of itself, so that a device need not be asked; and how its targets travel."""

from pathlib import Path

import numpy as np
import torch

from coat.manifests import ExpertInfo, ShardIndex
from coat.trainer.config.sections import DataConfig, HeadsConfig, ThinkingConfig
from coat.trainer.data.collator import Collator, pad_targets
from coat.trainer.data.shard_reading import iterate_shards
from coat.trainer.model.batch import IGNORED, Batch, Targets, positions_before
from coat.trainer.model.heads import DistillHeads
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from tests.trainer.helpers import SPECS


def whole_batch(student: Student, shards: Path) -> Batch:
    block = ThinkingBlock.add_to(student, ThinkingConfig(count=4))
    collator = Collator(student, block, ShardIndex.read(str(shards)), ["pitch", "mel"])
    config = DataConfig(shards=str(shards))
    return collator.collate([collator.encode(sample, config) for sample in iterate_shards(str(shards))])


def test_indices_are_where_things_stand(student: Student, shards_dir: Path) -> None:
    batch = whole_batch(student, shards_dir)
    assert batch.targets["pitch"].rows_R.tolist() == [b for b in range(10) if b not in (3, 5)]
    assert batch.targets["mel"].rows_R.tolist() == [b for b in range(10) if b != 5]
    width = batch.labels_BT.shape[1]
    labelled = [(b, t) for b in range(10) for t in range(1, width) if batch.labels_BT[b, t] != IGNORED]
    assert [divmod(at, width) for at in batch.before_R.tolist()] == [(b, t - 1) for b, t in labelled]
    heard = torch.zeros(10 * width, dtype=torch.bool)
    heard[batch.indices["audio_R"]] = True
    audio_id = student.tokenizer.convert_tokens_to_ids(student.audio_token)
    assert torch.equal(heard.view(10, width), batch.inputs["input_ids"] == audio_id)
    assert positions_before(torch.tensor([[7, IGNORED], [IGNORED, 7]])).tolist() == [
        2
    ]  # a first one has none before it


def test_all_of_a_batch_goes_where_it_is_sent(student: Student, shards_dir: Path) -> None:
    batch = whole_batch(student, shards_dir).to("meta")
    targets = [t for target in batch.targets.values() for t in (target.frames_BND, target.mask_BN, target.rows_R)]
    tensors = [*batch.inputs.values(), *batch.indices.values(), batch.labels_BT, batch.before_R, *targets]
    assert {t.device.type for t in tensors} == {"meta"}


def test_targets_in_float16_travel_as_they_are_and_have_the_same_losses() -> None:
    rng = np.random.default_rng(0)
    stored = [rng.normal(2.0, 3.0, (7, 6)).astype(np.float16), None, rng.normal(2.0, 3.0, (4, 6)).astype(np.float16)]
    stored[0][2, 3] = np.nan  # type: ignore[index]
    half = pad_targets(stored, 6)
    wide = pad_targets([None if t is None else t.astype(np.float32) for t in stored], 6)
    assert (half.frames_BND.dtype, wide.frames_BND.dtype) == (torch.float16, torch.float32)
    assert pad_targets([stored[0], np.zeros((2, 6), np.float32)], 6).frames_BND.dtype == torch.float32
    assert half.mask_BN.sum(1).tolist() == wide.mask_BN.sum(1).tolist() == [6, 0, 4]
    info = ExpertInfo(spec=SPECS["mel"], samples=1, frames=1, mean=(2.0,) * 6, std=(3.0,) * 6)
    torch.manual_seed(0)
    heads = DistillHeads(HeadsConfig(dim=16, layers=1, heads=2), 8, {"mel": info})
    states, mask = torch.randn(3, 5, 8), torch.ones(3, 5, dtype=torch.bool)

    def loss(targets: Targets) -> torch.Tensor:
        return heads(states, mask, torch.ones(3), {"mel": targets})["mel"]

    assert loss(half).dtype == torch.float32
    assert torch.equal(loss(half), loss(wide))
