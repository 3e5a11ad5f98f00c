"""What the documents show is run as it stands: on a small quickstart, in a folder of its own."""

import json
import math
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.doc_blocks import pages, script_of
from tests.integration.helpers import ROOT, coat, coat_run, forked_python
from tests.pipeline.conftest import Corpus, make_corpus

__all__ = ["make_corpus"]


def manifests_left(folder: Path, said: str) -> None:
    assert len(list((folder / "listening" / "audio").glob("*.flac"))) == 60


def start_left(folder: Path, said: str) -> None:
    assert all("data:audio" in (folder / name).read_text() for name in ("look.html", "heard.html"))
    assert "adapter_model.safetensors" in said or "transformers" in said  # the card
    assert (folder / "exported" / "model.safetensors").exists()


def recordings_left(folder: Path, said: str) -> None:
    rows = [json.loads(line) for line in (folder / "questions.jsonl").read_text().splitlines()]
    assert [(row["prompt"], row["response"]) for row in rows] == [("Does the pitch rise or fall?", "rising")]
    index = json.loads((folder / "shards" / "index.json").read_text())
    assert list(index["experts"]) == ["pitch", "vad"]
    assert (folder / "shards" / "sidecars" / "mel" / "index.json").exists()
    assert len(list((folder / "look").glob("0*.html"))) == 2


def research_left(folder: Path, said: str) -> None:
    assert (folder / "batch.png").read_bytes()[:4] == b"\x89PNG"
    assert {"adapter_model.safetensors", "chat_template.jinja"} <= {p.name for p in (folder / "exported").iterdir()}
    assert {"model.safetensors", "chat_template.jinja"} <= {p.name for p in (folder / "merged").iterdir()}
    assert re.search(r"manifest, accuracy \(strict\): asked-second [\d.]+ against evaluation [\d.]+", said)
    page = (folder / "report.html").read_text()
    assert page.count("data:audio/ogg;base64,") == 8
    assert "asked-second" in page
    assert all((folder / f"{name}.html").exists() for name in ("heard", "fidelity", "probes", "intervene"))


def operation_left(folder: Path, said: str) -> None:
    statuses = [json.loads(part) for part in re.findall(r"^\[$.*?^\]$", said, flags=re.DOTALL | re.MULTILINE)]
    assert statuses[-1][0]["expert"] == "pitch"
    assert statuses[-1][0]["ok"] == 42
    assert json.loads((folder / "targets" / "vad").glob("*/spec.json").__next__().read_text())["expert"] == "vad"


def benchmark_left(folder: Path, said: str) -> None:
    results = json.loads((folder / "asked-contours" / "results.json").read_text())
    assert set(results["benchmarks"]["Contours"]["scores"]["official"]) == {"accuracy"}
    assert "contours" in (folder / "contours.md").read_text().lower()


# The pages whose blocks are run, and what they must leave or say.
RUN_WITH_THEIR_PAGE: dict[str, Callable[[Path, str], None]] = {
    "docs/start.md": start_left,
    "docs/guides/data-engineer.md": recordings_left,
    "docs/guides/researcher.md": research_left,
    "docs/guides/operator.md": operation_left,
    "docs/guides/add-a-benchmark.md": benchmark_left,
    "docs/manifests.md": manifests_left,
}


