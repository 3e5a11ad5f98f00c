"""`coat inspect-batch`: what is inspected is what the student is given; the batch is the one training begins with."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from typer.testing import CliRunner

from coat.cli.main import app
from coat.trainer.data.data_sets import DataSets
from coat.trainer.planning.batch_picture import draw_batch
from coat.trainer.planning.batch_tracks import COLOURS
from coat.trainer.planning.batch_view import nth_batch, positions_by_role, view_batch
from coat.trainer.run_folder import RunFolder
from coat.trainer.students.registry import load_student
from coat.trainer.tiny_students.make import BUILDERS, make_tiny_student
from coat.trainer.training.run import TrainingRun
from tests.trainer.helpers import RATE, SPECS, toy_config, toy_sample

runner = CliRunner()


def test_it_is_the_batch_that_training_is_given(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = toy_config(student_dir, shards_dir, tmp_path / "run", data={"batch_size": 3})
    data, folder = DataSets.open(config.data), RunFolder(tmp_path / "run")
    run = TrainingRun(config, data, folder, Accelerator(cpu=True), lambda _: None, lambda _: None)
    batches = iter(run.loader)
    for number, trained in zip((1, 2, 3), batches, strict=False):
        inspected = nth_batch(config, number).batch
        assert inspected.ids == trained.ids
        assert inspected.inputs.keys() == trained.inputs.keys()
        for name, tensor in trained.inputs.items():
            assert torch.equal(inspected.inputs[name], tensor), name
        assert torch.equal(inspected.labels_BT, trained.labels_BT)
        assert torch.equal(inspected.think_BK, trained.think_BK)
        for name, target in trained.targets.items():
            assert torch.equal(inspected.targets[name].frames_BND, target.frames_BND)
            assert torch.equal(inspected.targets[name].mask_BN, target.mask_BN)
    batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", BUILDERS)
def test_what_is_said_is_in_the_tensors(name: str, shards_dir: Path, tmp_path: Path) -> None:
    student = make_tiny_student(tmp_path / "student", name=name)
    config = toy_config(student, shards_dir, tmp_path / "run", data={"batch_size": 6})
    inspected = nth_batch(config, 1)
    view, real = view_batch(inspected), load_student(str(student))
    assert view.counts["ce"] == sum(positions_by_role(s)["label"] for s in view.samples)
    for b, sample in enumerate(view.samples):
        number = int(sample.id[1:])  # helpers.toy_sample
        assert sample.seconds == pytest.approx(0.5 + 0.1 * number)
        assert sample.response == ("low" if number % 2 else "high") + "<|im_end|>"
        roles = [s.role for s in sample.segments if s.role != "padding"]
        assert roles[-1] == "label"
        assert roles.index("audio") < roles.index("block") < roles.index("label")
        assert [s.first for s in sample.segments[1:]] == [s.last + 1 for s in sample.segments[:-1]]
        audio = next(s for s in sample.segments if s.role == "audio")
        heard = real.audio_positions(round(sample.seconds * RATE))
        assert audio.text == f"{real.audio_token} x{heard}"
        assert sample.mel_frames == max(round(sample.seconds * 100), getattr(real, "chunk", 0))  # silence up to a chunk
        block = next(s for s in sample.segments if s.role == "block")
        assert block.text == "<|audio_think_begin|><|audio_think_0|> .. <|audio_think_3|><|audio_think_end|>"
        assert [t for t, _ in sample.think] == list(range(block.first + 1, block.last))
        assert [s for _, s in sample.think] == pytest.approx([(k + 0.5) / 4 * sample.seconds for k in range(4)])
        whole = inspected.student.tokenizer.decode(inspected.batch.inputs["input_ids"][b])
        assert "High or low?\nChoices: high, low" in whole
        for target in sample.targets:
            missing = number == 5 or (number == 3 and target.expert == "pitch")
            spec, made = SPECS[target.expert], toy_sample(number, seconds=0.5 + 0.1 * number)["targets"]
            frames = 0 if missing else len(made[target.expert])
            assert (target.frames, target.masked) == (frames, 0)
            assert target.last_s == (None if missing else pytest.approx(spec.start_s + (frames - 1) / spec.rate_hz))


def test_the_command_says_it_in_text_json_and_a_picture(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    png = tmp_path / "batch.png"
    flags = ["inspect-batch", "--student", str(student_dir), "--shards", str(shards_dir), "--set", "data.batch_size=3"]
    flags += ["--set", "thinking.count=4"]
    found = json.loads(runner.invoke(app, [*flags, "--json"]).stdout)
    text = runner.invoke(app, [*flags, "--png", str(png)])
    assert text.exit_code == 0, text.output
    for sample in found["samples"]:
        assert f"{sample['id']}, {sample['seconds']:.2f} s, {sample['positions']} positions" in text.stdout
        for segment in sample["segments"]:
            assert f"{segment['role']:<8} {segment['text']}".replace("\n", "\\n") in text.stdout
    assert "\x1b" not in text.stdout
    with Image.open(png) as image:
        assert image.format == "PNG"
    second = json.loads(runner.invoke(app, [*flags, "--json", "--batch", "2"]).stdout)
    assert not {s["id"] for s in second["samples"]} & {s["id"] for s in found["samples"]}
    wrong = runner.invoke(app, [*flags, "--set", 'heads.experts=["chroma"]'])
    assert "no targets of chroma" in str(wrong.exception)
    assert not Path("unused").exists()


def test_the_picture_shows_as_many_positions_of_a_role_as_there_are(
    student_dir: Path, shards_dir: Path, tmp_path: Path
) -> None:
    inspected = nth_batch(toy_config(student_dir, shards_dir, tmp_path / "run", data={"batch_size": 3}), 1)
    view = view_batch(inspected)
    pixels_HWC = np.array(Image.open(io.BytesIO(draw_batch(inspected, view))).convert("RGB")).astype(int)

    def of(role: str) -> np.ndarray:
        colour = [int(COLOURS[role][i : i + 2], 16) for i in (1, 3, 5)]
        return (np.abs(pixels_HWC - colour).max(axis=-1) <= 2).sum(axis=1)

    prompt_H, label_H, padding_H = of("prompt"), of("label"), of("padding")
    rows = np.flatnonzero(prompt_H > 0.2 * pixels_HWC.shape[1])  # of the map of positions
    seen = [(label_H[h] / prompt_H[h], padding_H[h] / prompt_H[h]) for h in (rows[3], rows[-4])]  # first, last sample
    for ratios, sample in zip(seen, (view.samples[0], view.samples[-1]), strict=True):
        counts = positions_by_role(sample)
        assert ratios[0] == pytest.approx(counts["label"] / counts["prompt"], rel=0.06)
        assert ratios[1] == pytest.approx(counts["padding"] / counts["prompt"], rel=0.06, abs=0.01)
