"""An evaluation on Ray: the same bytes as in one process, though a rank is lost; what is wrong is one line."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from coat.cli.on_ray.evaluate import evaluate_on_ray
from coat.cli.on_ray.ranks import Workers
from coat.manifests import InputError, RunError
from coat.trainer.evaluation.asking.who import make_asker
from coat.trainer.evaluation.evaluation import evaluate
from coat.trainer.tiny_students.make import make_tiny_student
from tests.chaos.test_ray_train import end_of, wait_until
from tests.integration.ray_head import Head, ray_head
from tests.trainer.evaluation.helpers import settings_of, write_questions
from tests.trainer.evaluation.test_resume import contents
from tests.trainer.training.test_loop import ROOT

ROWS = 40


def start(head: Head, data: Path, student: Path, out: Path) -> subprocess.Popen[str]:
    options = ["--data", data, "--student", student, "--out", out, "--max-new-tokens", 4, "--batch-size", 1]
    options += ["--guard", 2, "--cost", 0, "--ray-address", head.address, "--ranks", 2]
    return subprocess.Popen(
        [sys.executable, "-m", "coat", "evaluate", *map(str, options)], env={**head.env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ranks_here() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::ask_as")]


@pytest.mark.slow
def test_an_evaluation_on_ray_is_the_one_of_one_process_though_a_rank_is_lost(tmp_path: Path) -> None:
    student = make_tiny_student(tmp_path / "student")
    data = write_questions(tmp_path / "data", rows=ROWS)
    settings = settings_of(data, student, batch_size=1)
    assert evaluate(settings, tmp_path / "whole", make_asker)
    with ray_head(cpus=2) as head:
        lines = end_of(start(head, data, tmp_path / "nobody", tmp_path / "wrong"), 2)
        (line,) = [line for line in lines if "ask: " not in line]
        assert line.startswith(f"error: {tmp_path / 'nobody'}: no such folder, and no such checkpoint on the hub")

        out = tmp_path / "lost"
        running = start(head, data, student, out)
        wait_until(lambda: (out / "predictions-rank1.jsonl").exists(), running)
        lost = ranks_here()
        assert len(lost) == 2
        lost[1].kill()
        end_of(running, 0)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_is_wrong_is_told_before_anybody_is_asked(tmp_path: Path) -> None:
    data = write_questions(tmp_path / "data", rows=2)
    with pytest.raises(RunError, match=r"no Ray cluster at 127\.0\.0\.1:1 "):
        evaluate_on_ray(settings_of(data, "student"), tmp_path / "e", Workers(address="127.0.0.1:1"))
    served = settings_of(data, "http://127.0.0.1:9/v1", "server")
    with pytest.raises(InputError, match="a server is asked from here"):
        evaluate_on_ray(served, tmp_path / "s", Workers(address="127.0.0.1:1"))
    assert not (tmp_path / "s").exists()
