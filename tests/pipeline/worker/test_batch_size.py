"""`--batch-seconds`: what is measured, recorded, said again, and what comes of it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from coat.cli.main import app
from coat.extractors.expert import Frames, Options, Waveform
from coat.manifests import InputError, RunError
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import RowSelection, extract
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.worker.batch_size import Pass, choose, measure_batch_size
from coat.pipeline.worker.config import WorkerConfig
from tests.pipeline.conftest import Corpus
from tests.pipeline.experts import Level

HERE = f"{__name__}:"


class Overhead(Level):
    """A pass costs 20 ms, whatever is in it; more than 65 s do not fit into memory."""

    limit_s = 65.0

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        if sum(map(len, waveforms)) > self.limit_s * 16000:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        time.sleep(0.02)
        return [np.zeros((len(x) // 160, 3), np.float32) for x in waveforms]


class NoRoom(Overhead):
    limit_s = 1.0


class Counts(Level):
    """Writes down how much audio each of its passes held."""

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        with open(str(self.options.checkpoint), "a") as f:
            f.write(f"{sum(map(len, waveforms)) / 16000:g}\n")
        return super().extract(waveforms)


def config_of(expert: type[Level]) -> WorkerConfig:
    return WorkerConfig(f"{HERE}{expert.__name__}", Options(), "set", expert(Options()).spec, "cpu", 1)


def test_the_largest_that_fits_is_found_where_larger_is_faster() -> None:
    size = measure_batch_size(config_of(Overhead))
    assert [p.seconds for p in size.tried] == [20.0, 40.0]  # 80 s do not fit
    assert size.seconds == 40.0
    assert "batches of 40 s on cpu" in str(size)


def test_not_even_a_clip_is_one_line() -> None:
    with pytest.raises(RunError, match=r"^.*NoRoom: 2 clips of 10 s do not fit into the memory of cpu$"):
        measure_batch_size(config_of(NoRoom))


def test_the_smallest_of_those_that_are_about_as_fast_is_chosen() -> None:
    assert choose([Pass(15, 100), Pass(30, 180), Pass(60, 200), Pass(120, 205)]) == 60
    assert choose([Pass(15, 100), Pass(30, 90)]) == 15


def test_it_is_measured_once_and_then_kept(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(9), tmp_path / "store"
    auto = Resources(workers=0, batch_seconds="auto")

    def extract_rows(rows: int) -> Summary:
        selection = RowSelection(limit=rows)
        (summary,) = extract(str(manifest), str(store), [f"{HERE}Overhead"], resources=auto, selection=selection)
        return summary

    first = extract_rows(6)
    recorded = Path(first.set_url) / "batch.json"
    assert json.loads(recorded.read_text())["seconds"] == 40.0
    recorded.write_text(recorded.read_text().replace("40.0", "35.0", 1))
    before = recorded.read_text()
    assert extract_rows(8).ok == 8
    assert recorded.read_text() == before
    recorded.write_text("{}")
    with pytest.raises(InputError, match=r"batch\.json: expected seconds above 0; remove the file"):
        extract_rows(9)


def test_batches_are_as_large_as_was_said(make_corpus: Corpus, tmp_path: Path) -> None:
    passes: dict[str, list[float]] = {}
    manifest = str(make_corpus(12))
    for seconds in ("1.5", "8"):
        said = tmp_path / f"passes-{seconds}"
        command = ["extract", "--expert", f"{HERE}Counts", "--checkpoint", str(said), "--workers", "0"]
        command += ["--manifest", manifest, "--store", str(tmp_path / seconds), "--batch-seconds", seconds]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        passes[seconds] = [float(line) for line in said.read_text().splitlines()]
    assert sum(passes["1.5"]) == pytest.approx(sum(passes["8"]))
    assert max(passes["8"]) <= 8
    assert len(passes["8"]) < len(passes["1.5"])


@pytest.mark.parametrize("wrong", ["0", "-3", "much", "nan", "inf"])
def test_what_is_no_number_of_seconds_is_refused(wrong: str, make_corpus: Corpus, tmp_path: Path) -> None:
    command = ["extract", "--expert", "mel", "--manifest", str(make_corpus(1)), "--store", str(tmp_path / "s")]
    result = CliRunner().invoke(app, [*command, "--batch-seconds", wrong])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == f"--batch-seconds {wrong}: expected a number of seconds above 0, or auto"
