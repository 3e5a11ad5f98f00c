"""`coat fidelity`: its figures are those of clips asked one by one, and of both floors; its page needs no network."""

import json
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mir_eval.melody
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score
from typer.testing import CliRunner

from coat.cli.main import app
from coat.manifests import InputError, ShardIndex
from coat.trainer import train
from coat.trainer.data.collator import Collator
from coat.trainer.data.usable import UsableSample, usable_samples
from coat.trainer.fidelity.fidelity import FidelityOptions, measure_fidelity
from coat.trainer.fidelity.measures.classes import BINS, LARGEST_LOGIT
from coat.trainer.fidelity.page import fidelity_page
from coat.trainer.fidelity.results import FLOOR, MEAN, RUN, FidelityResults
from coat.trainer.generation.run_student import load_model
from coat.trainer.model.losses import PITCH_BINS, pitch_of
from coat.trainer.run_folder import RunFolder
from coat.trainer.tiny_students.make import BUILDERS, make_tiny_student
from tests.trainer.helpers import toy_config, toy_sample, write_shards
from tests.trainer.training.test_loop import RARELY

Said = dict[str, list[tuple[np.ndarray, np.ndarray]]]  # by expert: outputs and targets of each clip


@pytest.fixture(scope="module")
def held_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of two corpora: one has no pitch, one is too long, one has frames that are not finite."""
    samples = [toy_sample(i, 0.5 + 0.1 * (i - 100)) for i in range(100, 108)]
    for i, sample in enumerate(samples):
        sample["meta"]["extra"] = {"corpus": "<b>low</b>" if i % 2 else "high"}
    del samples[1]["targets"]["pitch"]
    samples[2] = toy_sample(102, 3.5)
    samples[3]["targets"]["mel"][1, 2] = np.nan
    samples[5]["meta"]["extra"]["turns"] = [["What is it?", "a tone"]]
    return write_shards(tmp_path_factory.mktemp("held"), samples)


@pytest.fixture(scope="module")
def runs(student_dir: Path, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and its floor."""
    root = tmp_path_factory.mktemp("runs")
    for name, detach in (("run", False), ("floor", True)):
        config = toy_config(student_dir, shards_dir, root / name, steps=4, heads={"detach": detach}, run=RARELY)
        train(config, log=lambda _: None)
    return root / "run", root / "floor"


def asked_one_by_one(run: Path, held: Path) -> tuple[Said, list[UsableSample]]:
    """No batch and no loss: states of one clip, and its heads at its frame times."""
    model, folder = load_model(run, "cpu"), RunFolder(run)
    names = list(model.heads.specs)
    collator = Collator(model.student, model.block, ShardIndex.read(str(held)), names)
    items = list(usable_samples(collator, folder.config))
    said: Said = {name: [] for name in names}
    for item in items:
        batch = collator.collate([item.encoded])
        with torch.no_grad():
            _, states_BTD = model.states(batch.inputs)
            states_1KD = states_BTD[:, batch.think_BK[0]]
            for name in names:
                if name not in item.sample.targets:
                    continue
                target = item.sample.targets[name].astype(np.float64)
                outputs = model.heads.predict(name, states_1KD, batch.think_mask_BK, batch.seconds_B, len(target))[0]
                known = np.isfinite(target).all(1)
                said[name].append((outputs.double().numpy()[known], target[known]))
    return said, items


def expected_figures(said: Said, index: ShardIndex) -> dict[str, dict[str, float]]:
    """By mir_eval, scikit-learn and numpy, over the frames of all clips."""
    outputs, targets = ({n: np.concatenate([c[i] for c in clips]) for n, clips in said.items()} for i in (0, 1))
    time_s = np.arange(len(targets["pitch"])) / 62.5
    hz = np.exp2(pitch_of(torch.tensor(outputs["pitch"])).numpy())
    voiced = targets["pitch"][:, 1] >= 0.5
    pitch = mir_eval.melody.evaluate(
        time_s, np.where(voiced, np.exp2(targets["pitch"][:, 0]), 0), time_s,
        np.where(outputs["pitch"][:, PITCH_BINS] >= 0, hz, -hz),
    )  # fmt: skip
    there = targets["events"] >= 0.5
    steps = np.floor((outputs["events"].clip(-16, 16) + LARGEST_LOGIT) * BINS / (2 * LARGEST_LOGIT))
    found: dict[str, dict[str, float]] = {"pitch": {k.lower().replace(" ", "_"): v for k, v in pitch.items()}}
    found["events"] = {
        "map": float(np.mean([average_precision_score(there[:, d], steps[:, d]) for d in range(5)])),
        "auc": float(np.mean([roc_auc_score(there[:, d], steps[:, d]) for d in range(5)])),
    }
    standard = {
        name: (targets[name] - index.experts[name].mean) / np.maximum(index.experts[name].std, 1e-9)
        for name in ("mel", "prosody")
    }
    found["prosody"] = {"r2": r2_score(standard["prosody"][:, :3], outputs["prosody"][:, :3])}
    x, y = outputs["mel"], standard["mel"]
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    found["mel"] = {"cosine": cosines.mean(), "r2": r2_score(y, x, multioutput="variance_weighted")}
    return found


