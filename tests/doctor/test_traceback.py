"""A fault of coat, or of what it runs, ends with its traceback and with what to do."""

import subprocess
import sys
from pathlib import Path

from tests.integration.helpers import ROOT, environment


def test_a_traceback_names_the_doctor_and_the_template(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("1 / 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "coat", "experts", "--check", f"{tmp_path}/mine.py:Mine"],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    *_, error, first, second, third = done.stderr.rstrip("\n").splitlines()
    assert error == "ZeroDivisionError: division by zero"
    assert "`coat doctor`" in first
    assert ".github/ISSUE_TEMPLATE/bug.yml" in second
    assert (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").exists()
    assert "`coat doctor --json`" in third
