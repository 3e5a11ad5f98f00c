"""What `coat status` tells, while a run is at work and afterwards."""

import json
from pathlib import Path

import pytest

from coat.cli.main import main
from coat.pipeline.status.status import status
from tests.integration.helpers import coat, forked_python
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run
from tests.pipeline.extraction.test_runs import command, start, wait_for_units


def test_errors_are_counted_and_shown_by_an_example(
    make_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(12)
    for name in ("c3", "c8"):
        (manifest.parent / "audio" / f"{name}.flac").unlink()
    run(manifest, tmp_path / "store")
    (found,) = status(str(tmp_path / "store"))
    assert (found.ok, found.failed, found.reasons) == (10, 2, {"missing": 2})
    assert found.examples["missing"][0] in ("c3", "c8")
    assert found.stages["decode"] > 0
    assert found.padding_share is not None
    assert 0 <= found.padding_share < 1
    assert not found.at_work
    with pytest.raises(SystemExit, match="0"):
        main(["status", str(tmp_path / "store")])
    shown = capsys.readouterr().out
    assert "Most frequent errors" in shown
    assert "time went to" in shown


def test_a_run_at_work_is_shown_with_its_rate_and_what_is_left(many: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    forked_python()  # is up before the run is, which would else be over when it is looked at
    process = start(command(many, store, "Slow", "--workers", "0"))
    wait_for_units(store, 2, process)
    (found,) = status(str(store))
    (at_work,) = found.runs
    assert at_work.alive
    assert 0 < at_work.units_done < at_work.units
    assert at_work.rate > 0
    assert at_work.eta_seconds
    watched = coat("status", store, "--watch", "--json", "--every", 0.5)
    looks = [json.loads(line)[0] for line in watched.stdout.splitlines()]
    assert looks[0]["runs"][0]["units"] == at_work.units
    assert looks[-1]["runs"] == []  # it watched until the run ended
    assert [look["ok"] for look in looks] == sorted(look["ok"] for look in looks)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert status(str(store))[0].ok == 480


def test_a_dead_run_is_told_from_one_at_work(many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(command(many, tmp_path / "store", "Slow", "--workers", "0"))
    wait_for_units(tmp_path / "store", 1, process)
    process.kill()
    process.communicate()
    with pytest.raises(SystemExit, match="0"):
        main(["status", str(tmp_path / "store"), "--watch"])  # does not wait for it
    assert "units in hand; run the same command again" in capsys.readouterr().out


def test_only_some_rows_are_extracted_on_demand(
    make_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(12)
    ids = tmp_path / "ids.txt"
    ids.write_text("c2\nc5\nc7\n")
    expert = ["extract", "--expert", "tests.pipeline.experts:Level", "--workers", "0"]
    where = ["--manifest", str(manifest), "--store", str(tmp_path / "store")]
    for more, rows in ((["--only", str(ids), "--limit", "2"], 2), (["--only", str(ids)], 3), ([], 12)):
        with pytest.raises(SystemExit, match="0"):
            main([*expert, *where, *more])
        assert status(str(tmp_path / "store"))[0].ok == rows
    ids.write_text("")
    with pytest.raises(SystemExit, match="2"):
        main([*expert, *where, "--only", str(ids)])
    assert "no ids; expected one a line" in capsys.readouterr().err