def options(run: Path, *shards: Path, **changes: Any) -> FidelityOptions:
    return FidelityOptions(run=str(run), shards=tuple(map(str, shards)), **changes)


def values(found: FidelityResults, expert: str, subject: str = RUN) -> Mapping[str, float]:
    row = next(one for one in found.experts if one.expert == expert).figures[subject]
    return {name: figure.value for name, figure in row.items()}


def test_figures_are_those_of_clips_asked_one_by_one(runs: tuple[Path, Path], held_dir: Path) -> None:
    found = measure_fidelity(options(runs[0], held_dir, floor_run=str(runs[1])))
    assert found.clips == 7
    assert found.skipped == {"too_long": 1}
    for run, subject in zip(runs, (RUN, FLOOR), strict=True):
        said, _ = asked_one_by_one(run, held_dir)
        for expert, figures in expected_figures(said, RunFolder(run).index).items():
            measured = values(found, expert, subject)
            assert set(measured) >= set(figures) & {"raw_pitch_accuracy", "map", "r2", "cosine"}
            for name in set(figures) & set(measured):
                assert measured[name] == pytest.approx(figures[name], abs=2e-3), (expert, name, subject)
    by_name = {one.expert: one for one in found.experts}
    assert by_name["pitch"].clips == 6
    assert by_name["mel"].frames == sum(len(t) for _, t in asked_one_by_one(runs[0], held_dir)[0]["mel"])
    assert values(found, "events", MEAN)["auc"] == 0.5
    for one in found.experts:
        for name, figure in one.over_floor.items():
            apart = one.figures[RUN][name].value - one.figures[FLOOR][name].value
            assert figure.value == pytest.approx(apart, nan_ok=True)
    assert found.notes == ()


def test_corpora_are_figures_of_their_own_clips(runs: tuple[Path, Path], held_dir: Path, tmp_path: Path) -> None:
    found = measure_fidelity(options(runs[0], held_dir))
    said, items = asked_one_by_one(runs[0], held_dir)
    mine = [s for s, item in zip(said["events"], items, strict=True) if item.sample.extra.get("corpus") == "high"]
    events = next(one for one in found.experts if one.expert == "events")
    groups = {group.name: group for group in events.groups}
    assert {name: group.clips for name, group in groups.items()} == {"<b>low</b>": 4, "high": 3}
    outputs, targets = (np.concatenate([clip[i] for clip in mine]) for i in (0, 1))
    steps = np.floor((outputs + LARGEST_LOGIT) * BINS / (2 * LARGEST_LOGIT))
    areas = [roc_auc_score(targets[:, d] >= 0.5, steps[:, d]) for d in range(5) if len(set(targets[:, d] >= 0.5)) == 2]
    assert groups["high"].figures[RUN]["auc"].value == pytest.approx(np.mean(areas), abs=2e-3)
    by_task = measure_fidelity(options(runs[0], held_dir, by=("task",)))
    assert all(one.groups == () for one in by_task.experts)
    other_dir = write_shards(tmp_path / "other", [toy_sample(0)])
    two_sets = measure_fidelity(options(runs[0], held_dir, other_dir, by=("task",), samples=3))
    assert {(g.name, g.clips) for g in two_sets.experts[0].groups} == {(held_dir.name, 2), ("other", 1)}


def test_intervals_are_of_clips_drawn_anew(runs: tuple[Path, Path], held_dir: Path) -> None:
    """Frames of drawn clips put together and scored by numpy, with the very draws."""
    found = measure_fidelity(options(runs[0], held_dir))
    said, _ = asked_one_by_one(runs[0], held_dir)
    clips = said["prosody"]
    index = RunFolder(runs[0]).index.experts["prosody"]
    rng = np.random.default_rng(20260)
    drawn = []
    for picks in rng.integers(len(clips), size=(2000, len(clips)), dtype=np.int32):
        x, y = (np.concatenate([clips[i][side] for i in picks])[:, :3] for side in (0, 1))
        drawn.append(r2_score((y - index.mean[:3]) / np.array(index.std[:3]), x))
    interval = next(one for one in found.experts if one.expert == "prosody").figures[RUN]["r2"].interval
    assert interval == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=2e-3)


def test_a_bound_of_memory_keeps_a_sample_of_clips_and_says_so(runs: tuple[Path, Path], held_dir: Path) -> None:
    found = measure_fidelity(options(runs[0], held_dir, budget=400))
    prosody = next(one for one in found.experts if one.expert == "prosody")
    assert (prosody.clips, prosody.clips_seen) == (2, 7)  # 21 float64 a clip
    assert "figures are of a sample of 2 of 7 clips" in fidelity_page(found).decode()


