"""Students whose output embeddings are the input's: trained, resumed, asked, merged, and never saying a think token.

Of transformers' classes those of Omni tie them; the others have a `lm_head` of their own, whatever their config says.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from coat.trainer import load_run, train
from coat.trainer.export.export import export_run
from coat.trainer.generation import generate
from coat.trainer.generation.generate import Trained
from coat.trainer.model.build import build_model
from coat.trainer.model.thinking import is_tied
from coat.trainer.students.registry import load_student
from coat.trainer.tiny_students.make import BUILDERS, make_tiny_student
from tests.trainer.helpers import toy_config, toy_sample
from tests.trainer.training.test_ema import Stop, stop_at
from tests.trainer.training.test_loop import assert_equal_runs

ASKED = [((toy_sample(i, seconds=s)["audio"], 16000), "High or low?", ()) for i, s in enumerate((0.5, 1.2))]
TOKENS = 6
STRONG = {"lr": 0.05, "heads_lr": 0.05}


@pytest.fixture(scope="session", params=list(BUILDERS))
def tied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny student of each kind, whose config ties its embeddings."""
    if "omni" in request.param:
        pytest.importorskip("torchvision", reason="pip install .[omni]")
    return make_tiny_student(tmp_path_factory.mktemp("tied") / request.param, name=request.param, tied=True)


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_it_is_trained_resumed_asked_and_exported(tied: Path, shards_dir: Path, tmp_path: Path, full: bool) -> None:
    def config(name: str) -> Any:
        return toy_config(tied, shards_dir, tmp_path / name, steps=4, lora={"full": full, "rank": 2}, optim=STRONG)

    train(config("whole"))
    with pytest.raises(Stop):
        train(config("run"), on_report=lambda report: stop_at(3, report))
    train(config("run"))
    assert_equal_runs(tmp_path / "run", tmp_path / "whole")

    trained = load_run(tmp_path / "run")
    assert is_tied(trained.student.model) == ("omni" in tied.name)
    inputs = trained.inputs(ASKED)
    expected = trained.generate(inputs, TOKENS)
    alone = [trained.ask(a, p, max_new_tokens=TOKENS) for a, p, _ in ASKED]
    assert trained.ask_many(ASKED, max_new_tokens=TOKENS) == alone

    export_run(tmp_path / "run", tmp_path / "out", merged=True)
    model = getattr(transformers, trained.student.model_class).from_pretrained(tmp_path / "out")
    assert not is_tied(model)
    assert not json.loads((tmp_path / "out" / "config.json").read_bytes())["tie_word_embeddings"]
    with torch.inference_mode():
        said = model.eval().generate(**inputs, max_new_tokens=TOKENS)[:, inputs["input_ids"].shape[1] :]
        # In double, but for a mixture of experts, which torch does not multiply so: some CPUs' float32 sums, in another
        # order, differ by more than the weights do.
        dtype = torch.float32 if "qwen3" in tied.name else torch.float64
        inputs = {name: t.to(dtype) if t.is_floating_point() else t for name, t in inputs.items()}
        ours = trained.student.model.to(dtype)(**inputs).logits
        theirs = model.to(dtype)(**inputs).logits
    assert said.tolist() == expected.tolist()
    words = [i for i in range(ours.shape[-1]) if i not in trained.block.new_ids]
    torch.testing.assert_close(theirs[..., words], ours[..., words], atol=2e-4, rtol=1e-4)
    mean = theirs[..., words].mean(-1, keepdim=True)
    torch.testing.assert_close(
        theirs[..., trained.block.new_ids], mean.expand_as(theirs[..., trained.block.new_ids]), atol=1e-3, rtol=1e-3
    )


def likely_to_think(folder: Path, out: Path) -> Trained:
    """A student that would say a think token if it could: the row of one lies along what is said first."""
    config = toy_config(folder, out, out, lora={"full": True})
    model = build_model(config, {}).eval()
    trained = Trained(model.student, model.block, config)
    with torch.no_grad():
        state_D = model.student.hidden_states(trained.inputs(ASKED[:1]))[0, -1]
        row_D = model.student.model.get_output_embeddings().weight[model.block.end_id]
        row_D.copy_(100 * state_D / state_D.norm())
    return trained


def test_a_think_token_is_never_said_though_nobody_suppresses_it(
    tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = likely_to_think(tied, tmp_path)
    inputs = trained.inputs(ASKED[:1])
    with torch.inference_mode():
        free = trained.student.model.generate(**inputs, max_new_tokens=1, suppress_tokens=None)
    assert free[0, -1] == trained.block.end_id
    expected = trained.generate(inputs, TOKENS).tolist()
    made = generate.generation_config

    def forgetful(*args: Any) -> Any:
        config = made(*args)
        config.suppress_tokens = None
        return config

    monkeypatch.setattr(generate, "generation_config", forgetful)
    assert trained.generate(inputs, TOKENS).tolist() == expected
    assert not {*expected[0]} & {*trained.block.new_ids}


def test_an_adapter_to_a_tied_student_says_what_may_happen(shards_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="pip install .[omni]")
    for tied in (False, True):
        folder = tmp_path / str(tied)
        student = make_tiny_student(folder / "student", name="qwen2.5-omni", tied=tied)
        assert is_tied(load_student(str(student)).model) == tied
        train(toy_config(student, shards_dir, folder / "run", steps=2, lora={"full": False, "rank": 2}))
        export_run(folder / "run", folder / "out")
        card = (folder / "out" / "README.md").read_text()
        assert ("What serves it and does not know that may say them; export the run with `--merged`" in card) == tied