@pytest.fixture(scope="module")
def quickstarted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs/quickstart`: the true command, with few clips and steps."""
    root = tmp_path_factory.mktemp("docs")
    small = ["--clips", 42, "--set", "stages.0.steps=2", "--set", "stages.1.steps=3", "--set", "run.log_every=1"]
    done = coat_run("quickstart", "--out", "runs/quickstart", *small, "--json", cwd=root)
    result = json.loads(done.stdout)
    assert set(result["experts"]) == {"pitch", "vad", "mel", "yamnet", "prosody"}
    assert all(e["ok"] == 42 for e in result["experts"].values())
    assert result["heldout"]["all"]["rows"] == 8
    assert result["train"]["steps"] == 5
    return root


def blocks(document: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)


def run_python(code: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [*forked_python(), "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_from_python(quickstarted: Path) -> None:
    (code,) = blocks("README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 11
    mean, answer = run_python(code, quickstarted).rstrip("\n").rsplit("\n", 1)
    assert all(math.isfinite(float(value)) for value in mean.strip("[]").split())
    assert answer.startswith("Does the pitch rise or fall?")


def test_formats_are_read_without_coat(quickstarted: Path) -> None:
    code = blocks("docs/formats.md")
    assert len(code) == 2
    assert all("import coat" not in block and "from coat" not in block for block in code)
    assert run_python(code[0], quickstarted)
    assert "16000" in run_python(code[1], quickstarted)


def test_a_page_from_python(quickstarted: Path) -> None:
    (code,) = blocks("docs/inspect.md")
    printed = run_python(code + "print(len(html))", quickstarted).split()
    assert printed[0] == "mel"
    assert int(printed[-1]) > 50_000


def test_what_the_student_of_the_quickstart_heard(quickstarted: Path) -> None:
    """The command of docs/analysis.md, as it stands."""
    (line,) = [block for block in blocks("docs/analysis.md", "sh") if "coat listen --run runs/quickstart" in block]
    done = subprocess.run(
        ["bash", "-c", 'set -e\ncoat() { $PYTHON -m coat "$@"; }\n' + line],
        cwd=quickstarted,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": shlex.join(forked_python())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = [path.read_text() for path in sorted((quickstarted / "heard").glob("0*.html"))]
    assert len(pages) == 2
    assert all("cents off (median)" in page or "nothing voiced" in page for page in pages)
    assert all("greedy, as `coat generate` answers" in page for page in pages)


def test_statistics_are_read_with_and_without_coat(quickstarted: Path) -> None:
    alone, ours = blocks("docs/statistics.md")
    assert "from coat" not in alone
    assert run_python(alone, quickstarted)
    assert run_python(ours, quickstarted)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_WITH_THEIR_PAGE)
def test_a_page_runs_from_its_first_block_to_its_last(quickstarted: Path, tmp_path: Path, page: str) -> None:
    """In the shell, as it stands, in a folder of its own with what the quickstart left."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(quickstarted / "runs" / "quickstart")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        ["bash", "-c", script_of(page)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": shlex.join(forked_python()), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    assert "Traceback" not in done.stderr
    RUN_WITH_THEIR_PAGE[page](tmp_path, done.stdout)


def test_a_quickstart_goes_on_and_does_not_mix(quickstarted: Path) -> None:
    small = ["--clips", 42, "--set", "stages.0.steps=2", "--set", "stages.1.steps=3", "--set", "run.log_every=1"]
    done = coat_run("quickstart", "--out", "runs/quickstart", *small, cwd=quickstarted)
    assert done.stderr.count(": done already") == 7
    assert "held-out accuracy" in done.stdout
    wrong = coat_run("quickstart", "--out", "runs/quickstart", *small, "--clips", 43, cwd=quickstarted, status=2)
    assert "manifests.corpus: again, because clips changed from 42 to 43" in wrong.stderr
    assert "give another --out" in wrong.stderr.lower()


def test_an_expert_of_ones_own(make_corpus: Corpus, tmp_path: Path) -> None:
    expert, test = blocks("docs/guides/add-an-expert.md")
    assert len(expert.splitlines()) < 60
    (tmp_path / "my_experts.py").write_text(expert)
    (tmp_path / "test_loudness.py").write_text(test)
    manifest = make_corpus(5)
    where = ["--manifest", manifest, "--store", "targets"]
    assert "loudness: holds" in coat("experts", "--check", "my_experts.py:Loudness", cwd=tmp_path).stdout
    coat("extract", "--expert", "my_experts.py:Loudness", *where, cwd=tmp_path)
    (found,) = json.loads(coat("status", "targets", "--json", cwd=tmp_path).stdout)
    assert (found["expert"], found["ok"]) == ("loudness", 5)
    done = subprocess.run(
        [*forked_python(), "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_loudness.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_a_student_of_ones_own_is_a_whole_class() -> None:
    from coat.trainer.students.base import Student  # torch

    (code,) = blocks("docs/guides/add-a-student.md")
    defined: dict[str, Any] = {}
    exec(compile(code, "my_audio.py", "exec"), defined)
    student = defined["MyAudio"]
    assert student.__abstractmethods__ == frozenset()
    declared = {n for n in Student.__annotations__ if not hasattr(Student, n)}
    assert declared <= set(vars(student)), "what a subclass must state"


NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


@pytest.mark.slow
def test_the_notebooks_run_one_after_the_other(quickstarted: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(quickstarted / "runs" / "quickstart")
    said = {}
    for name in (
        "extract_and_look",
        "train_and_listen",
        "evaluate_and_compare",
    ):  # the last takes the run of the second
        code = (ROOT / "docs" / "notebooks" / f"{name}.py").read_text()
        said[name] = run_python(code, tmp_path, COAT_NOTEBOOK_STEPS="2")
    (cents,) = re.findall(r"off by (\d+) cents", said["extract_and_look"])
    assert int(cents) < 20  # a fifth of a semitone
    assert "finished: True at step 4" in said["train_and_listen"]
    assert re.search(r"fewer steps [\d.]+ against quickstart [\d.]+", said["evaluate_and_compare"])
    made = {
        str(p.relative_to(tmp_path / "runs" / "notebooks")) for p in (tmp_path / "runs" / "notebooks").rglob("*.png")
    }
    assert made == {"extract/extract_and_look.png", "train/losses.png", "train/heard.png", "evaluate/scores.png"}
    assert {p.stem for p in NOTEBOOKS} == {"extract_and_look", "train_and_listen", "evaluate_and_compare"}


HISTORY = {"docs/log.md"}  # tells of files as they were
NAMED_FILE = re.compile(
    r"(?<![\w./-])((?:manifests|extractors|pipeline|trainer|coat|tests|benchmarks|deploy|configs|docs)/[\w./-]*\w/?)(?![\w*<{-])"
)


@pytest.mark.parametrize("page", sorted({*pages()} - HISTORY))
def test_files_that_a_page_names_exist(page: str) -> None:
    named = NAMED_FILE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "docs" / name).exists()] == []
