"""An export is served without coat: a process that cannot import it gives the tokens of `coat generate`."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
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
from coat.trainer.generation.export import export_run, with_block
from coat.trainer.generation.generate import Question
from coat.trainer.generation.model_card import hub_id, public_name
from coat.trainer.tiny_students.make import BUILDERS, make_tiny_student
from tests.trainer.helpers import SPECS, toy_config, toy_sample

AUDIO = (toy_sample(1)["audio"], 16000)
TOKENS = 12  # of an answer
# As Qwen/Qwen2-Audio-7B-Instruct has it: answers are greedy all the same, and the penalty stays.
SAMPLING = {
    "do_sample": True,
    "repetition_penalty": 1.1,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.5,
    "chat_format": "x",
}

# Runs the code of each card as it stands, but for names of folders and TOKENS, in a process that has no coat.
SERVER = """
import json, re, sys, warnings
from pathlib import Path

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "coat":
            raise ModuleNotFoundError(f"{name} is refused")

sys.meta_path.insert(0, Refuse())
try:
    import coat
except ModuleNotFoundError:
    pass
else:
    sys.exit("coat can be imported")
warnings.simplefilter("ignore")
for line in sys.stdin:
    folder, base = json.loads(line)
    (code,) = re.findall("```python\\n(.*?)```", (Path(folder) / "README.md").read_text(), re.DOTALL)
    names = {}
    code = code.replace('HERE = "."', f"HERE = {folder!r}").replace("path/to/the/base/model", base)
    exec(code.replace("max_new_tokens=64", "max_new_tokens=12"), names)
    new = names["ids"][0, names["inputs"]["input_ids"].shape[1]:].tolist()
    print("TOKENS", json.dumps(new))
"""


@pytest.fixture(autouse=True)
def one_thread(two_threads: None) -> None:
    """Matrices are so small that a second thread is only waited for."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def runs(shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """LoRA runs by student and placement (of the same weights), at a rate that makes the adapter matter."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name in BUILDERS:
        if "omni" in name and find_spec("torchvision") is None:
            continue  # pip install .[omni]
        student = make_tiny_student(folder / "students" / name, name=name)
        generation = student / "generation_config.json"
        generation.write_text(json.dumps({**json.loads(generation.read_bytes()), **SAMPLING}))
        config = toy_config(
            student, shards_dir, folder / name, steps=4, lora={"full": False, "rank": 2},
            optim={"lr": 0.05, "heads_lr": 0.05}, run={"save_every": 100},
        )  # fmt: skip
        train(config)
        found[name, "after_audio"] = folder / name
        found[name, "before_response"] = edited(folder / name, folder / f"{name}-2", "after_audio", "before_response")
    return found


def edited(run: Path, copy: Path, old: str, new: str) -> Path:
    shutil.copytree(run, copy)
    text = (copy / "config.toml").read_text()
    assert old in text
    (copy / "config.toml").write_text(text.replace(old, new))
    return copy


def test_a_process_without_coat_gives_the_same_tokens(runs: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "clip.wav", AUDIO[0], 16000, subtype="FLOAT")
    expected, asked = [], []
    for (name, placement), run in runs.items():
        trained = load_run(run)
        inputs = trained.inputs([(str(tmp_path / "clip.wav"), "What is heard?", ())])
        tokens = trained.generate(inputs, TOKENS)[0].tolist()
        with trained.student.peft_model.disable_adapter():
            assert trained.generate(inputs, TOKENS)[0].tolist() != tokens  # else the adapter would show nothing
        for merged in (False, True):
            out = tmp_path / f"{name}-{placement}-{merged}"
            made = export_run(run, out, merged=merged)
            assert (made.kind, made.positions) == ("model" if merged else "adapter", 4)
            expected.append(tokens)
            asked.append(json.dumps([str(out), trained.config.student.path]))
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVER],
        input="\n".join(asked),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    served = [json.loads(line.removeprefix("TOKENS ")) for line in done.stdout.splitlines() if line[:7] == "TOKENS "]
    assert len({tuple(tokens) for tokens in expected}) >= 4
    assert served == expected


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
    asked = [json.dumps([str(tmp_path / f"out-{merged}"), str(student)]) for merged in (False, True)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVER], input="\n".join(asked), capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    served = [json.loads(line.removeprefix("TOKENS ")) for line in done.stdout.splitlines() if line[:7] == "TOKENS "]
    assert served == [tokens, tokens]


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
    monkeypatch.setattr("coat.trainer.generation.export.model_card", no_space)
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
