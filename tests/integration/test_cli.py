"""The command line's edges: exit codes, one-line errors, what it does not import, what the wheel holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coat.cli.options import parse_bytes
from coat.cli.targets.extract import allowed_failures
from coat.manifests import InputError
from tests.integration.helpers import ROOT, coat
from tests.pipeline.conftest import Corpus, make_corpus
from tests.pipeline.extraction.test_extract import write_bad_corpus

__all__ = ["make_corpus"]

LEVEL = ("--expert", "tests.pipeline.experts:Level")
HEAVY = ("torch", "transformers", "ray", "nemo", "numpy", "zarr", "dask", "rich", "soundfile")


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from coat.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
print([m for m in {HEAVY!r} if m in sys.modules and m != "rich"], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "coat extract" in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    ["manifest", "experts", "plan", "extract", "status", "verify", "inspect", "build-shards", "train", "generate"]
    + ["quickstart", "doctor", "run"],
)
def test_every_command_teaches_by_example(command: str) -> None:
    shown = coat(command, "--help").stdout
    assert "coat " + command in " ".join(shown.split())


def test_a_mixed_manifest_ends_with_3_and_every_reason(tmp_path: Path) -> None:
    manifest = write_bad_corpus(tmp_path / "corpus")
    arguments = ("extract", *LEVEL, "--manifest", manifest, "--store", tmp_path / "store", "--workers", 0)
    done = coat(*arguments, status=3)
    assert "7 of 55 rows failed; --max-failed allows 0" in done.stderr
    assert done.stderr.count("failed: ") == 7
    coat(*arguments, "--max-failed", 7)
    coat(*arguments, "--max-failed", "15%")
    coat(*arguments, "--max-failed", 6, status=3)
    shown = json.loads(coat("status", tmp_path / "store", "--manifest", manifest, "--json").stdout)
    assert [(s["ok"], s["failed"], s["skipped"], s["missing"]) for s in shown] == [(47, 7, 1, 0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"audio_filepath": "a.wav"}\n{"audio_filepath": \n{"audio_filepath": "b.wav"}\n', "m.jsonl:2: not JSON"),
        ('{"text": "no audio"}\n', "m.jsonl:1: no audio_filepath"),
        ('{"audio_filepath": "a.wav", "duration": "long"}\n', "m.jsonl:1: duration is 'long'"),
        ("", "m.jsonl: no rows"),
    ],
)
def test_a_manifest_that_cannot_be_read_stops_before_any_work(text: str, message: str, tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(text)
    done = coat("extract", *LEVEL, "--manifest", manifest, "--store", tmp_path / "store", status=2)
    assert message in done.stderr
    assert not (tmp_path / "store").exists()


def test_wrong_usage_is_one_line_and_2(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(2)
    where = ("--manifest", manifest, "--store", tmp_path / "store")
    wrong = (
        (("extract", "--expert", "nobody", *where), "no such expert"),
        (("extract", *LEVEL, "--manifest", tmp_path / "none.jsonl", "--store", tmp_path / "s"), "no such manifest"),
        (("extract", *LEVEL, *where, "--device", "cuda"), "torch sees no GPU"),
        (("extract", *LEVEL, *where, "--device", "tpu"), "expected auto, cpu or cuda"),
        (("extract", *LEVEL, *where, "--max-failed", "some"), "--max-failed some"),
        (("extract", *LEVEL, *where, "--max-failed", "-1"), "a share from 0% to 100%"),
        (("extract", *LEVEL, "--manifest", manifest, "--store", manifest), "choose another place"),
        (("tiny-student", "qwen2-audio", manifest), "not an empty folder"),
        (("quickstart", "--out", tmp_path / "q", "--set", "stages.0.stepz=1"), "unknown key stages.0.stepz"),
        (("manifest", "import", manifest, manifest), "would replace its own source"),
        (("manifest", "import", tmp_path / "nothing", tmp_path / "m.jsonl"), "no such file"),
        (("status", tmp_path / "empty"), "no target sets"),
        (("verify", tmp_path / "empty"), "no target sets"),
        (("build-shards", *where, "--experts", "pitch", "--out", tmp_path / "o"), "no targets of pitch"),
    )
    for command, message in wrong:
        done = coat(*command, status=2)
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: ")
        assert message in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus"]
    coat("extract", "--nothing", status=2)


def test_nobody_at_a_ray_address_is_said_at_once(make_corpus: Corpus, tmp_path: Path) -> None:
    where = ("--manifest", make_corpus(2), "--store", tmp_path / "store")
    done = coat("extract", *LEVEL, *where, "--ray-address", "localhost:1", status=1)
    assert "no Ray cluster at localhost:1" in done.stderr


def test_shares_and_sizes() -> None:
    assert [allowed_failures(t, 1000) for t in ("0", "7", "1%", "0.01", "0.5%")] == [0, 7, 10, 10, 5]
    assert [parse_bytes("--size", t) for t in ("256MB", "1GB", "1.5 kB", "100")] == [256_000_000, 10**9, 1500, 100]
    for wrong in ("", "MB", "0MB", "-3MB"):
        with pytest.raises(InputError):
            parse_bytes("--size", wrong)
