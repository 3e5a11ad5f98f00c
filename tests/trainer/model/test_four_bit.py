"""Frozen weights in 4 bits: NF4 by its definition; trained, resumed bit for bit, asked, exported and merged."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors.torch import load_file

from coat.manifests import InputError
from coat.trainer import TrainConfig, export_run, load_run, train
from coat.trainer.export.merging import in_full_precision
from coat.trainer.model.build import build_model
from coat.trainer.planning.activations import Shape, storages
from coat.trainer.planning.plan import plan_training
from coat.trainer.students import four_bit
from coat.trainer.students.registry import load_student
from coat.trainer.tiny_students.make import make_tiny_student
from tests.trainer.export.served import SERVER
from tests.trainer.export.test_export import TOKENS
from tests.trainer.helpers import toy_config, toy_sample
from tests.trainer.training.processes import run_ranks, train_and_die
from tests.trainer.training.test_loop import assert_equal_runs

AUDIO = (toy_sample(1)["audio"], 16000)
# The values of a normal float of 4 bits (Dettmers et al., arXiv 2305.14314, appendix E).
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip

needs_it = pytest.mark.skipif(four_bit.find_spec("bitsandbytes") is None, reason="pip install .[4bit]")


@pytest.fixture(scope="module")
def student_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With rows of whole blocks, as published students have them."""
    return make_tiny_student(tmp_path_factory.mktemp("student") / "wide", hidden=four_bit.BLOCK)


def config_of(student: Path, shards: Path, out: Path, **parts: Any) -> TrainConfig:
    four = {"path": str(student), "quantize": "nf4"}
    lora = {"full": False, "rank": 2, "dropout": 0.1}
    return toy_config(student, shards, out, student=four, lora=lora, optim={"lr": 0.05, "heads_lr": 0.05}, **parts)


@needs_it
def test_layers_of_the_language_model_are_nf4_and_nothing_else_is(student_dir: Path) -> None:
    plain, four = load_student(str(student_dir)).model, load_student(str(student_dir), quantize="nf4").model
    weights, packed = dict(plain.named_parameters()), dict(four.named_parameters())
    modules = dict(four.named_modules())
    quantized = [name for name, p in packed.items() if not p.is_floating_point()]
    assert len(quantized) == 2 * 7
    assert all(four_bit.is_quantized(n, modules[n.removesuffix(".weight")]) for n in quantized)
    for name, p in packed.items():
        if name not in quantized:
            assert torch.equal(p, weights[name]), name
            continue
        found = four_bit.dequantized(modules[name.removesuffix(".weight")])
        blocks = weights[name].flatten().view(-1, four_bit.BLOCK)
        scale = blocks.abs().amax(1, keepdim=True)
        nearest = NF4[(blocks[..., None] / scale[..., None] - NF4).abs().argmin(-1)] * scale
        assert torch.allclose(found.flatten(), nearest.flatten(), atol=1e-6), name


@needs_it
def test_rows_that_are_no_whole_blocks_are_refused(tmp_path: Path) -> None:
    narrow = make_tiny_student(tmp_path / "narrow", hidden=32)
    with pytest.raises(InputError, match=r"layers\.0\.self_attn\.q_proj has 32 inputs; 4 bits need a multiple of 64"):
        load_student(str(narrow), quantize="nf4")


@needs_it
def test_it_resumes_bit_for_bit_is_asked_and_exported(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run_ranks(1, train_and_die, config_of(student_dir, shards_dir, tmp_path / "whole"), None, log) == [0]
    cut = config_of(student_dir, shards_dir, tmp_path / "cut")
    assert run_ranks(1, train_and_die, cut, (0, 4, "step"), log) == [-9]
    assert run_ranks(1, train_and_die, cut, None, log) == [0], log.read_text()
    assert "resumed at step 2 of 6" in log.read_text()
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")

    run = tmp_path / "whole"
    trained, plain = load_run(run), load_student(str(student_dir)).model.eval()
    soundfile.write(tmp_path / "clip.wav", AUDIO[0], 16000, subtype="FLOAT")
    inputs = trained.inputs([(str(tmp_path / "clip.wav"), "What is heard?", ())])
    tokens = trained.generate(inputs, TOKENS)[0].tolist()
    with torch.inference_mode():
        logits = trained.student.model(**inputs).logits
        assert torch.equal(in_full_precision(trained, trained.block).model.eval()(**inputs).logits, logits)
    assert export_run(run, tmp_path / "adapter").kind == "adapter"
    assert export_run(run, tmp_path / "merged", merged=True).kind == "model"
    model = type(plain).from_pretrained(tmp_path / "merged")
    assert all(p.dtype == torch.float32 for p in model.parameters())  # it needs no bitsandbytes
    with torch.inference_mode():
        assert (model(**inputs).logits - logits).abs().mean() < 1e-5
    asked = [json.dumps([str(tmp_path / name), str(student_dir)]) for name in ("adapter", "merged")]
    server = f"import sys; sys.path += {sys.path!r}\n{SERVER}"
    done = subprocess.run(
        [sys.executable, "-I", "-c", server], input="\n".join(asked), capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    served = [json.loads(line.removeprefix("TOKENS ")) for line in done.stdout.splitlines() if line[:7] == "TOKENS "]
    assert served == [tokens, tokens]


@needs_it
def test_plan_train_counts_its_bytes(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    config = config_of(student_dir, shards_dir, tmp_path, heads={"experts": []})
    real = build_model(config, {})
    bytes_ = sum(t.numel() * t.element_size() for t in storages(real))
    states = [p.quant_state for p in real.parameters() if hasattr(p, "quant_state")]  # type: ignore[attr-defined]
    bytes_ += sum(s.absmax.numel() * s.absmax.element_size() for s in states)
    planned = plan_training(config, Shape(2, 1.0, 20, 4), str(shards_dir))
    assert planned.weights == pytest.approx(bytes_, rel=0.002)
    assert planned.trainable == sum(p.numel() for p in real.trainable().values())


def test_where_it_cannot_be(
    student_dir: Path, shards_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"student\.quantize with lora\.full: weights in 4 bits cannot be trained"):
        toy_config(student_dir, shards_dir, tmp_path, student={"path": str(student_dir), "quantize": "nf4"})
    monkeypatch.setattr(four_bit, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"needs bitsandbytes: pip install 'coat-audio\[4bit\]'"):
        train(config_of(student_dir, shards_dir, tmp_path / "a"))


@needs_it
def test_packed_weights_are_not_unfrozen(student_dir: Path, tmp_path: Path) -> None:
    own = {"path": str(student_dir), "quantize": "nf4", "train": ["down_proj"]}
    lora = {"full": False, "targets": ["q_proj"]}
    with pytest.raises(InputError, match=r"down_proj\.weight is in 4 bits \(student\.quantize\), and stays frozen"):
        build_model(toy_config(student_dir, tmp_path, tmp_path, student=own, lora=lora), {})


@needs_it
def test_files_of_a_run_hold_no_packed_weights(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    train(config_of(student_dir, shards_dir, tmp_path / "run", stages=[{"name": "a", "steps": 1}]))
    for file in (tmp_path / "run").rglob("*.safetensors"):
        assert all(t.is_floating_point() for t in load_file(file).values()), file
