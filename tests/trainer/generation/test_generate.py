"""Generation: one prefill with the block in it, then one token a call; and a saved run is the run."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from coat.manifests import InputError, RunError, ShardIndex
from coat.trainer import load_run, train
from coat.trainer.generation.generate import Trained
from coat.trainer.model.build import build_model
from coat.trainer.model.experts import experts_of
from tests.trainer.helpers import toy_config, toy_sample, write_shards


@pytest.fixture(scope="module", params=[True, False], ids=["full", "lora"])
def run(
    request: pytest.FixtureRequest, student_dir: Path, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("run") / "a"
    train(toy_config(student_dir, shards_dir, out, lora={"full": request.param}))
    return out


@pytest.fixture
def trained(run: Path) -> Trained:
    return load_run(run)


AUDIO = (toy_sample(1)["audio"], 16000)


def test_the_block_is_in_the_prefill_and_nothing_is_added_to_decoding(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    trained.student.language_model.register_forward_hook(
        lambda _module, _args, kwargs, _out: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    monkeypatch.setattr(type(trained.student.chat), "stop_ids", trained.block.new_ids)  # never said: five are asked for
    trained.ask(AUDIO, "High or low?", max_new_tokens=5)
    prefix = trained.student.prefix(AUDIO[0], "High or low?")
    assert lengths == [len(prefix.ids) + 4 + 2, 1, 1, 1, 1]


def test_think_tokens_are_never_said(trained: Trained) -> None:
    inputs = trained.inputs([(AUDIO, "High or low?", ())])
    with torch.no_grad():  # make one of them by far the likeliest
        state_D = trained.student.hidden_states(inputs)[0, -1]
        trained.student.model.lm_head.weight[trained.block.ids_K[1]] = 100 * state_D
        free = trained.student.model.generate(**inputs, max_new_tokens=1, do_sample=False)
    assert trained.student.tokenizer.decode(free[0, -1:]) == "<|audio_think_1|>"
    ids: list[torch.Tensor] = []
    generate = trained.student.model.generate
    trained.student.model.generate = lambda **asked: ids.append(generate(**asked)) or ids[0]
    trained.ask(AUDIO, "High or low?", max_new_tokens=4)
    assert not set(ids[0][0, inputs["input_ids"].shape[1] :].tolist()) & set(trained.block.new_ids)


def test_answers_that_are_cut_are_marked(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """By themselves, and together with others."""
    stop = trained.student.chat.stop_ids[0]
    ids_BN = torch.tensor([[5, 6, stop, trained.student.tokenizer.pad_token_id], [5, 6, 7, 8], [5, 6, 7, stop]])
    assert [a.is_cut for a in trained.decode(ids_BN)] == [False, True, False]
    monkeypatch.setattr(type(trained.student.chat), "stop_ids", trained.block.new_ids)  # never said
    answer = trained.ask(AUDIO, "High or low?", max_new_tokens=3)
    assert (answer.is_cut, pickle.loads(pickle.dumps(answer)).is_cut) == (True, True)


def test_many_are_answered_as_each_alone(trained: Trained) -> None:
    audios = [(toy_sample(i, seconds=s)["audio"], 16000) for i, s in enumerate((0.5, 1.0, 2.9))]
    prompts = ["High or low?", "What?", "Is it a rather long question that is asked here?"]
    asked = [(a, p, ()) for a, p in zip(audios, prompts, strict=True)]
    alone = [trained.ask(a, p, max_new_tokens=6) for a, p, _ in asked]
    assert trained.ask_many(asked, max_new_tokens=6) == alone


def test_a_loaded_run_has_the_logits_of_the_trained_model(run: Path) -> None:
    from coat.trainer.model.saved_weights import load_weights

    trained = load_run(run)
    live = build_model(trained.config, experts_of(trained.config, ShardIndex.read(str(run))))
    load_weights(run / "checkpoints" / "step-00000006" / "model.safetensors", live.trainable())
    live.eval()
    inputs = trained.inputs([(AUDIO, "High or low?", ("high", "low"))])
    with torch.no_grad():
        assert torch.equal(trained.student.model(**inputs).logits, live.student.model(**inputs).logits)


def test_files_at_other_rates_are_heard(trained: Trained, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8000) / 5), 8000)
    assert isinstance(trained.ask(str(tmp_path / "a.wav"), "What?", max_new_tokens=3), str)
    with pytest.raises(InputError, match="no such file"):
        trained.ask(str(tmp_path / "b.wav"), "What?")
    soundfile.write(tmp_path / "long.wav", np.zeros(8000 * 4), 8000)
    with pytest.raises(InputError, match=r"long\.wav: 4\.00 s, but this qwen2_audio hears at most 3 s"):
        trained.ask(str(tmp_path / "long.wav"), "What?")
    soundfile.write(tmp_path / "short.wav", np.zeros(96), 8000)
    with pytest.raises(InputError, match=r"short\.wav: 0\.012 s gives no audio positions"):
        trained.ask(str(tmp_path / "short.wav"), "What?")


def test_runs_that_are_none_or_have_no_checkpoint_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.toml"):
        load_run(tmp_path)
    (tmp_path / "config.toml").write_bytes((run / "config.toml").read_bytes())
    with pytest.raises(InputError, match="no checkpoint in it yet; the same `coat train` command"):
        load_run(tmp_path)


def test_an_adapter_that_does_not_fit_is_refused(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    train(toy_config(student_dir, shards_dir, tmp_path / "a", steps=2, lora={"full": False}))
    file = tmp_path / "a" / "student" / "adapter_model.safetensors"
    weights = load_file(file)
    weights.pop(sorted(weights)[0])
    save_file(weights, file)
    with pytest.raises(RunError, match="does not fit the student"):
        load_run(tmp_path / "a")


def test_a_student_learns_to_tell_two_tones_apart(student_dir: Path, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "shards", [toy_sample(i, 0.5, targets={}) for i in range(4)])
    config = toy_config(
        student_dir, shards, tmp_path / "a", data={"batch_size": 4}, optim={"lr": 5e-3},
        stages=[{"name": "answer", "steps": 60}], run={"save_every": 1000},
    )  # fmt: skip
    train(config)
    trained = load_run(tmp_path / "a")
    for i in range(4):
        said = trained.ask((toy_sample(i, 0.5)["audio"], 16000), "High or low?", choices=("high", "low"))
        assert said == ("low" if i % 2 else "high")
