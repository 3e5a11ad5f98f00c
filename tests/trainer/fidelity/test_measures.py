"""Measures against mir_eval, scikit-learn and numpy; a head that is right, and one that says nothing."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mir_eval.melody
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    r2_score,
    roc_auc_score,
)
from torch import Tensor

from coat.manifests import ExpertInfo, TargetSpec
from coat.trainer.fidelity.kept import ClipRecord, KeptClips
from coat.trainer.fidelity.measures.by_kind import measure_of
from coat.trainer.fidelity.measures.classes import BINS, LARGEST_LOGIT
from coat.trainer.fidelity.measures.measure import Measure
from coat.trainer.fidelity.measures.pitch import PitchMeasure, mean_pitch
from coat.trainer.fidelity.scoring import point_figures
from coat.trainer.model.losses import PITCH_BINS, pitch_bins, pitch_of

CLIPS, FRAMES = 6, 40
Array = NDArray[np.float64]


def targets_of(kind: str, rng: np.random.Generator, silent: bool = True) -> list[Array]:
    """Frames of some clips. The last channel never varies; the last class is in no frame, the one before in all."""
    clips = [rng.normal(2.0, 3.0, (FRAMES + i, 5)) for i in range(CLIPS)]
    for values in clips:
        if kind == "pitch":
            values[:, 0] = rng.uniform(6.0, 10.0, len(values))
            values[:, 1] = rng.random(len(values))
            values[:, 0][values[:, 1] < 0.25] = 0.0
        elif kind == "distribution":
            values[:] = rng.dirichlet(np.full(5, 0.5), len(values))
            values[:, 4] = 0.0
        elif kind == "probabilities":
            values[:] = rng.random(values.shape)
            values[:, 3], values[:, 4] = 0.9, 0.1
        else:
            values[:, 4] = 0.1
    if kind == "pitch" and silent:
        clips[0][:, 1] = 0.1  # a clip without a voiced frame
    return clips


def expert_of(kind: Any, clips: list[Array]) -> ExpertInfo:
    frames = np.concatenate(clips)
    spec = TargetSpec(
        expert=kind, version=1, family="pitch" if kind == "pitch" else "events", kind=kind, dim=5, rate_hz=10.0,
        start_s=0.0, sample_rate=16000, min_samples=1,
    )  # fmt: skip
    std = np.where(np.ptp(frames, axis=0) == 0, 0.0, frames.std(0))
    return ExpertInfo(
        spec=spec, samples=len(clips), frames=len(frames), mean=tuple(frames.mean(0)), std=tuple(std.tolist())
    )


def saying(kind: str, expert: ExpertInfo, target_ND: Array) -> Tensor:
    """What a head gives that is right."""
    target = torch.tensor(target_ND)
    if kind == "pitch":
        standard = (target - torch.tensor(expert.mean)) / torch.tensor(expert.std).clamp(min=1e-6)
        bins = torch.log(pitch_bins(target[None, :, 0].float())[0] + 1e-9)
        return torch.cat([bins, target[:, 1:2].float().logit(1e-6), standard[:, 2:].float()], 1)
    if kind == "probabilities":
        return target.logit(1e-6).float()
    if kind == "distribution":
        return target.clamp(min=1e-9).log().float()
    std = torch.tensor(expert.std)
    return torch.where(std > 1e-6, (target - torch.tensor(expert.mean)) / std.clamp(min=1e-6), 0.0).float()


def figures(measure: Measure, outputs: list[Tensor], targets: list[Array]) -> dict[str, float]:
    records = [measure.record(o, torch.tensor(t).float()) for o, t in zip(outputs, targets, strict=True)]
    return point_figures(measure, [ClipRecord((0, i), str(i), "", i, 1, r) for i, r in enumerate(records)])


KINDS = ("pitch", "probabilities", "distribution", "representation", "scalars")
WORTHLESS = {  # of a head that is right about some other frame
    "raw_pitch_accuracy": 0.02, "overall_accuracy": 0.27, "voicing_recall": 0.5, "voicing_false_alarm": 0.5,
    "raw_chroma_accuracy": 0.083, "map": 0.5, "auc": 0.5, "accuracy": 0.25, "balanced_accuracy": 0.25, "cosine": 0.0,
    "r2": -1.0, "retrieval": 1 / (FRAMES + 2.5), "retrieval_chance": 1 / (FRAMES + 2.5), "ccc": 0.0, "r2_others": -1.0,
    "ccc_others": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_is_right_is_perfect_and_shuffled_targets_are_chance(kind: str) -> None:
    rng = np.random.default_rng(3)
    clips = targets_of(kind, rng, silent=False)
    expert = expert_of(kind, clips)
    measure = measure_of(expert)
    right = [saying(kind, expert, target) for target in clips]
    found = figures(measure, right, clips)
    assert set(found) == set(measure.names)
    for name, value in found.items():
        best = {"voicing_false_alarm": 0.0, "retrieval_chance": WORTHLESS["retrieval_chance"]}.get(name, 1.0)
        assert value == pytest.approx(best, abs=2e-3), name
    shuffled = [target[rng.permutation(len(target))] for _ in range(30) for target in clips]
    for name, value in figures(measure, right * 30, shuffled).items():
        assert value == pytest.approx(WORTHLESS[name], abs=0.04), name


def noisy(kind: str, expert: ExpertInfo, clips: list[Array], rng: np.random.Generator) -> list[Tensor]:
    """Heads that are somewhat right."""
    return [
        out + torch.tensor(rng.normal(0, 7.0 if kind == "pitch" else 0.7, out.shape)).float()
        for out in (saying(kind, expert, target) for target in clips)
    ]


def test_pitch_is_as_mir_eval_has_it_of_all_frames() -> None:
    rng = np.random.default_rng(5)
    clips = targets_of("pitch", rng)
    expert = expert_of("pitch", clips)
    outputs = noisy("pitch", expert, clips, rng)
    found = figures(measure_of(expert), outputs, clips)
    target, output = np.concatenate(clips), torch.cat(outputs)
    voiced = (target[:, 1] >= 0.5) & (target[:, 0] > 0)
    time_s = np.arange(len(target)) / 10
    hz = np.exp2(pitch_of(output).double().numpy())
    expected = mir_eval.melody.evaluate(
        time_s, np.where(voiced, np.exp2(target[:, 0]), 0.0), time_s, np.where(output[:, PITCH_BINS] >= 0, hz, -hz)
    )
    assert 0.2 < found["raw_pitch_accuracy"] < 0.98
    for name in PitchMeasure.names:
        key = name.replace("_", " ").title()
        assert found[name] == pytest.approx(expected[key], abs=1e-9), key
    errors = measure_of(expert).errors(stacked("pitch", expert, outputs, clips))  # type: ignore[attr-defined]
    off = 1200 * (np.log2(hz) - target[:, 0])[voiced]
    assert errors.sum() == voiced.sum()
    assert errors[48:50].sum() == ((off >= -25) & (off < 25)).sum()


def stacked(kind: str, expert: ExpertInfo, outputs: list[Tensor], clips: list[Array]) -> Any:
    measure = measure_of(expert)
    return measure.stack([measure.record(o, torch.tensor(t).float()) for o, t in zip(outputs, clips, strict=True)])


def test_classes_are_as_scikit_learn_has_them() -> None:
    rng = np.random.default_rng(7)
    clips = targets_of("probabilities", rng)
    expert = expert_of("probabilities", clips)
    outputs = noisy("probabilities", expert, clips, rng)
    measure = measure_of(expert)
    found = figures(measure, outputs, clips)
    there, logits = np.concatenate(clips) >= 0.5, torch.cat(outputs).double().numpy()
    steps = np.floor((logits + LARGEST_LOGIT) * BINS / (2 * LARGEST_LOGIT))
    for scores, tolerance in ((steps, 1e-9), (logits, 4e-3)):  # as they are kept; as they were
        precision = [average_precision_score(there[:, d], scores[:, d]) for d in range(3)]
        area = [roc_auc_score(there[:, d], scores[:, d]) for d in range(3)]
        assert found["map"] == pytest.approx(np.mean(precision), abs=tolerance)
        assert found["auc"] == pytest.approx(np.mean(area), abs=tolerance)
    parts = measure.parts(stacked("probabilities", expert, outputs, clips))
    assert [part.problem for part in parts] == ["", "", "", "in every frame", "in no frame"]
    assert [part.frames for part in parts] == there.sum(0).tolist()
    assert parts[1].figures["auc"] == pytest.approx(roc_auc_score(there[:, 1], steps[:, 1]))
    # Another threshold: more frames have the class.
    lower = measure_of(expert, present=0.2)
    area = roc_auc_score(np.concatenate(clips)[:, 0] >= 0.2, steps[:, 0])
    part = lower.parts(lower.stack([lower.record(o, torch.tensor(t)) for o, t in zip(outputs, clips, strict=True)]))[0]
    assert part.figures["auc"] == pytest.approx(area)


def test_choices_are_as_scikit_learn_has_them() -> None:
    rng = np.random.default_rng(8)
    clips = targets_of("distribution", rng)
    expert = expert_of("distribution", clips)
    outputs = noisy("distribution", expert, clips, rng)
    found = figures(measure_of(expert), outputs, clips)
    true, said = np.concatenate(clips).argmax(1), torch.cat(outputs).argmax(1).numpy()
    assert found["accuracy"] == pytest.approx(accuracy_score(true, said))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, said))
    parts = measure_of(expert).parts(stacked("distribution", expert, outputs, clips))
    assert [part.problem for part in parts] == [""] * 4 + ["never the likeliest"]


def test_channels_are_as_numpy_has_them() -> None:
    rng = np.random.default_rng(9)
    clips = targets_of("scalars", rng)
    expert = expert_of("scalars", clips)
    outputs = noisy("scalars", expert, clips, rng)
    target = np.concatenate(clips)[:, :4]
    said = torch.cat(outputs).double().numpy()[:, :4] * expert.std[:4] + expert.mean[:4]
    found = figures(measure_of(expert), outputs, clips)
    assert found["r2"] == pytest.approx(r2_score(target, said), abs=1e-6)
    ccc = [
        2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        for x, y in zip(said.T, target.T, strict=True)
    ]
    assert found["ccc"] == pytest.approx(np.mean(ccc), abs=1e-6)
    parts = measure_of(expert).parts(stacked("scalars", expert, outputs, clips))
    assert [part.problem for part in parts] == ["", "", "", "", "does not vary"]
    assert [part.figures["ccc"] for part in parts[:4]] == pytest.approx(ccc, abs=1e-6)


def test_representations_are_as_numpy_has_them() -> None:
    rng = np.random.default_rng(10)
    clips = targets_of("representation", rng)
    clips[1] = clips[1][:1]  # a clip of one frame
    expert = expert_of("representation", clips)
    outputs = noisy("representation", expert, clips, rng)
    found = figures(measure_of(expert), outputs, clips)
    mean, std = np.array(expert.mean[:4]), np.array(expert.std[:4])
    truth, said = [(c[:, :4] - mean) / std for c in clips], [o.double().numpy()[:, :4] for o in outputs]
    unit = [[v / np.linalg.norm(v, axis=1, keepdims=True) for v in values] for values in (said, truth)]
    cosines = [x @ y.T for x, y in zip(*unit, strict=True)]
    frames = sum(map(len, cosines))
    assert found["cosine"] == pytest.approx(sum(np.trace(c) for c in cosines) / frames, abs=1e-6)
    hits = sum((c.argmax(1) == np.arange(len(c))).sum() for c in cosines)
    assert 0.1 < hits / frames < 0.9
    assert found["retrieval"] == pytest.approx(hits / frames, abs=1e-9)
    assert found["retrieval_chance"] == pytest.approx(len(clips) / frames)
    weighted = r2_score(np.concatenate(truth), np.concatenate(said), multioutput="variance_weighted")
    assert found["r2"] == pytest.approx(weighted, abs=1e-6)


def constant_pitch(mean: Array, target: Array) -> dict[str, float]:
    voiced = (target[:, 1] >= 0.5) & (target[:, 0] > 0)
    off = 1200 * np.abs(target[voiced, 0] - mean[0] / mean[1])  # zeros where there is no pitch
    near = off < 50
    says_voiced = float(mean[1] >= 0.5)
    chroma = np.abs(off - 1200 * np.round(off / 1200)) < 50
    overall = near.sum() if says_voiced else (~voiced).sum()
    return {
        "raw_pitch_accuracy": near.mean(), "raw_chroma_accuracy": chroma.mean(), "voicing_recall": says_voiced,
        "voicing_false_alarm": says_voiced, "overall_accuracy": overall / len(target),
    }  # fmt: skip


FLOORS: dict[str, Callable[[Array, Array], dict[str, float]]] = {
    "pitch": constant_pitch,
    "probabilities": lambda mean, t: {"map": (t[:, :3] >= 0.5).mean(), "auc": 0.5},
    "distribution": lambda mean, t: {
        "accuracy": (t.argmax(1) == mean.argmax()).mean(), "balanced_accuracy": 1 / len(np.unique(t.argmax(1))),
    },
    "representation": lambda mean, t: {"cosine": 0.0, "r2": 0.0},
    "scalars": lambda mean, t: {"r2": r2_score(t[:, :4], np.tile(mean[:4], (len(t), 1))), "ccc": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_constant_floor_is_what_numpy_says_of_the_mean(kind: str) -> None:
    rng = np.random.default_rng(11)
    clips = targets_of(kind, rng)
    if kind == "pitch":
        for clip in clips:
            clip[:, 1] = clip[:, 1] >= 0.5
            clip[:, 0] *= clip[:, 1]
    expert = expert_of(kind, clips)
    measure = measure_of(expert)
    outputs = [measure.constant_outputs().expand(len(clip), -1) for clip in clips]
    found = figures(measure, outputs, clips)
    for name, value in FLOORS[kind](np.array(expert.mean), np.concatenate(clips)).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    if kind == "representation":
        assert found["retrieval"] == pytest.approx(found["retrieval_chance"])


def test_the_mean_pitch_is_of_voiced_frames_where_the_others_are_zeros() -> None:
    rng = np.random.default_rng(12)
    clips = targets_of("pitch", rng)
    for clip in clips:
        clip[:, 0], clip[:, 1] = rng.uniform(6.0, 10.0, len(clip)), rng.random(len(clip)) < 0.7
    expert, frames = expert_of("pitch", clips), np.concatenate(clips)
    assert mean_pitch(expert) == pytest.approx(frames[:, 0].mean())
    for clip in clips:
        clip[:, 0] *= clip[:, 1]
    assert mean_pitch(expert_of("pitch", clips)) == pytest.approx(frames[frames[:, 1] == 1, 0].mean())


def test_nothing_to_measure_is_no_figure() -> None:
    """A target that never varies, clips without any class, without a voiced frame."""
    for kind in KINDS:
        clips = [np.full((4, 5), 0.1) for _ in range(2)]
        expert = replace(expert_of(kind, clips), std=(0.0,) * 5)
        measure = measure_of(expert)
        found = figures(measure, [measure.constant_outputs().expand(4, -1)] * 2, clips)
        undefined = {"map", "auc", "r2", "ccc", "cosine", "raw_pitch_accuracy", "raw_chroma_accuracy", "voicing_recall"}
        assert not undefined & set(found), kind


def clip_of(i: int, size: int) -> ClipRecord:
    return ClipRecord((0, i), f"c{i}", "", i, 1, np.zeros(size))


def test_a_bounded_sample_of_clips_depends_on_neither_order_nor_ranks() -> None:
    rng = np.random.default_rng(13)
    clips = [clip_of(i, int(rng.integers(1, 40))) for i in range(300)]
    whole = KeptClips(budget=20_000)
    for clip in clips:
        whole.add(clip)
        assert whole.bytes <= 20_000
    assert whole.seen == 300
    assert 50 < len(whole.clips) < 250
    ranks = [KeptClips(budget=20_000) for _ in range(3)]
    for i, clip in enumerate(reversed(clips)):
        ranks[i % 3].add(clip)
    merged = ranks[0].merge(ranks[1:])
    assert [c.id for c in merged.clips] == [c.id for c in whole.clips]
    assert merged.seen == 300
    everything = KeptClips()
    for clip in clips:
        everything.add(clip)
    assert [c.id for c in everything.clips] == [c.id for c in clips]
