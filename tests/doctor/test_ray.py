"""The whole report, with a Ray that starts; and what is said of nodes."""

import time
from typing import Any

import pytest

from coat.doctor.ray import COMPARED, SKEW_S, describe, differences
from coat.doctor.subjects import SUBJECTS
from tests.doctor.helpers import doctor
from tests.integration.helpers import ROOT, coat


def test_the_whole_report() -> None:
    """On any machine that these tests run on there may be warnings; what they need is not broken."""
    document = doctor()
    assert {f["subject"] for f in document.values()} == set(SUBJECTS)
    assert document["Ray"]["found"].startswith("starts, and ran a task")
    assert document["torch"]["state"] == "ok"


def test_no_cluster_at_the_address() -> None:
    found = doctor("ray", COAT_RAY_ADDRESS="127.0.0.1:1", status=1)["cluster"]
    assert "no Ray cluster at 127.0.0.1:1" in found["found"]


def test_nodes_that_are_not_like_us() -> None:
    ours = describe(COMPARED)
    assert differences("n", ours, ours) is None
    older: dict[str, Any] = {**ours, "ray": "2.0.0", "Python": "3.8.1"}
    found = differences("10.0.0.2", older, ours)
    assert found is not None
    assert found.state == "warning"
    assert f"ray 2.0.0 (here: {ours['ray']})" in found.found
    assert f"Python 3.8.1 (here: {ours['Python']})" in found.found
    late = differences("n", {**ours, "clock": time.time() - 10 * SKEW_S}, ours)
    assert late is not None
    assert "behind" in late.found
    dead = differences("n", "no answer within 30 s", ours)
    assert dead is not None
    assert dead.state == "broken"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_subject_is_explained(subject: str) -> None:
    assert f"| `{subject}` |" in (ROOT / "docs" / "doctor.md").read_text()


def test_help_names_all_subjects() -> None:
    shown = " ".join(coat("doctor", "--help").stdout.replace("│", " ").split())
    assert ", ".join(SUBJECTS) in shown
