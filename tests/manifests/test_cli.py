"""`coat manifest` as its user sees it."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from coat.cli import progress as progress_module
from coat.cli.data.manifest import app
from coat.cli.progress import duration, line, progress
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from tests.manifests.conftest import WriteAudio


def run(*args: Any) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


@pytest.fixture
def corpus(tmp_path: Path, write_audio: WriteAudio) -> Path:
    for i in range(30):
        write_audio(f"c/{i}.wav", 0.1)
    return tmp_path / "c"


def test_from_a_folder_to_parts(corpus: Path) -> None:
    manifest = corpus / "manifest.jsonl"
    result = run("import", corpus, manifest, "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    first, columns = result.stdout.splitlines()
    assert first == f"{manifest}: 30 utterances, 0.00 h, from folder"
    assert columns == "columns: used audio_filepath (audio_filepath)"
    result = run("validate", manifest, "--deep")
    assert (result.exit_code, result.stdout) == (0, f"{manifest}: no problems\n")
    assert "16000 Hz: 30" in run("stats", manifest).stdout
    result = run("split", manifest, "train=0.5", "valid=0.5", "--json")
    parts = json.loads(result.stdout)["parts"]
    assert [p["name"] for p in parts] == ["train", "valid"]
    assert sum(len(Manifest.read(p["path"])) for p in parts) == 30


def test_bad_rows_exit_with_2_and_a_line_each(corpus: Path) -> None:
    (corpus / "t.csv").write_text("audio\n" + "none.wav\n" * 25 + "0.wav\n")
    out = corpus / "m.jsonl"
    result = run("import", corpus / "t.csv", out)
    lines = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, out.exists()) == (2, "", False)
    assert lines[0].startswith(f"{corpus}/t.csv:2: {corpus}/none.wav: no such file")
    assert lines[20] == "... and 5 more; --json gives all 25"
    assert lines[21].startswith(f"error: {out} is not written")
    assert len(lines) == 22
    result = run("import", corpus / "t.csv", out, "--json")
    assert result.exit_code == 2
    assert len(json.loads(result.stdout)["problems"]) == 25
    result = run("import", corpus / "t.csv", out, "--skip-bad")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{out}: 1 utterances, 0.00 h, from csv, 25 bad rows left out\n")


@pytest.mark.parametrize("command", ["validate", "stats", "split"])
def test_a_broken_manifest_exits_with_2(tmp_path: Path, command: str) -> None:
    (tmp_path / "m.jsonl").write_text("{}\n" * 30)
    more = ["a=1"] if command == "split" else []
    result = run(command, tmp_path / "m.jsonl", *more)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 21)
    result = run(command, tmp_path / "m.jsonl", *more, "--json")
    assert (result.exit_code, result.stderr) == (2, "")
    assert json.loads(result.stdout)["problems"][29]["row"] == 30


def test_mistakes_of_the_command_are_input_errors(corpus: Path) -> None:
    for args, words in (
        (("split", "m.jsonl", "train"), "expected NAME=SHARE"),
        (("split", "m.jsonl", "train=x"), "expected NAME=SHARE"),
        (("import", corpus, corpus / "m.jsonl", "--map", "text"), "expected NATIVE=COLUMN"),
        (("validate", "none.jsonl"), "no such manifest"),
    ):
        result = run(*args)
        assert isinstance(result.exception, InputError)
        assert words in str(result.exception)


COLUMNS = "columns: used rec (audio_filepath), said (text)"


def test_columns_and_json_of_an_import(corpus: Path) -> None:
    (corpus / "t.csv").write_text("rec,said\n1.wav,hello\n")
    out = corpus / "m.jsonl"
    result = run("import", corpus / "t.csv", out, "--map", "audio_filepath=rec", "--map", "text=said", "--json")
    found = json.loads(result.stdout)
    assert found == {"path": str(out), "format": "csv", "rows": 1, "seconds": 0.1, "notes": [COLUMNS], "problems": []}
    assert Manifest.read(str(out))[0].text == "hello"


@pytest.mark.parametrize("command", ["import", "validate", "stats", "split"])
def test_help_teaches_by_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"coat manifest {command} " in result.stdout


def test_the_command_line_starts_fast() -> None:
    heavy = "{'numpy', 'soundfile', 'pyarrow', 'rich', 'torch'}"
    code = f"import sys, coat.cli.data.manifest, coat.cli.progress; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_manifests_import_neither_torch_nor_rich() -> None:
    modules = "validate, stats, split, synthesis"
    imports = f"from coat.manifests.corpus import {modules}; from coat.manifests.sources import importing"
    code = f"import sys; {imports}; print(sorted({{'torch', 'rich'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_progress_in_a_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 6.0, 7.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with progress(None, "files", "reading") as advance:
        for _ in range(4):
            advance(10, total=100)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["reading: 20/100 files, 3.3/s, 24s left", "reading: 40/100 files, 2.0/s, 30s left"]


def test_progress_is_silent_when_quiet_or_short(capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (True, False):
        with progress(3, "files", "reading", quiet=quiet) as advance:
            advance(1)
            advance()
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_module.bar(None, "files", "reading") as advance:
        advance(2, total=4)
        advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/4 files" in err


def test_lines_and_durations() -> None:
    assert line("x", "h", 5, None, 2.0) == "x: 5 h, 2.5/s"
    assert line("x", "h", 0, 10, 0.0) == "x: 0/10 h, 0.0/s"
    assert [duration(s) for s in (0.4, 59, 60, 3599, 7500)] == ["0s", "59s", "1m00s", "59m59s", "2h05m"]
