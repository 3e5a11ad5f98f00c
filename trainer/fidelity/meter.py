"""Records of what heads say, taken in passing while a model computes its losses.

    meter = FidelityMeter(model, experts)
    with torch.no_grad(), meter.watch(batch, clips):
        model(batch)
    meter.kept["pitch"].clips

The losses' modules are given just what is needed (predictions, targets, mask), so that there is no second pass, in an
evaluation beside the training either. It never changes what it looks at.

R rows of a batch with targets, N frames, O outputs of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xxhash
from accelerate import Accelerator
from torch import Tensor, nn

from coat.manifests import ExpertInfo
from coat.trainer.data.samples import Sample
from coat.trainer.fidelity.kept import BUDGET, ClipRecord, KeptClips
from coat.trainer.fidelity.measures.by_kind import measure_of
from coat.trainer.fidelity.measures.classes import PRESENT
from coat.trainer.model.batch import Batch, at_audio, expert_of
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.ranks import gather_from_ranks


@dataclass(frozen=True)
class Clip:
    """Which clip a row of a batch is, see ClipRecord."""

    place: tuple[int, int]
    id: str
    sound: int
    group: str = ""

    @classmethod
    def of(cls, sample: Sample, place: tuple[int, int], group: str = "") -> "Clip":
        return cls(place, sample.id, xxhash.xxh3_64_intdigest(np.ascontiguousarray(sample.samples_S).data), group)


class FidelityMeter:
    """Of the experts that a model has heads of; by name, with `@audio` of those that read the audio's states where the
    block's are distilled as well. `constants`: also what the training mean would say (`constant`).

    Memory is that of the records: at most `budget` bytes an expert, twice that with constants.
    """

    def __init__(
        self,
        model: CoatModel,
        experts: Mapping[str, ExpertInfo],
        present: float = PRESENT,
        constants: bool = False,
        budget: int = BUDGET,
    ) -> None:
        self.experts = list(experts)
        self.losses = {name: model.heads.losses[name] for name in experts}
        if model.audio_heads is not None:
            self.losses |= {at_audio(name): model.audio_heads.losses[name] for name in experts}
        self.measures = {name: measure_of(experts[expert_of(name)], present) for name in self.losses}
        self.constant_outputs = {n: m.constant_outputs() for n, m in self.measures.items()} if constants else {}
        self.kept = {name: KeptClips(budget) for name in self.losses}
        self.constant = {name: KeptClips(budget) for name in self.constant_outputs}

    @contextmanager
    def watch(self, batch: Batch, clips: Sequence[Clip]) -> Iterator[None]:
        """Within, one forward pass over this batch, whose rows these clips are. Rows beyond them are silence."""
        with ExitStack() as stack:
            for name, loss in self.losses.items():
                stack.callback(loss.register_forward_hook(self.hook(name, batch, clips)).remove)
            yield

    def hook(self, name: str, batch: Batch, clips: Sequence[Clip]) -> Any:
        rows = batch.targets[expert_of(name)].rows_R.tolist()

        def look(_loss: nn.Module, args: tuple[Tensor, Tensor, Tensor], _output: Any) -> None:
            for row, outputs_NO, target_ND, mask_N in zip(rows, *args, strict=True):
                self.add(name, clips[row], outputs_NO[mask_N], target_ND[mask_N])

        return look

    @torch.no_grad()
    def add(self, name: str, clip: Clip, outputs_NO: Tensor, target_ND: Tensor) -> None:
        """Of one clip: the frames that have a target."""
        with torch.autocast(outputs_NO.device.type, enabled=False):
            outputs_NO, target_ND = outputs_NO.float(), target_ND.float()
            said = [(self.kept[name], outputs_NO)]
            if name in self.constant:
                constant_NO = self.constant_outputs[name].to(outputs_NO.device).expand_as(outputs_NO)
                said.append((self.constant[name], constant_NO))
            for kept, by_NO in said:
                record = self.measures[name].record(by_NO, target_ND)
                kept.add(ClipRecord(clip.place, clip.id, clip.group, clip.sound, len(target_ND), record))

    def gather(self, accelerator: Accelerator) -> None:
        """From then on, of the clips of all ranks, which all call it."""
        for kept in (self.kept, self.constant):
            for name, own in kept.items():
                kept[name] = KeptClips(own.budget).merge(gather_from_ranks(accelerator, [own]))
