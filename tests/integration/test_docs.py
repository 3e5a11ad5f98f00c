"""What the documents show is run as it stands: on a small quickstart, in a folder of its own."""

import json
import math
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.integration.helpers import ROOT, coat, coat_run, forked_python
from tests.pipeline.conftest import Corpus, make_corpus

__all__ = ["make_corpus"]


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


def run_python(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [*forked_python(), "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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
    (line,) = [block for block in blocks("docs/analysis.md", "sh") if "coat listen" in block]
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


def test_from_shards_to_an_exported_model(quickstarted: Path) -> None:
    """The rehearsal of docs/train.md, in the shell, as it stands."""
    (lines,) = [block for block in blocks("docs/train.md", "sh") if "STUDENT=" in block]
    script = 'set -e\ncoat() { $PYTHON -m coat "$@"; }\n' + lines
    (quickstarted / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=quickstarted,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": shlex.join(forked_python())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (quickstarted / "batch.png").read_bytes()[:4] == b"\x89PNG"
    assert {"adapter_model.safetensors", "chat_template.jinja"} <= {
        p.name for p in (quickstarted / "exported").iterdir()
    }
    assert {"model.safetensors", "chat_template.jinja"} <= {p.name for p in (quickstarted / "merged").iterdir()}


def test_a_second_run_is_compared(quickstarted: Path) -> None:
    """The rehearsal of docs/evaluate.md."""
    (lines,) = [block for block in blocks("docs/evaluate.md", "sh") if "coat compare" in block]
    script = 'set -e\ncoat() { $PYTHON -m coat "$@"; }\n' + lines
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=quickstarted,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": shlex.join(forked_python())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"manifest, accuracy \(strict\): asked-second [\d.]+ against evaluation [\d.]+", done.stdout)
    page = (quickstarted / "report.html").read_text()
    assert page.count("data:audio/ogg;base64,") == 8
    assert "asked-second" in page


def test_a_quickstart_goes_on_and_does_not_mix(quickstarted: Path) -> None:
    small = ["--clips", 42, "--set", "stages.0.steps=2", "--set", "stages.1.steps=3", "--set", "run.log_every=1"]
    done = coat_run("quickstart", "--out", "runs/quickstart", *small, cwd=quickstarted)
    assert done.stderr.count(": done already") == 7
    assert "held-out accuracy" in done.stdout
    wrong = coat_run("quickstart", "--out", "runs/quickstart", *small, "--clips", 43, cwd=quickstarted, status=2)
    assert "manifests.corpus: again, because clips changed from 42 to 43" in wrong.stderr
    assert "give another --out" in wrong.stderr.lower()


def test_an_expert_of_ones_own(make_corpus: Corpus, tmp_path: Path) -> None:
    expert, test = blocks("docs/add-an-expert.md")
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


HISTORY = {"docs/log.md"}  # tells of files as they were
NAMED_FILE = re.compile(
    r"(?<![\w./-])((?:manifests|extractors|pipeline|trainer|coat|tests|benchmarks|deploy|configs|docs)/[\w./-]*\w/?)(?![\w*<{-])"
)


@pytest.mark.parametrize(
    "page",
    sorted(
        {"README.md", "CONTRIBUTING.md", "SECURITY.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))}
        - HISTORY
    ),
)
def test_files_that_a_page_names_exist(page: str) -> None:
    named = NAMED_FILE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "docs" / name).exists()] == []
