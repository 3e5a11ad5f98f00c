"""Extraction in this process: values, resume, and what becomes of bad rows."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zarr

from coat.extractors.expert import Options
from coat.manifests import InputError, Manifest, RunError, decode
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import RowSelection, extract
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.shards.build import build_shards
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.pipeline.conftest import Corpus
from tests.pipeline.experts import level

HERE = Resources(workers=0)


def run(manifest: Path, store: Path, expert: str = "Level", **kwargs) -> Summary:
    (summary,) = extract(str(manifest), str(store), [f"tests.pipeline.experts:{expert}"], resources=HERE, **kwargs)
    return summary


def tree(store: Path) -> dict[str, bytes]:
    """Every file of a store but what tells the time."""
    return {
        str(p.relative_to(store)): p.read_bytes()
        for p in store.rglob("*")
        if p.is_file() and p.name != "done.json" and p.parent.name not in ("runs", "running")
    }


def test_targets_are_what_the_expert_gives_for_each_clip_alone(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(40)
    summary = run(manifest, tmp_path / "store", options=Options(dtype="float32"))
    assert (summary.ok, summary.failed, summary.skipped) == (40, 0, 0)
    targets = TargetStore(str(tmp_path / "store")).target_set("level")
    for u in Manifest.read(str(manifest)):
        expected = level(decode(u.audio).at(16000))
        target = targets.read(u.id)
        np.testing.assert_array_equal(target.frames, expected)
        np.testing.assert_allclose(target.times, 0.005 + 0.01 * np.arange(len(expected)))


def test_a_second_run_does_nothing(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus()
    run(manifest, tmp_path / "store")
    before = tree(tmp_path / "store")
    again = run(manifest, tmp_path / "store")
    assert (again.ok, again.units_done, again.bytes) == (12, 0, 0)
    assert tree(tmp_path / "store") == before


def test_a_manifest_that_grew_adds_its_new_rows(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(12)
    rows = manifest.read_text().splitlines()
    (manifest.parent / "part.jsonl").write_text("\n".join(rows[:9]) + "\n")
    run(manifest.parent / "part.jsonl", tmp_path / "store")
    summary = run(manifest, tmp_path / "store")
    assert summary.ok == 12
    assert len(TargetStore(str(tmp_path / "store")).target_set("level")) == 12
    assert summary.audio_seconds == pytest.approx(sum(json.loads(r)["duration"] for r in rows[9:]))


def test_dask_and_plain_zarr_see_the_same_frames(make_corpus: Corpus, tmp_path: Path) -> None:
    run(make_corpus(), tmp_path / "store")
    targets = TargetStore(str(tmp_path / "store")).target_set("level")
    units = sorted((tmp_path / "store").rglob("frames.zarr"))
    plain = np.concatenate([np.asarray(zarr.open_array(u, mode="r")[:]) for u in units])
    np.testing.assert_array_equal(targets.dask().compute(), plain)
    assert plain.dtype == np.float16


def write_bad_corpus(root: Path) -> Path:
    """40 good clips, and one of each thing that goes wrong in real corpora."""
    rng = np.random.default_rng(0)
    root.mkdir()
    rows: list[dict] = []

    def add(identity: str, name: str, samples: np.ndarray | None, rate: int = 16000, **more) -> None:
        if samples is not None:
            soundfile.write(root / name, samples, rate, **more.pop("write", {}))
        rows.append({"id": identity, "audio_filepath": name, **more})

    noise = rng.uniform(-0.5, 0.5, 16000).astype(np.float32)
    for i in range(40):
        add(f"good{i}", f"good{i}.wav", noise[: 8000 + 100 * i])
    add("missing", "missing.wav", None)
    (root / "zero.wav").write_bytes(b"")
    add("zero", "zero.wav", None)
    soundfile.write(root / "whole.flac", np.tile(noise, 5), 16000)
    (root / "cut.flac").write_bytes((root / "whole.flac").read_bytes()[:60000])
    add("cut", "cut.flac", None)
    (root / "text.wav").write_text("this is not audio\n" * 50)
    add("text", "text.wav", None)
    add("short", "short.wav", noise[:80])
    add("silence", "silence.wav", np.zeros(48000, np.float32))
    nan = noise.copy()
    nan[100] = np.nan
    add("nan", "nan.wav", nan, write={"subtype": "FLOAT"})
    add("beyond", "good0.wav", None, offset=0.2, duration=3.0)
    add("../outside", "good1.wav", None)
    add("a.dot", "good2.wav", None)
    add("twice", "good3.wav", None)
    add("twice", "good4.wav", None)
    add("aiff", "clip.aiff", noise)
    add("fast", "fast.wav", np.repeat(noise, 12), rate=192000)
    add("wide", "wide.wav", np.stack([noise] * 8, axis=1))
    path = root / "bad.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_each_bad_row_ends_with_its_own_reason_and_nothing_else_is_lost(tmp_path: Path) -> None:
    manifest = write_bad_corpus(tmp_path / "corpus")
    corpus_before = {p: p.read_bytes() for p in (tmp_path / "corpus").iterdir()}
    summary = run(manifest, tmp_path / "store")
    rows = {(r.id, r.status): r for r in TargetStore(str(tmp_path / "store")).target_set("level").rows.values()}
    reasons = {identity: row.reason for (identity, status), row in rows.items() if status != "ok"}
    assert reasons == {
        "missing": "missing",
        "zero": "empty",
        "cut": "truncated",
        "text": "unreadable",
        "short": "too_short",
        "nan": "not_finite",
        "beyond": "span",
        "twice": "duplicate_id",
    }
    good = {identity for identity, status in rows if status == "ok"}
    assert good == {f"good{i}" for i in range(40)} | {"silence", "../outside", "a.dot", "twice", "aiff", "fast", "wide"}
    assert (summary.ok, summary.failed, summary.skipped) == (47, 7, 1)
    assert rows["short", "skipped"].reason == "too_short"

    before = tree(tmp_path / "store")
    again = run(manifest, tmp_path / "store")
    assert (again.units_done, again.failed) == (0, 7)
    assert tree(tmp_path / "store") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "store"]
    assert {p: p.read_bytes() for p in (tmp_path / "corpus").iterdir()} == corpus_before
    assert not verify(str(tmp_path / "store")).damages


def test_a_row_that_was_mended_is_tried_again_when_asked(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus()
    audio = manifest.parent / "audio" / "c3.flac"
    whole = audio.read_bytes()
    audio.unlink()
    assert run(manifest, tmp_path / "store").failed == 1
    audio.write_bytes(whole)
    assert run(manifest, tmp_path / "store").failed == 1
    assert run(manifest, tmp_path / "store", selection=RowSelection(retry_failed=True)).failed == 0
    assert len(TargetStore(str(tmp_path / "store")).target_set("level").read("c3").frames) > 0


def test_what_the_expert_raises_or_gives_as_nan_fails_its_row_alone(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(30)
    soundfile.write(manifest.parent / "audio" / "c5.flac", np.full(16000, 0.95), 16000)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[5]["duration"] = 1.0
    manifest.write_text("".join(json.dumps(r) + "\n" for r in lines))
    summary = run(manifest, tmp_path / "store", "Picky")
    long = sum(r["duration"] > 3 for r in lines)
    assert long > 2
    assert summary.reasons == {"not_finite": long, "expert_error": 1}
    assert summary.ok == 30 - long - 1


def test_an_expert_that_fails_on_every_row_stops_the_run_uncommitted(make_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"fails on each of \d+ rows.*RuntimeError: no such kernel"):
        run(make_corpus(), tmp_path / "store", "Broken")
    assert not list((tmp_path / "store").rglob("done.json"))


def test_want_of_memory_halves_batches_and_loses_nothing(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(20)
    plain = run(manifest, tmp_path / "plain")
    scarce = run(manifest, tmp_path / "scarce", "Scarce")
    assert scarce.ok == plain.ok == 20
    assert scarce.halvings > 0
    sets = [TargetStore(str(tmp_path / n)).target_set(e) for n, e in (("plain", "level"), ("scarce", "scarce"))]
    for i in range(20):
        np.testing.assert_array_equal(sets[0].read(f"c{i}").frames, sets[1].read(f"c{i}").frames)


def test_two_corpora_with_one_id_do_not_mix(make_corpus: Corpus, tmp_path: Path) -> None:
    first, second = make_corpus(3, "a", seed=1), make_corpus(3, "b", seed=2)
    run(first, tmp_path / "store")
    run(second, tmp_path / "store")
    targets = TargetStore(str(tmp_path / "store")).target_set("level")
    with pytest.raises(InputError, match="2 utterances have the id 'c0'"):
        targets.read("c0")
    for path in (first, second):
        u = Manifest.read(str(path))[0]
        expected = level(decode(u.audio).at(16000)).astype(np.float16)
        np.testing.assert_array_equal(targets.read(u).frames, expected)


@pytest.mark.parametrize(
    ("experts", "options", "message"),
    [
        (["nothing"], Options(), "no such expert; one of mel"),
        (["tests.pipeline.experts:Nobody"], Options(), "cannot be imported"),
        (["tests.pipeline.conftest:Path"], Options(), "is not an Expert"),
        (["tests.pipeline.experts:Level"], Options(dtype="int3"), "dtype 'int3' is not one of"),
        (["tests.pipeline.experts:Level", "tests.pipeline.experts:Slow"], Options(checkpoint="x"), "one by one"),
    ],
)
def test_wrong_requests_stop_before_any_work(
    experts: list[str], options: Options, message: str, make_corpus: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        extract(str(make_corpus(2)), str(tmp_path / "store"), experts, options, HERE)
    assert not (tmp_path / "store").exists()


def test_store_and_shards_may_lie_behind_a_url(make_corpus: Corpus, tmp_path: Path) -> None:
    """memory:// has no rename, as object stores have none: done.json is put last."""
    manifest, store = make_corpus(), f"memory://{tmp_path.name}/store"
    names = ["tests.pipeline.experts:Level"]
    (first,), (again,) = (extract(str(manifest), store, names, resources=HERE) for _ in range(2))
    assert (first.ok, first.units_done > 0, again.ok, again.units_done) == (12, True, 12, 0)
    run(manifest, tmp_path / "local")
    remote, local = TargetStore(store).target_set("level"), TargetStore(str(tmp_path / "local")).target_set("level")
    for u in Manifest.read(str(manifest)):
        np.testing.assert_array_equal(remote.read(u).frames, local.read(u).frames)
    assert not verify(store).damages
    index = build_shards(str(manifest), store, ["level"], f"memory://{tmp_path.name}/shards")
    assert index.shards == build_shards(str(manifest), str(tmp_path / "local"), ["level"], str(tmp_path / "o")).shards


