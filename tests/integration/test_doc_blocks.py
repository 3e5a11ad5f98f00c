"""Every block of the documents: its commands exist, its options parse, and it is run by a test or says why not."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from coat.cli.main import app
from coat.recipe.reading import read_recipe
from coat.trainer.config.train_config import TrainConfig
from docs.making import cli_reference
from tests.integration import test_docs
from tests.integration.doc_blocks import FENCE, LANGUAGES, SHELL, Block, blocks_of, commands, make_targets, pages
from tests.integration.helpers import ROOT, parse_coat

PROGRAMS = {  # that documents call beside ours
    "accelerate", "aws", "cat", "coat", "curl", "docker", "echo", "export", "git", "head", "hf", "kubectl", "ls",
    "make", "pip", "printf", "pytest", "python", "ray", "sbatch", "source", "ssh", "tail", "tar", "tensorboard",
    "torchrun", "uv", "vllm",
}  # fmt: skip
ALL = [block for page in pages() for block in blocks_of(page)]
CODE = [block for block in ALL if block.is_code]
SHELLS = [block for block in ALL if block.language in SHELL]


def test_blocks_are_found() -> None:
    assert len(CODE) > 70
    assert {block.page for block in CODE} >= {"README.md", "docs/start.md", "docs/guides/researcher.md"}


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES, "a language that no test knows"
    if not block.language:
        assert not re.search(r"^(coat|make|python) ", block.text, flags=re.MULTILINE), (
            "commands in a block without a language"
        )


@pytest.mark.parametrize("block", CODE, ids=str)
def test_code_is_run_or_says_why_not(block: Block) -> None:
    if block.mark.startswith("run by "):
        assert hasattr(test_docs, block.mark.removeprefix("run by "))
    elif block.mark.startswith("not run: "):
        assert len(block.mark) > len("not run: ") + 8, "a reason, in words"
    else:
        assert block.page in test_docs.RUN_WITH_THEIR_PAGE


@pytest.mark.parametrize("block", SHELLS, ids=str)
def test_commands_exist_and_their_options_parse(block: Block) -> None:
    for words in commands(block):
        module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
        if words[0] == "coat" or module == "coat":
            parse_coat(words[words.index("coat") + 1 :])
        elif words[0] == "make":
            targets = [w for w in words[1:] if "=" not in w and not w.startswith("-")]
            assert set(targets) <= make_targets(), words
        elif module.startswith("benchmarks"):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), words
        elif module == "pytest" or words[0] == "pytest":
            named = [w.partition("::")[0] for w in words if w.startswith("tests/")]
            assert [w for w in named if not (ROOT / w).exists()] == [], words
        else:
            assert words[0].rpartition("/")[2] in PROGRAMS, words


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "python"], ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [b for b in ALL if b.language in ("toml", "json")], ids=str)
def test_settings_are_settings(block: Block, tmp_path: Path) -> None:
    if block.language == "json":
        json.loads(block.text)
        return
    found = tomllib.loads(block.text)
    if "project" in found:  # of a pyproject.toml
        return
    if "manifests" in found:
        (tmp_path / "recipe.toml").write_text(block.text)
        assert read_recipe(str(tmp_path / "recipe.toml")).tables.keys() == found.keys() - {"out"}
        return
    data = {} if "sets" in found.get("data", {}) else {"shards": "shards"}
    student = {"path": "student", **found.pop("student", {})}
    whole = {**found, "student": student, "data": {**data, **found.get("data", {})}, "run": {"out": "run"}}
    TrainConfig.from_dict(whole, str(block))


def test_commands_named_in_a_sentence_exist() -> None:
    tree: Any = typer.main.get_command(app)
    wrong = []
    for page in pages():
        for name, sub in re.findall(
            r"`coat ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", (ROOT / page).read_text(encoding="utf-8")
        ):
            command = tree.commands.get(name)
            inner = getattr(command, "commands", None)
            if command is None or (inner is not None and sub and sub not in inner):
                wrong.append(f"{page}: coat {name} {sub}")
    assert wrong == []


FOREIGN = {  # options of SLURM, Ray, accelerate and coat's own --help
    "--account", "--dashboard-host", "--fsdp_offload_params", "--fsdp_reshard_after_forward", "--gpus-per-node",
    "--help", "--metrics-export-port", "--num_processes", "--partition", "--requeue", "--runtime-env-json",
    "--use_fsdp",
}  # fmt: skip


def test_options_named_in_a_sentence_exist() -> None:
    commands = {name: leaf for group in cli_reference.panels().values() for name, leaf in group.items()}
    leaves = [leaf for name, command in commands.items() for _, leaf in cli_reference.leaves(name, command)]
    known = {o for leaf in leaves for p in leaf.params for o in (*p.opts, *p.secondary_opts)} | FOREIGN
    wrong = []
    for page in set(pages()) - {"docs/log.md"}:  # which tells of commands as they were
        text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
        for span in re.findall(r"`((?:--|coat )[^`\n]+)`", text):
            wrong += [f"{page}: {span}" for o in re.findall(r"(?<![\w-])--[a-z][\w-]+", span) if o not in known]
    assert wrong == []
