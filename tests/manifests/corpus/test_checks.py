"""validate, stats and split."""

import json
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.split import split_manifest
from coat.manifests.corpus.stats import manifest_stats, render_stats
from coat.manifests.corpus.validate import validate_manifest
from coat.manifests.errors import InputError, ManifestError
from tests.manifests.conftest import RATE, WriteAudio, sine


def jsonl(path: Path, *rows: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def test_a_sound_manifest_has_no_problems(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.flac", 2.0)
    rows = [{"audio_filepath": "a.flac"}, {"audio_filepath": "a.flac", "offset": 1.0, "duration": 1.04}]
    path = jsonl(tmp_path / "m.jsonl", *rows)
    calls: list[tuple[int, int]] = []
    assert validate_manifest(path, advance=lambda n, total: calls.append((n, total))) == []
    assert validate_manifest(path, deep=True) == []
    assert calls == [(1, 2), (1, 2)]


def test_every_problem_has_its_line(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.flac", 2.0)
    (tmp_path / "text.wav").write_text("no sound")
    rows = [
        {"id": "one", "audio_filepath": "a.flac"},
        {"id": "one", "audio_filepath": "a.flac"},
        {"audio_filepath": "none.wav"},
        {"audio_filepath": "a.flac", "offset": -1.0},
        {"audio_filepath": "a.flac", "duration": 0},
        {"audio_filepath": "a.flac", "offset": 1.5, "duration": 1.0},
        {"audio_filepath": "a.flac", "offset": 2.0},
        {"audio_filepath": "text.wav"},
        {"audio_filepath": "a.flac", "response": "c", "choices": ["a", "b"]},
        {"audio_filepath": "a.flac", "text": 1},
        '{"audio_filepath": "a.fl',
    ]
    path = jsonl(tmp_path / "m.jsonl", *rows)
    expected = {
        2: "id 'one' is also that of row 1",
        3: "none.wav: no such file",
        4: "offset -1.0 s is negative",
        5: "duration 0.0 s; expected more than zero",
        6: "span 1.500 s to 2.500 s, but the file lasts 2.000 s",
        7: "but the file lasts 2.000 s",
        8: "libsndfile cannot read it",
        9: "response 'c' is not one of its choices (a, b)",
        10: "text is int",
        11: "not JSON",
    }
    for deep in (False, True):
        found = validate_manifest(path, deep=deep)
        assert [p.row for p in found] == list(expected)
        for p in found:
            if p.row != 8:  # with FFmpeg installed the words are others
                assert expected[p.row] in p.message
            assert "\n" not in str(p)
            assert str(p).startswith(f"{path}:{p.row}: ")


def test_only_decoding_finds_damage(tmp_path: Path, write_audio: WriteAudio) -> None:
    cut = write_audio("cut.flac", 2.0)
    data = bytearray(cut.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
    cut.write_bytes(data)
    samples = sine()
    samples[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    path = jsonl(tmp_path / "m.jsonl", {"audio_filepath": "cut.flac"}, {"audio_filepath": "nan.wav"})
    assert validate_manifest(path) == []
    assert [(p.row, "cut.flac" in p.message, "NaN" in p.message) for p in validate_manifest(path, deep=True)] == [
        (1, True, False),
        (2, False, True),
    ]


def test_manifests_that_are_empty_or_missing(tmp_path: Path) -> None:
    assert [p.message[:7] for p in validate_manifest(jsonl(tmp_path / "m.jsonl"))] == ["no rows"]
    with pytest.raises(InputError, match="no such manifest"):
        validate_manifest(str(tmp_path / "none.jsonl"))


def test_stats(tmp_path: Path, write_audio: WriteAudio) -> None:
    write_audio("a.flac", 2.5)
    write_audio("b.wav", 12.0, rate=8000)
    soundfile.write(tmp_path / "c.wav", np.zeros((RATE, 2)), RATE)
    rows: list[dict[str, Any]] = [
        {"audio_filepath": "a.flac", "text": "t", "prompt": "p", "response": ""},
        {"audio_filepath": "b.wav", "offset": 2.0},
        {"audio_filepath": "b.wav", "duration": 1.0, "text": "t"},
        {"audio_filepath": "c.wav", "duration": 1.0},
        {"audio_filepath": "none.wav"},
    ]
    path = jsonl(tmp_path / "m.jsonl", *rows)
    s = manifest_stats(path)
    assert (s.rows, s.files, s.seconds) == (5, 4, 2.5 + 10 + 1 + 1)
    assert (s.shortest_s, s.median_s, s.longest_s) == (1.0, 2.5, 10.0)
    assert (s.rates, s.channels, s.formats) == ({16000: 2, 8000: 1}, {1: 2, 2: 1}, {"WAV": 2, "FLAC": 1})
    assert s.unreadable == {"missing": 1}
    assert s.without == {"audio": 0, "duration": 3, "text": 3, "prompt": 4, "response": 5, "choices": 5}
    assert [b for b in s.histogram if b[2]] == [(1.0, 2.0, 2), (2.0, 3.0, 1), (10.0, 15.0, 1)]
    assert json.loads(json.dumps(s.to_dict()))["hours"] == pytest.approx(14.5 / 3600)
    text = render_stats(s)
    assert "5 utterances in 4 files" in text
    assert f"{'1-2 s':>14}  {'█' * 40} 2\n" in text
    rows_only = manifest_stats(path, read_headers=False)
    assert (rows_only.seconds, rows_only.rates) == (2.0, {})
    assert "no" not in render_stats(manifest_stats(jsonl(tmp_path / "n.jsonl", {"audio_filepath": "none.wav"}))).split()


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """400 rows: two spans of each of 200 files, 20 speakers; file 0 has two of them."""
    rows = [
        {
            "id": f"r{i}",
            "audio_filepath": f"wav/{i // 2}.wav",
            "offset": float(i % 2),
            "duration": 1.0,
            "speaker": i % 40 // 2,
        }
        for i in range(400)
    ]
    rows[1]["speaker"] = 7
    return jsonl(tmp_path / "data" / "all.jsonl", *rows)


Parts = dict[str, Manifest]
Split = Callable[..., Parts]


def parts_of(path: str, *args: Any, **options: Any) -> Parts:
    return {p.name: Manifest.read(p.path) for p in split_manifest(path, *args, **options)}


def ids(parts: Parts) -> dict[str, list[str]]:
    return {name: [u.id for u in part] for name, part in parts.items()}


@pytest.mark.parametrize("by", ["audio", "id", "speaker"])
def test_parts_are_a_partition_in_order(corpus: str, by: str) -> None:
    parts = parts_of(corpus, {"train": 0.6, "valid": 0.4}, by=by)
    whole = {u.id: u.to_row() for u in Manifest.read(corpus)}
    rows = {u.id: u.to_row() for part in parts.values() for u in part}
    assert rows == whole
    assert sum(map(len, parts.values())) == len(whole)
    order = list(whole)
    for part in ids(parts).values():
        assert part == sorted(part, key=order.index)


@pytest.mark.parametrize(("by", "held"), [("audio", ["audio"]), ("speaker", ["audio", "speaker"])])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_belongs_together_stays_together(corpus: str, by: str, held: list[str], seed: int) -> None:
    parts = parts_of(corpus, {"train": 0.6, "valid": 0.4}, by=by, seed=seed)
    for name in held:
        homes = defaultdict(set)
        for part, rows in parts.items():
            for u in rows:
                homes[u.audio if name == "audio" else u.extra["speaker"]].add(part)
        assert all(len(h) == 1 for h in homes.values())


def test_shares_are_met_and_seeds_differ(corpus: str) -> None:
    first = parts_of(corpus, {"train": 0.8, "valid": 0.2})
    assert len(first["train"]) == pytest.approx(320, abs=40)
    assert ids(parts_of(corpus, {"train": 0.8, "valid": 0.2})) == ids(first)
    assert ids(parts_of(corpus, {"train": 0.8, "valid": 0.2}, seed=1)) != ids(first)


def test_a_corpus_that_grows_keeps_its_split(corpus: str) -> None:
    before = ids(parts_of(corpus, {"train": 0.8, "valid": 0.2}))
    more = [{"id": f"n{i}", "audio_filepath": f"new/{i}.wav"} for i in range(50)]
    lines = (
        [json.dumps(r) for r in more[:25]] + Path(corpus).read_text().splitlines() + [json.dumps(r) for r in more[25:]]
    )
    after = ids(parts_of(jsonl(Path(corpus), *lines), {"train": 0.8, "valid": 0.2}))
    assert {name: [i for i in part if i.startswith("r")] for name, part in after.items()} == before


def test_the_split_is_the_same_on_every_machine(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "all.jsonl", *[{"audio_filepath": f"{i}.wav"} for i in range(20)])
    assert " ".join(ids(parts_of(path, {"a": 0.5, "b": 0.5}))["b"]) == "0 2 5 6 7 8 9 11 12 15 17"


def test_parts_in_another_folder_still_find_their_audio(
    tmp_path: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = parts_of("data/all.jsonl", {"train": 0.5, "test": 0.5}, out_dir="lists")
    assert (tmp_path / "lists/all.test.jsonl").is_file()
    for part in parts.values():
        assert all(u.audio == str(tmp_path / "data/wav" / Path(u.audio).name) for u in part)
    beside = parts_of("data/all.jsonl", {"train": 0.5, "test": 0.5})
    digests = {u.id: u.digest for u in Manifest.read(corpus)}
    assert all(u.digest == digests[u.id] for part in beside.values() for u in part)  # targets stay theirs


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"a": 0.5},
        {"a": 0.5, "b": 0.6},
        {"a": 1.5, "b": -0.5},
        {"a": float("nan"), "b": 0.5},
        {"../a": 1.0},
        {"": 1.0},
    ],
)
def test_shares_that_cannot_be(corpus: str, shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"names are letters|sum to 1"):
        split_manifest(corpus, shares)


def test_rows_without_the_key_are_named(corpus: str) -> None:
    with pytest.raises(ManifestError, match=r"all\.jsonl:1: no 'language' to split by"):
        split_manifest(corpus, {"a": 0.5, "b": 0.5}, by="language")


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "all.jsonl", {"audio_filepath": "a.wav"})
    with pytest.raises(InputError, match="no rows for"):
        split_manifest(path, {"a": 0.5, "b": 0.5})
    assert os.listdir(tmp_path) == ["all.jsonl"]


ROWS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), min_size=1, max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(rows=ROWS, seed=st.integers(0, 3), shift=st.randoms(use_true_random=False))
def test_any_corpus_is_split_cleanly_whatever_its_order(
    tmp_path: Path, rows: list[tuple[int, int]], seed: int, shift: Any
) -> None:
    made = [{"id": str(i), "audio_filepath": f"{a}.wav", "speaker": s} for i, (a, s) in enumerate(rows)]
    shuffled = made.copy()
    shift.shuffle(shuffled)
    homes = []
    for n, order in enumerate((made, shuffled)):
        path = jsonl(tmp_path / f"{n}.jsonl", *order)
        try:
            parts = parts_of(path, {"a": 0.5, "b": 0.5}, by="speaker", seed=seed)
        except InputError:  # an empty part
            homes.append(None)
            continue
        homes.append({u.id: name for name, part in parts.items() for u in part})
    assert homes[0] == homes[1]
    if homes[0]:
        for row, (a, s) in zip(made, rows, strict=True):
            for other, (b, t) in zip(made, rows, strict=True):
                if a == b or s == t:
                    assert homes[0][row["id"]] == homes[0][other["id"]]
