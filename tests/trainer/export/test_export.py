"""An export is served without coat: a process that cannot import it gives the tokens of `coat generate`."""

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration
from transformers.utils.chat_template_utils import render_jinja_template

from coat.manifests import InputError, RunError
from coat.trainer import load_run, train
from coat.trainer.export.export import export_run
from coat.trainer.export.model_card import hub_id, public_name
from coat.trainer.export.template import with_block
from coat.trainer.generation.generate import Question
from coat.trainer.tiny_students.make import make_tiny_student
from tests.trainer.export.served import edited, served
from tests.trainer.helpers import SPECS, toy_config, toy_sample

AUDIO = (toy_sample(1)["audio"], 16000)
TOKENS = 12  # of an answer
FORMS: Any = [
    ("adapter", False, None),
    ("model", True, None),
    ("adapter", False, "transformers"),
    ("model", True, "transformers"),
]


def test_a_process_without_coat_gives_the_same_tokens(runs: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", AUDIO[0], 16000, subtype="FLOAT")
    expected, asked = [], []
    for (name, placement), run in runs.items():
        trained = load_run(run)
        inputs = trained.inputs([(str(tmp_path / "clip.wav"), "What is heard?", ())])
        tokens = trained.generate(inputs, TOKENS)[0].tolist()
        with trained.student.peft_model.disable_adapter():
            assert trained.generate(inputs, TOKENS)[0].tolist() != tokens  # else the adapter would show nothing
        for kind, merged, target in FORMS:
            out = tmp_path / f"{name}-{placement}-{merged}-{target}"
            made = export_run(run, out, merged=merged, target=target)
            assert (made.kind, made.positions) == (kind, 4)
            expected.append(tokens)
            asked.append((out, trained.config.student.path))
    assert len({tuple(tokens) for tokens in expected}) >= 4
    assert served(asked, tmp_path / "clip.wav") == expected


def test_what_is_trained_otherwise_is_served_too(shards_dir: Path, tmp_path: Path) -> None:
    """DoRA, ranks by pattern, and weights that are trained whole: by plain peft, and merged."""
    soundfile.write(tmp_path / "clip.wav", AUDIO[0], 16000, subtype="FLOAT")
    student = make_tiny_student(tmp_path / "student")
    lora = {"full": False, "rank": 2, "dora": True, "rslora": True, "ranks": {"up_proj": 4}}
    whole = {"path": str(student), "train": ["projector", r"audio_tower\.layers", "lm_head"]}
    config = toy_config(student, shards_dir, tmp_path / "run", steps=2, lora=lora, student=whole,
                        optim={"lr": 0.05, "heads_lr": 0.05}, run={"save_every": 100})  # fmt: skip
    train(config)
    trained = load_run(tmp_path / "run")
    inputs = trained.inputs([(str(tmp_path / "clip.wav"), "What is heard?", ())])
    tokens = trained.generate(inputs, TOKENS)[0].tolist()
    plain = Qwen2AudioForConditionalGeneration.from_pretrained(student)
    own = trained.student.model.get_submodule("model.multi_modal_projector").state_dict()
    assert not torch.equal(own["linear.weight"], plain.model.multi_modal_projector.linear.weight)  # it was trained
    for merged in (False, True):
        export_run(tmp_path / "run", tmp_path / f"out-{merged}", merged=merged)
    settings = json.loads((tmp_path / "out-False" / "adapter_config.json").read_bytes())
    assert "model.multi_modal_projector.linear" in settings["modules_to_save"]
    asked = [(tmp_path / f"out-{merged}", str(student)) for merged in (False, True)]
    assert served(asked, tmp_path / "clip.wav") == [tokens, tokens]


def test_the_template_is_right_for_every_form_of_chat(runs: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    """Turns, several audios, text alone: the ids that coat gives the student."""
    low = (toy_sample(2)["audio"], 16000)
    turns = (("What is it?", "a tone"), ("Is it loud?", "no"))
    asked = [Question(AUDIO, "Why?", turns=turns), Question(None, "Why?"), Question(None, "Why?", turns=turns)]
    for (name, placement), run in runs.items():
        trained, out = load_run(run), tmp_path / f"{name}-{placement}"
        export_run(run, out)
        processor: Any = AutoProcessor.from_pretrained(out)
        several = [Question([AUDIO, low], "Which?", turns=turns)] if trained.student.max_audios != 1 else []
        for question in asked + several:
            found = processor.apply_chat_template(
                chat(question), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            )["input_ids"]
            assert found.tolist() == trained.inputs([question])["input_ids"].tolist(), (name, placement, question.turns)
            assert torch.isin(found, trained.block.ids_K[0]).sum() == bool(question.audio)


def chat(question: Question) -> list[dict[str, Any]]:
    """As a server is given it: the audio is part of the first message."""
    audio: Any = question.audio
    heard = audio if isinstance(audio, list) else [audio] if audio else []
    prompts = [prompt for prompt, _ in question.turns] + [question.prompt]
    messages = [{"role": "user", "content": [{"type": "text", "text": prompt}]} for prompt in prompts]
    messages[0]["content"] = [{"type": "audio", "audio": samples} for samples, _ in heard] + messages[0]["content"]
    answers = [{"role": "assistant", "content": [{"type": "text", "text": answer}]} for _, answer in question.turns]
    return [m for pair in zip(messages, [*answers, None], strict=True) for m in pair if m]


def test_a_card_says_what_was_trained_and_nothing_of_the_machine(
    runs: dict[tuple[str, str], Path], tmp_path: Path, shards_dir: Path
) -> None:
    run = edited(
        runs["qwen2-audio", "after_audio"], tmp_path / "run", f'"{shards_dir}"', '"s3://name:password@bucket/shards"'
    )
    (run / "evaluation.jsonl").write_text('{"step": 4, "accuracy": 0.625, "ce": 1.5}\n')
    out = tmp_path / "out"
    out.mkdir()
    assert export_run(run, out, base="owner/model").base == "owner/model"
    card = ModelCard.load(out / "README.md")
    front = card.data.to_dict()
    assert (front["base_model"], front["library_name"]) == ("owner/model", "peft")
    assert 'BASE = "owner/model"' in card.text
    assert "10 samples, 0.00 hours of audio in 3 shards" in card.text
    assert "| accuracy | 0.625 |" in card.text
    assert f"| pitch | pitch | pitch | 62.5 | 3 | none | `{SPECS['pitch'].fingerprint}` |" in card.text
    assert "rank = 2" in card.text
    written = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file())
    assert json.loads((out / "adapter_config.json").read_bytes())["base_model_name_or_path"] == "owner/model"
    for secret in (b"password", b"bucket", str(tmp_path).encode(), str(shards_dir).encode(), b"students/qwen2-audio"):
        assert secret not in written, secret


def test_places_are_not_names() -> None:
    assert hub_id("owner/model") == "owner/model"
    assert not any(map(hub_id, ["/data/model", "./model", "a/b/c", "s3://x/y", "tests/trainer"]))
    local = ["/data/w.pt", "~/w.pt", "C:\\w.pt", "https://u:p@h/w", "a/b/c"]
    assert {public_name(p) for p in local} == {"(a local one)"}
    assert [public_name(p) for p in ("openai/whisper", "built-in")] == ["openai/whisper", "built-in"]


def test_a_whole_model_says_no_think_token_where_it_would(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    train(toy_config(student_dir, shards_dir, tmp_path / "run", steps=2))
    trained = load_run(tmp_path / "run")
    inputs = trained.inputs([(AUDIO, "What?", ())])
    weights = load_file(tmp_path / "run" / "student" / "model.safetensors")
    (head,) = [name for name in weights if name.endswith("lm_head.weight")]
    with torch.no_grad():  # make a think token by far the likeliest
        weights[head][trained.block.ids_K[1]] = 100 * trained.student.hidden_states(inputs)[0, -1]
    save_file(weights, tmp_path / "run" / "student" / "model.safetensors", {"format": "pt"})
    assert export_run(tmp_path / "run", tmp_path / "out").kind == "model"  # nothing to merge
    model: Any = Qwen2AudioForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert model.get_input_embeddings().num_embeddings == model.config.text_config.vocab_size
    with torch.inference_mode():
        said = model.generate(**inputs, max_new_tokens=3)[:, inputs["input_ids"].shape[1] :]
        free = model.generate(**inputs, max_new_tokens=3, suppress_tokens=None)[:, inputs["input_ids"].shape[1] :]
    assert said.tolist() == load_run(tmp_path / "run").generate(inputs, 3).tolist()
    assert free.tolist() == said.tolist()  # a server that does not know `suppress_tokens`


def test_a_block_that_follows_the_audio_needs_a_length(student_dir: Path, shards_dir: Path, tmp_path: Path) -> None:
    train(toy_config(student_dir, shards_dir, tmp_path / "run", steps=2, thinking={"rate_hz": 2.0}))
    with pytest.raises(InputError, match=r"rate_hz 2: .* give --positions N \(1 to 6\)"):
        export_run(tmp_path / "run", tmp_path / "out")
    assert export_run(tmp_path / "run", tmp_path / "out", positions=2).positions == 2
    content = [{"type": "audio", "audio": AUDIO[0]}, {"type": "text", "text": "What?"}]
    ids = AutoProcessor.from_pretrained(tmp_path / "out").apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    trained = load_run(tmp_path / "run")
    assert [ids[0]] == trained.inputs([(AUDIO, "What?", ())])["input_ids"].tolist()  # 1 s of audio


def test_what_cannot_be_exported_leaves_nothing(
    runs: dict[tuple[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs["qwen2-audio", "after_audio"]
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        export_run(run, full)
    with pytest.raises(InputError, match="expected owner/name"):
        export_run(run, tmp_path / "out", base="/data/model")
    with pytest.raises(InputError, match="this run has 4 think positions"):
        export_run(run, tmp_path / "out", positions=5)

    def no_space(*_: object) -> str:
        raise OSError(28, "No space left on device")

    (tmp_path / ".out.partial").mkdir()  # left by a kill
    monkeypatch.setattr("coat.trainer.export.export.model_card", no_space)
    with pytest.raises(RunError, match="No space left on device"):
        export_run(run, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}A{{ m.content }}<e>{% endfor %}",
        "\n  {% for m in messages %}\n  A{{ m.content }}<e>\n  {% endfor %}\n",
        "{%- for m in messages -%}\n A{{ m.content }} <e> \n{%- endfor -%}\n\n",
        "{% for m in messages %}A{{ m.content }}<e>{% endfor %}\n{% if add_generation_prompt %}\n  B\n{% endif %}\n\n",
    ],
)
@pytest.mark.parametrize("prompt", [True, False])
def test_nothing_else_of_a_template_changes(template: str, prompt: bool) -> None:
    def rendered(chat_template: str) -> str:
        chat = [{"role": "user", "content": "{{ x }} é"}, {"role": "user", "content": "y"}]
        return render_jinja_template([chat], chat_template=chat_template, add_generation_prompt=prompt)[0][0]

    before = rendered(template)
    head, end, tail = before.rpartition("<e>")
    assert rendered(with_block(template, "<e>", "[K]", "after_audio")) == f"{head}{end}[K]{tail}"
    assert rendered(with_block(template, "<none>", "[K]", "after_audio")) == before
    assert rendered(with_block(template, "<e>", "[K]", "before_response")) == before + ("[K]" if prompt else "")
    assert rendered(with_block(template, "<none>", "[K]", "before_response")) == before  # no audio, no block