def test_a_unit_of_failed_rows_alone_can_be_tried_again(make_corpus: Corpus, tmp_path: Path) -> None:
    """Its rows are those of the unit that failed, and yet it must not be taken for that one."""
    manifest = make_corpus(1)
    audio = manifest.parent / "audio" / "c0.flac"
    whole = audio.read_bytes()
    audio.write_bytes(b"")
    assert run(manifest, tmp_path / "store").failed == 1
    assert run(manifest, tmp_path / "store", selection=RowSelection(retry_failed=True)).failed == 1
    audio.write_bytes(whole)
    assert run(manifest, tmp_path / "store", selection=RowSelection(retry_failed=True)).ok == 1
    assert run(manifest, tmp_path / "store", selection=RowSelection(retry_failed=True)).units_done == 0


def test_refresh_redoes_what_sounds_different_and_nothing_else(make_corpus: Corpus, tmp_path: Path) -> None:
    manifest = make_corpus(6)
    run(manifest, tmp_path / "store")
    assert run(manifest, tmp_path / "store", selection=RowSelection(refresh=True)).units_done == 0
    audio = manifest.parent / "audio" / "c2.flac"
    samples, rate = soundfile.read(audio, dtype="float32")
    soundfile.write(audio, samples[::-1], rate)
    summary = run(manifest, tmp_path / "store", selection=RowSelection(refresh=True))
    assert (summary.units_done, summary.frames) == (1, len(samples) // 160)
    u = Manifest.read(str(manifest))[2]
    expected = level(decode(u.audio).at(16000)).astype(np.float16)
    targets = TargetStore(str(tmp_path / "store")).target_set("level")
    np.testing.assert_array_equal(targets.read(u).frames, expected)
    assert build_shards(str(manifest), str(tmp_path / "store"), ["level"], str(tmp_path / "out")).samples == 6


def test_frames_of_the_wrong_shape_on_every_row_are_the_experts_fault(make_corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="bad_shape"):
        run(make_corpus(), tmp_path / "store", "Misshapen")
    assert not list((tmp_path / "store").rglob("done.json"))
