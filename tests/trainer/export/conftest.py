"""Runs of every student, for all tests of exports."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from coat.trainer import train
from coat.trainer.tiny_students.make import BUILDERS, make_tiny_student
from tests.trainer.export.served import edited
from tests.trainer.helpers import toy_config

# As Qwen/Qwen2-Audio-7B-Instruct has it: answers are greedy all the same, and the penalty stays.
SAMPLING = {
    "do_sample": True,
    "repetition_penalty": 1.1,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.5,
    "chat_format": "x",
}


@pytest.fixture(scope="package")
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
