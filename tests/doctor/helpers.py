"""`coat doctor` in a process of its own, in an environment that a test breaks."""

import json
import os
import subprocess
import sys
from typing import Any

from tests.integration.helpers import ROOT

PATIENCE_S = 300  # of a loaded machine; some seconds are enough
CLEARED = (
    "HF_TOKEN",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "COAT_RAY_ADDRESS",
    "RAY_TMPDIR",
    "TMPDIR",
)


def doctor(
    *subjects: str, status: int = 0, before: str = "", patience: float = PATIENCE_S, **environment: object
) -> dict[str, dict[str, Any]]:
    """Findings by what they are of. `before`: shell that is run first in the same process (ulimit, cd)."""
    done = run(*subjects, "--json", before=before, patience=patience, **environment)
    assert done.returncode == status, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    document = json.loads(done.stdout)
    assert set(document["counts"]) == {"ok", "absent", "warning", "broken"}
    assert sum(document["counts"].values()) == len(document["findings"])
    assert (document["state"] == "broken") == bool(status)
    return {finding["what"]: finding for finding in document["findings"]}


def run(
    *arguments: str, before: str = "", patience: float = PATIENCE_S, **environment: object
) -> subprocess.CompletedProcess[str]:
    only = [word for name in arguments if not name.startswith("-") for word in ("--only", name)]
    options = [name for name in arguments if name.startswith("-")]
    command = [sys.executable, "-m", "coat", "doctor", "--patience", str(patience), *only, *options]
    clean = {name: value for name, value in os.environ.items() if name not in CLEARED and "proxy" not in name.lower()}
    clean |= {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    if before:
        command = ["bash", "-c", f'{before}\nexec "$@"', "bash", *command]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean | {name: str(value) for name, value in environment.items()},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
