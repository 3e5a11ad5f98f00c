"""`--share-decode`: experts in one pass give what they give alone, and each clip is decoded once."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from typer.testing import CliRunner

from coat.cli.main import app
from coat.extractors.expert import Options
from coat.manifests import RunError
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.decoding import row_decoding
from coat.pipeline.extraction.extraction import RowSelection, extract
from coat.pipeline.extraction.listeners import NullListener
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.pipeline.conftest import Corpus
from tests.pipeline.extraction.test_extract import run, tree, write_bad_corpus

RATES = {"a.wav": 44100, "b.flac": 16000, "c.ogg": 22050, "d.mp3": 44100, "e.wav": 8000, "f.opus": 48000, "g.au": 16000}


def share(manifest: Path, store: Path, *experts: str, share_decode: bool = True, **kwargs) -> list[Summary]:
    names = [f"tests.pipeline.experts:{name}" for name in experts]
    resources = Resources(workers=0, share_decode=share_decode)
    return extract(str(manifest), str(store), names, resources=resources, **kwargs)


def names(*experts: str) -> list[str]:
    return [part for name in experts for part in ("--expert", f"tests.pipeline.experts:{name}")]


@pytest.fixture
def formats(tmp_path: Path) -> Path:
    """Every format, rate and number of channels; spans; files that are longer than a window of `Windowed` is."""
    rng = np.random.default_rng(0)
    rows = []
    for i, (name, rate) in enumerate(RATES.items()):
        samples = rng.uniform(-0.5, 0.5, (rate * (3 + i), 1 + i % 2)).astype(np.float32)
        kind, subtype = ("OGG", "OPUS") if name.endswith("opus") else (None, None)
        soundfile.write(tmp_path / name, samples, rate, subtype, format=kind)
        rows.append({"id": name, "audio_filepath": name, "duration": 3.0 + i})
        rows += [
            {"id": f"{name}-{k}", "audio_filepath": name, "offset": 0.7 * k, "duration": 0.5 + 0.4 * k}
            for k in range(3)
        ]
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


FOUR = ("Level", "Spoils", "Low", "Windowed")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_frames_and_rows_are_those_of_experts_that_run_alone(formats: Path, tmp_path: Path, dtype: str) -> None:
    alone = share(formats, tmp_path / "alone", *FOUR, share_decode=False, options=Options(dtype=dtype))
    together = share(formats, tmp_path / "together", *FOUR, options=Options(dtype=dtype))
    assert [(s.fingerprint, s.ok, s.failed) for s in together] == [(s.fingerprint, 28, 0) for s in alone]
    assert tree(tmp_path / "together") == tree(tmp_path / "alone")
    assert not verify(str(tmp_path / "together")).damages


def test_each_clip_is_decoded_once_and_the_summary_says_what_that_saved(formats: Path, tmp_path: Path) -> None:
    alone = share(formats, tmp_path / "alone", *FOUR, share_decode=False)
    together = share(formats, tmp_path / "together", *FOUR)
    assert [(s.clips_decoded, s.audio_requests, s.saved_clips, s.saved_requests) for s in alone] == [(28, 8, 0, 0)] * 4
    assert sum(s.clips_decoded for s in together) == 28
    assert sum(s.saved_clips for s in together) == 3 * 28
    assert sum(s.audio_requests for s in together) == 8  # of 7 files: one lies in two units
    assert sum(s.saved_requests for s in together) == 3 * 8
    assert sum(s.saved_decode_seconds for s in together) > 0.0


def test_a_clip_that_is_too_long_to_be_kept_is_decoded_by_each_and_its_file_opened_once(
    formats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(formats, tmp_path / "alone", *FOUR, share_decode=False)
    monkeypatch.setattr(row_decoding, "KEPT_BYTES", 4 * 44100)
    together = share(formats, tmp_path / "together", *FOUR)
    assert sum(s.clips_decoded for s in together) > 28
    assert sum(s.audio_requests for s in together) == 8
    assert tree(tmp_path / "together") == tree(tmp_path / "alone")


def test_rows_fail_as_they_fail_alone_and_each_expert_has_failures_of_its_own(tmp_path: Path) -> None:
    """Picky raises on loud clips and gives NaN on long ones; the others hear them."""
    manifest = write_bad_corpus(tmp_path / "corpus")
    soundfile.write(manifest.parent / "loud.wav", np.full(16000, 0.95, np.float32), 16000)
    soundfile.write(manifest.parent / "long.wav", np.full(16000 * 5, 0.5, np.float32), 16000)
    with manifest.open("a") as f:
        f.writelines(json.dumps({"id": name, "audio_filepath": f"{name}.wav"}) + "\n" for name in ("loud", "long"))
    four = ("Level", "Picky", "Low", "Windowed")
    alone = share(manifest, tmp_path / "alone", *four, share_decode=False)
    together = share(manifest, tmp_path / "together", *four)
    assert [(s.ok, s.reasons) for s in together] == [(s.ok, s.reasons) for s in alone]
    assert together[1].failed > together[0].failed > 0
    assert tree(tmp_path / "together") == tree(tmp_path / "alone")


def test_what_an_expert_has_already_is_not_done_again(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(120), tmp_path / "store"
    run(manifest, store, "Level", selection=RowSelection(limit=50))
    before = tree(store)
    some, nothing = share(manifest, store, "Level", "Low")
    assert (some.ok, nothing.ok) == (120, 120)
    assert some.audio_seconds < nothing.audio_seconds
    assert nothing.clips_decoded + nothing.saved_clips == 120
    assert some.clips_decoded + some.saved_clips == 70
    assert some.saved_clips + nothing.saved_clips == 70
    assert {name: data for name, data in tree(store).items() if name in before} == before
    rows = [pq.read_table(path) for path in store.glob("level/*/units/*/rows.parquet")]
    assert sum(map(len, rows)) == 120  # no row is in two units
    again = share(manifest, store, "Level", "Low")
    assert [s.units_done for s in again] == [0, 0]


def test_an_expert_that_is_done_does_not_take_part(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(30), tmp_path / "store"
    run(manifest, store, "Level")
    done, todo = share(manifest, store, "Level", "Low")
    assert (done.units_done, done.ok, todo.ok, todo.saved_clips) == (0, 30, 30, 0)


def test_failed_rows_of_one_expert_are_tried_again(tmp_path: Path) -> None:
    manifest, store = write_bad_corpus(tmp_path / "corpus"), tmp_path / "store"
    first = share(manifest, store, "Level", "Picky")
    again = share(manifest, store, "Level", "Picky", selection=RowSelection(retry_failed=True))
    assert [s.ok for s in again] == [s.ok for s in first]
    assert [s.clips_decoded + s.saved_clips for s in again] != [0, 0]
    assert all(s.units_done for s in again)
    attempts = {d["attempt"] for d in TargetStore(str(store)).target_set("picky").done.values()}
    assert attempts == {0, 1}


def test_an_expert_that_is_broken_stops_the_run_and_nothing_wrong_is_recorded_of_any(
    make_corpus: Corpus, tmp_path: Path
) -> None:
    manifest, store = make_corpus(60), tmp_path / "store"
    with pytest.raises(RunError, match=r"^tests.pipeline.experts:Broken: fails on each of \d+ rows[^\n]*$"):
        share(manifest, store, "Level", "Broken")
    assert not list(store.glob("broken/*/units/*"))
    summary = run(manifest, store, "Level")
    assert (summary.ok, summary.failed) == (60, 0)


def test_want_of_memory_of_one_expert_is_its_own(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(40)
    share(manifest, tmp_path / "alone", "Level", "Scarce", share_decode=False)
    level, scarce = share(manifest, tmp_path / "together", "Level", "Scarce")
    assert (level.ok, level.halvings, scarce.ok) == (40, 0, 40)
    assert scarce.halvings
    assert tree(tmp_path / "together") == tree(tmp_path / "alone")


def test_two_names_of_one_target_set_are_not_done_twice(make_corpus: Corpus, tmp_path: Path) -> None:
    alike = ["tests.pipeline.experts:Level", f"{Path(__file__).parents[1] / 'experts.py'}:Level", "pitch"]
    resources = Resources(workers=0, share_decode=True)
    first, second, other = extract(str(make_corpus(8)), str(tmp_path / "store"), alike, resources=resources)
    found = {s.expert: s for s in (first, second, other)}
    assert found.keys() == {"level", "pitch"}
    assert sorted(s.units_done > 0 for s in (first, second, other)) == [False, True, True]


def test_one_expert_alone_is_told_that_it_has_nobody_to_share_with(make_corpus: Corpus, tmp_path: Path) -> None:
    lines: list[str] = []

    class Lines(NullListener):
        def say(self, line: str) -> None:
            lines.append(line)

    (summary,) = share(make_corpus(4), tmp_path / "store", "Level", listener=Lines())
    assert summary.ok == 4
    assert [line for line in lines if line.startswith("--share-decode: one expert")] == lines


def test_the_command_shows_in_one_line_what_was_saved(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(8)
    where = ["--manifest", str(manifest), "--workers", "0", "--share-decode", *names("Level", "Low")]
    shown = CliRunner().invoke(app, ["extract", *where, "--store", str(tmp_path / "a")])
    assert shown.exit_code == 0, shown.output
    (line,) = (line for line in shown.output.splitlines() if line.startswith("shared decode"))
    assert line.startswith("shared decode: 8 clips decoded in ")
    assert "with 8 audio requests; saved 8 clips, " in line
    assert line.endswith(" s and 8 requests")
    shown = CliRunner().invoke(app, ["extract", *where, "--store", str(tmp_path / "b"), "--json"])
    found = json.loads(shown.stdout)
    assert sum(s["saved_requests"] for s in found) == sum(s["audio_requests"] for s in found) == 8
    assert "--share-decode" in CliRunner().invoke(app, ["extract", "--help"]).output
