"""`coat train --overfit-one-batch`: what can be learnt by heart is, what cannot is named; floors by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from coat.cli.main import app
from coat.manifests import ExpertInfo, RunError, TargetSpec
from coat.trainer.model.batch import Targets
from coat.trainer.model.losses import PITCH_LOW, PITCH_STEP, DistillLoss
from coat.trainer.planning.overfit import overfit, prediction, verdict
from tests.trainer.helpers import SPECS, toy_config, toy_sample, write_shards

SECONDS = 0.4


def smooth(i: int, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A sample whose targets change slowly: what a head of a few thousand weights can learn by heart."""
    sample = toy_sample(i, seconds=SECONDS)
    for name, frames_ND in sample["targets"].items():
        time_N1 = np.linspace(0, 2, len(frames_ND))[:, None]
        wave_ND = np.sin(time_N1 + np.arange(frames_ND.shape[1]) + 2 * i)
        values_ND = 0.5 + 0.4 * wave_ND if name == "events" else wave_ND
        if name == "pitch":
            values_ND = np.column_stack([7 + wave_ND[:, 0], np.full(len(wave_ND), i % 2), wave_ND[:, 2]])
        sample["targets"][name] = values_ND.astype(frames_ND.dtype)
    sample["meta"] |= changes or {}
    return sample


def of(student: Path, shards: Path, out: Path, steps: int, **parts: Any) -> Any:
    heads = {"dim": 32, "layers": 1, "heads": 2}
    optim = {"lr": 1e-2, "heads_lr": 1e-2, **parts.pop("optim", {})}
    return toy_config(student, shards, out, steps=steps, heads=heads, optim=optim, **parts)


def test_one_batch_is_learnt_by_heart_and_nothing_is_written(student_dir: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [smooth(i) for i in range(2)])
    lines: list[str] = []
    result = overfit(of(student_dir, shards, tmp_path / "run", 200), lines.append)
    assert "learnt 2 samples by heart" in verdict(result)
    assert {loss.name for loss in result.losses} == {"ce", *SPECS}
    assert all(loss.floor - 1e-4 <= loss.last <= loss.threshold < loss.first for loss in result.losses), result.losses
    assert lines[0].startswith("step 0: ce ")
    assert not (tmp_path / "run").exists()


def test_equal_inputs_with_other_answers_are_reported(student_dir: Path, tmp_path: Path) -> None:
    """The best that can be had: even odds for the letter that differs, certainty of the end: ln 2 / 2 a token."""
    same = smooth(0)
    samples = [{**same, "key": f"s{i}", "meta": {"prompt": "?", "response": letter}} for i, letter in enumerate("ab")]
    shards = write_shards(tmp_path / "shards", samples)
    flags = ["--student", str(student_dir), "--shards", str(shards), "--out", str(tmp_path / "run")]
    sets = ["thinking.count=4", "heads.dim=32", "heads.heads=2", "heads.layers=1", "lora.full=true", "optim.lr=1e-2"]
    sets += ["optim.heads_lr=1e-2", 'stages=[{name="a", steps=100}]', "data.batch_size=2", 'heads.experts=["prosody"]']
    overrides = [part for one in sets for part in ("--set", one)]
    done = CliRunner().invoke(app, ["train", *flags, "--overfit-one-batch", *overrides])
    assert isinstance(done.exception, RunError), done.output  # main: one line, exit code 1
    (line,) = str(done.exception).splitlines()
    assert "not learnt in 100 steps: ce 5." in line
    assert "-> 0.35 (near is 0.1)" in line.replace("0.347", "0.35").replace("0.348", "0.35").replace("0.349", "0.35")
    assert "equal inputs with other answers" in line
    assert "prosody" not in line  # which was learnt
    assert not (tmp_path / "run").exists()


def test_a_rate_that_is_too_low_is_reported(student_dir: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [smooth(i) for i in range(2)])
    result = overfit(of(student_dir, shards, tmp_path / "run", 40, optim={"lr": 1e-7, "heads_lr": 1e-7}))
    assert {loss.name for loss in result.losses if not loss.learnt} == {"ce", *SPECS}
    with pytest.raises(RunError, match=r"optim\.lr; look at the targets of .*heads_lr"):
        verdict(result)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


@pytest.mark.parametrize("kind", ["probabilities", "distribution", "pitch", "representation", "scalars"])
def test_floors_are_what_no_prediction_is_below(kind: str) -> None:
    rng = np.random.default_rng(5)
    values_BND = rng.uniform(0.05, 0.95, (2, 9, 4))
    if kind == "distribution":
        values_BND /= values_BND.sum(-1, keepdims=True)
    bin_BN, share_BN = rng.integers(5, 300, (2, 9)), rng.uniform(0.1, 0.9, (2, 9))
    if kind == "pitch":
        values_BND[..., 0] = PITCH_LOW + PITCH_STEP * (bin_BN + share_BN)
    spec = TargetSpec(
        expert="x", version=1, family="speech", kind=kind, dim=4, rate_hz=10.0, start_s=0.0,  # type: ignore[arg-type]
        sample_rate=16000, min_samples=1,
    )  # fmt: skip
    info = ExpertInfo(spec=spec, samples=2, frames=18, mean=(0.5,) * 4, std=(0.3,) * 4)
    mask_BN = torch.ones(2, 9, dtype=torch.bool)
    mask_BN[1, 6:] = False
    target, loss = Targets(torch.tensor(values_BND).float(), mask_BN), DistillLoss(info)
    mask = mask_BN.numpy()
    by_hand = 0.0
    if kind == "probabilities":
        by_hand = entropy(values_BND).mean(-1)[mask].sum()
    if kind == "pitch":
        voiced_BN = values_BND[..., 1] >= 0.5
        by_hand = (entropy(values_BND[..., 1]) + np.where(voiced_BN, entropy(share_BN), 0))[mask].sum()
    best = prediction(loss, target, average=False)
    floor = float(loss(best, target.frames_BND, mask_BN))
    assert floor == pytest.approx(by_hand, abs=0.02)
    mean = prediction(loss, target, average=True)
    assert float((mean[mask_BN] - mean[0, 0]).abs().max()) == 0  # the same for every frame
    above = float(loss(mean, target.frames_BND, mask_BN))
    assert above > floor + 0.05
    if kind in ("probabilities", "distribution"):  # of constants, the mean is the best there
        for seed in range(5):
            noise = torch.randn(mean.shape[-1], generator=torch.Generator().manual_seed(seed)) * 0.3
            assert float(loss(mean + noise, target.frames_BND, mask_BN)) > above