@pytest.mark.parametrize("name", list(BUILDERS))
def test_it_takes_every_student_and_arrangement(name: str, tmp_path: Path, shards_dir: Path, held_dir: Path) -> None:
    if "omni" in name:
        pytest.importorskip("torchvision", reason="pip install .[omni]")
    student = make_tiny_student(tmp_path / "student", name=name)
    thinking = {
        "qwen2-audio": {"placement": "before_response", "layer": 0},
        "qwen2.5-omni": {"count": 0, "states": "audio"},
        "qwen3-omni": {"states": "both"},
    }.get(name, {"rate_hz": 4.0})
    lora = {"full": False, "rank": 2} if name == "audio-flamingo-3" else {"full": True}
    config = toy_config(student, shards_dir, tmp_path / "run", steps=2, thinking=thinking, lora=lora, run=RARELY)
    train(config, log=lambda _: None)
    found = measure_fidelity(options(tmp_path / "run", held_dir))
    names = {"pitch", "mel", "events", "prosody"}
    at_audio = {f"{expert}@audio" for expert in names} if thinking.get("states") == "both" else set()
    assert {one.expert for one in found.experts} == names | at_audio
    said, _ = asked_one_by_one(tmp_path / "run", held_dir)
    expected = expected_figures(said, RunFolder(tmp_path / "run").index)
    assert values(found, "mel")["cosine"] == pytest.approx(expected["mel"]["cosine"], abs=2e-3)


def test_what_cannot_be_measured_is_one_line(
    runs: tuple[Path, Path], student_dir: Path, shards_dir: Path, held_dir: Path, tmp_path: Path
) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "plain", steps=2, thinking={"count": 0}, run=RARELY)
    train(config, log=lambda _: None)
    for changes, message in (
        ({"run": str(tmp_path / "plain")}, "plain: has no heads, as it distils nothing; .* --set heads.detach=true"),
        ({"run": str(tmp_path / "none")}, "none: no config.toml; expected what `coat train --out` wrote"),
        ({"shards": ()}, "run: has no evaluation.shards; give --shards"),
        ({"shards": (str(tmp_path),)}, "no index.json"),
    ):
        with pytest.raises(InputError, match=message):
            measure_fidelity(replace(options(runs[0], held_dir), **changes))
    other = write_shards(tmp_path / "other", [toy_sample(0)])
    index = json.loads((other / "index.json").read_text())
    index["experts"]["mel"]["spec"]["layer"] = "7"
    (other / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"targets of mel are .*, those of .*; build both sets with the same expert"):
        measure_fidelity(options(runs[0], other))
    index["experts"] = {"mel2": index["experts"]["mel"]}
    (other / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"no targets of what .* distils .*it has mel2; build shards with"):
        measure_fidelity(options(runs[0], other))
    bare = toy_sample(0)
    bare["targets"] = {}
    with pytest.raises(InputError, match=r"no clip with a target that .* distils"):
        measure_fidelity(options(runs[0], write_shards(tmp_path / "bare", [bare])))


def test_a_floor_that_is_none_is_said(runs: tuple[Path, Path], held_dir: Path) -> None:
    found = measure_fidelity(options(runs[1], held_dir, floor_run=str(runs[0]), samples=2))
    assert found.notes == (
        f"{runs[0]} was trained with heads.detach = false: its student learnt from the experts, too",
    )


class Checked(HTMLParser):
    """Nothing of the page is loaded from elsewhere, and no name becomes markup."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            assert key not in ("src", "href") or str(value).startswith(("data:", "#")), value


def test_the_command(runs: tuple[Path, Path], held_dir: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["fidelity", "--run", str(runs[0]), "--floor-run", str(runs[1]), "--shards", str(held_dir)]
    shown = CliRunner().invoke(app, [*arguments, "--out", str(page)])
    assert shown.exit_code == 0, shown.output
    for text in ("raw pitch accuracy", "without distillation", "By corpus", "AUC", "retrieval"):
        assert text in shown.output
    assert "prosody: in no mean, does not vary: 3" in shown.output
    parsed = Checked()
    parsed.feed(page.read_text())
    assert parsed.tags.count("section") == 4
    assert parsed.tags.count("img") == 4 + 1 + 2 + 4  # measures, errors of pitch, classes and channels, corpora
    assert "b" not in parsed.tags
    found = CliRunner().invoke(app, [*arguments, "--json", "--step", "4"])
    data = json.loads(found.stdout)
    assert data["step"] == 4
    events = next(one for one in data["experts"] if one["expert"] == "events")
    assert events["figures"][MEAN]["auc"]["value"] == 0.5
    assert events["over_floor"]["auc"]["interval"][0] < events["over_floor"]["auc"]["interval"][1]
    assert [part["name"] for part in events["parts"][RUN]] == ["0", "1", "2", "3", "4"]
