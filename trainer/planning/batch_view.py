"""What the student really receives in a batch: its tokens by role, its sound and its targets on one time axis.

    inspected = nth_batch(config, 1)
    view = view_batch(inspected)

No weights are loaded: tokenizer and feature extractor make the batch, and the student is on the meta device.
B batch, T positions of a sequence, K think positions, N frames, F mel frames, M mel bands, D dim.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from coat.manifests import ExpertInfo
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.loader import loader_of
from coat.trainer.data.sample_record import block_seconds
from coat.trainer.model.batch import IGNORED, Batch
from coat.trainer.model.experts import experts_of
from coat.trainer.model.heads import think_times
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student
from coat.trainer.students.meta import meta_student

ROLES = ("prompt", "audio", "block", "label", "padding")
FOLD_FROM = 4  # equal tokens in a row: they are written once, with their number


@dataclass(frozen=True)
class InspectedBatch:
    """A batch, and what it was made with."""

    batch: Batch
    number: int  # from 1
    student: Student  # without weights
    block: ThinkingBlock
    experts: dict[str, ExpertInfo]
    skipped: dict[str, int]  # samples left out before it, by reason


@dataclass(frozen=True)
class RoleSpan:
    """Positions in a row that have one role."""

    role: str  # of ROLES
    first: int  # position in T
    last: int  # the last one, included
    text: str  # decoded


@dataclass(frozen=True)
class TargetView:
    expert: str
    kind: str
    dim: int
    rate_hz: float
    frames: int  # with padding they are as many as the batch's longest
    masked: int  # of those, not finite
    first_s: float | None  # centre of the first and the last frame; None: no target
    last_s: float | None


@dataclass(frozen=True)
class SampleView:
    id: str
    seconds: float
    positions: int  # without padding
    padding: int
    mel_frames: int  # that hold its sound
    mel_padding: int
    segments: tuple[RoleSpan, ...]
    response: str | None  # what the labels say; None: it is distilled only
    think: tuple[tuple[int, float], ...]  # position and nominal time in seconds of each think state
    targets: tuple[TargetView, ...]


@dataclass(frozen=True)
class BatchView:
    number: int
    shapes: dict[str, tuple[int, ...]]  # of every tensor
    padding: float  # share of the positions
    counts: dict[str, int]  # what losses are divided by
    samples: tuple[SampleView, ...]
    skipped: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def nth_batch(config: TrainConfig, number: int, log: Callable[[str], None] = lambda _: None) -> InspectedBatch:
    """The batch that `coat train` gives the student as its `number`th forward pass (from 1), on one rank."""
    data = DataSets.of_run(config)
    experts = experts_of(config, data.index)
    student = meta_student(config.student.path, config.student.dtype)
    block = ThinkingBlock.add_to(student, config.thinking, block_seconds(config, data))
    loader = loader_of(data, Collator(student, block, data.index, list(experts)), log=log)
    return InspectedBatch(loader.nth(number), number, student, block, experts, dict(loader.skipped))


def view_batch(inspected: InspectedBatch) -> BatchView:
    batch = inspected.batch
    tensors = {**batch.inputs, "labels": batch.labels_BT, "think": batch.think_BK}
    tensors |= {f"targets.{name}": target.frames_BND for name, target in batch.targets.items()}
    used, padded = batch.positions
    return BatchView(
        number=inspected.number,
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        padding=1 - used / padded,
        counts=batch.counts(),
        samples=tuple(view_sample(inspected, b, mel_MF) for b, mel_MF in enumerate(mel_features(inspected))),
        skipped=inspected.skipped,
    )


def view_sample(inspected: InspectedBatch, b: int, mel: tuple[Tensor, int] | None) -> SampleView:
    batch, tokenizer = inspected.batch, inspected.student.tokenizer
    labels_T = batch.labels_BT[b]
    label_ids = labels_T[labels_T != IGNORED].tolist()
    used = int(batch.inputs["attention_mask"][b].sum())
    mask_K = batch.think_mask_BK[b]
    times_K = think_times(batch.think_mask_BK, batch.seconds_B)[b]
    return SampleView(
        id=batch.ids[b],
        seconds=float(batch.seconds_B[b]),
        positions=used,
        padding=labels_T.numel() - used,
        mel_frames=mel[0].shape[1] if mel else 0,
        mel_padding=mel[1] if mel else 0,
        segments=tuple(role_spans(inspected, b)),
        response=tokenizer.decode(label_ids) if label_ids else None,
        think=tuple(zip(batch.think_BK[b][mask_K].tolist(), times_K[mask_K].tolist(), strict=True)),
        targets=tuple(target_view(inspected, b, name) for name in batch.targets),
    )


def target_view(inspected: InspectedBatch, b: int, name: str) -> TargetView:
    spec, mask_N = inspected.experts[name].spec, inspected.batch.targets[name].mask_BN[b]
    finite = mask_N.nonzero()[:, 0].tolist()
    frames = finite[-1] + 1 if finite else 0
    times_N = spec.times(frames)
    first, last = (float(times_N[finite[0]]), float(times_N[-1])) if finite else (None, None)
    return TargetView(name, spec.kind, spec.dim, spec.rate_hz, frames, frames - len(finite), first, last)


def roles_of(inspected: InspectedBatch, b: int) -> list[str]:
    """A role of each position: what the tensors say, not how they were made."""
    batch, tokenizer = inspected.batch, inspected.student.tokenizer
    audio_id, block_ids = tokenizer.convert_tokens_to_ids(inspected.student.audio_token), set(inspected.block.new_ids)

    def role(id: int, label: int, mask: int) -> str:
        if not mask:
            return "padding"
        if label != IGNORED:
            return "label"
        return "audio" if id == audio_id else "block" if id in block_ids else "prompt"

    rows = (batch.inputs["input_ids"][b], batch.labels_BT[b], batch.inputs["attention_mask"][b])
    return [role(*position) for position in zip(*(row.tolist() for row in rows), strict=True)]


def role_spans(inspected: InspectedBatch, b: int) -> Iterator[RoleSpan]:
    ids_T = inspected.batch.inputs["input_ids"][b].tolist()
    for role, group in groupby(enumerate(roles_of(inspected, b)), key=lambda position_role: position_role[1]):
        positions = [t for t, _ in group]
        first, last = positions[0], positions[-1]
        yield RoleSpan(role, first, last, decode_folded(inspected, ids_T[first : last + 1]))


def decode_folded(inspected: InspectedBatch, ids: Sequence[int]) -> str:
    """Decoded, with runs folded: `<|AUDIO|> x75`, `<|audio_think_0|> .. <|audio_think_15|>`."""
    decode, think = inspected.student.tokenizer.decode, set(inspected.block.ids_K)
    texts: list[str] = []
    unfolded: list[int] = []

    def write_unfolded() -> None:
        if unfolded:
            texts.append(decode(unfolded))
            unfolded.clear()

    for is_think, group in groupby(ids, key=think.__contains__):
        run = list(group)
        if is_think and len(run) > 2:
            write_unfolded()
            texts.append(f"{decode(run[:1])} .. {decode(run[-1:])}")
            continue
        for id, equal in groupby(run):
            times = sum(1 for _ in equal)
            if times < FOLD_FROM:
                unfolded += [id] * times
                continue
            write_unfolded()
            texts.append(f"{decode([id])} x{times}")
    write_unfolded()
    return "".join(texts)


def mel_features(inspected: InspectedBatch) -> list[tuple[Tensor, int] | None]:
    """Of each sample the features that hold its sound, `[M, F]`, and how many more frames are padding.

    None where the student takes no features of that kind. A tower that reads windows has several rows a sample.
    """
    batch, student = inspected.batch, inspected.student
    features = batch.inputs.get("input_features")
    if features is None or features.ndim != 3:
        return [None] * len(batch)
    masks = [tensor for name, tensor in batch.inputs.items() if name.endswith("features_mask") or "feature_att" in name]
    mask_RF = masks[0].bool() if masks else torch.ones(features.shape[0], features.shape[2], dtype=torch.bool)
    samples = [round(float(s) * student.sample_rate) for s in batch.seconds_B[: len(batch)]]
    rows = [student.feature_rows(n) if n else 0 for n in samples]  # samples of text alone have none
    mels: list[tuple[Tensor, int] | None] = []
    used = sum(rows)  # a batch of text alone holds a row of silence behind them
    for sample_rows, mask in zip(features[:used].split(rows), mask_RF[:used].split(rows), strict=True):
        if not len(sample_rows):
            mels.append(None)
            continue
        mel_MF = torch.cat([row[:, kept] for row, kept in zip(sample_rows, mask, strict=True)], dim=1).float()
        mels.append((mel_MF, mask.numel() - mel_MF.shape[1]))
    return mels


def positions_by_role(sample: SampleView) -> Counter[str]:
    """Positions of each role."""
    return Counter({role: sum(s.last - s.first + 1 for s in sample.segments if s.role == role) for role in ROLES})
