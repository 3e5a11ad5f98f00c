"""An export is served without coat: a process that cannot import it gives the tokens of `coat generate`."""

import json
import shutil
import subprocess
import sys
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
from coat.trainer.export import export, with_block
from coat.trainer.students.tiny import BUILDERS, make_tiny_student
from tests.trainer.helpers import SPECS, toy_config, toy_sample

PLACEMENTS = ("after_audio", "before_response")
AUDIO = (toy_sample(1)["audio"], 16000)
TOKENS = 64  # that the card's code asks for

# Runs the code of each card as it stands, but for the names of folders, in a process that has no coat.
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
    exec(code.replace('HERE = "."', f"HERE = {folder!r}").replace("path/to/the/base/model", base), names)
    new = names["ids"][0, names["inputs"]["input_ids"].shape[1]:].tolist()
    print("TOKENS", json.dumps(new))
"""


@pytest.fixture(scope="module")
def runs(shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """LoRA runs by student and placement (of the same weights), at a rate that makes the adapter matter."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name in BUILDERS:
        student = make_tiny_student(folder / "students" / name, name=name)
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
        with trained.student.adapted.disable_adapter():
            assert trained.generate(inputs, TOKENS)[0].tolist() != tokens  # else the adapter would show nothing
        for merged in (False, True):
            out = tmp_path / f"{name}-{placement}-{merged}"
            made = export(run, out, merged=merged)
            assert (made.kind, made.positions) == ("model" if merged else "adapter", 4)
            expected.append(tokens)
            asked.append(json.dumps([str(out), trained.config.student.path]))
    done = subprocess.run(
        [sys.executable, "-I", "-c", SERVER], input="\n".join(asked), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    served = [json.loads(line.removeprefix("TOKENS ")) for line in done.stdout.splitlines() if line[:7] == "TOKENS "]
    assert len({tuple(tokens) for tokens in expected}) >= 4
    assert served == expected
