"""Which samples: filters, several manifests with weights; and what is said of a set."""

import json
from collections import Counter
from pathlib import Path

import pytest

from coat.manifests import InputError, Manifest
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shard_checks.stats import shard_stats
from coat.pipeline.shards.build import build_shards
from coat.pipeline.shards.row_filter import row_filter
from coat.trainer import iterate_shards
from tests.integration.helpers import coat
from tests.pipeline.conftest import write_corpus
from tests.pipeline.shards.test_sidecars import NAMES

ROW = {"id": "a", "duration": 4.5, "language": "en", "text": "hello", "tags": ["x", "y"], "nothing": None}


@pytest.mark.parametrize(
    ("text", "accepts"),
    [
        ("duration < 30", True),
        ("1 < duration <= 4", False),
        ("duration < 30 and language == 'en'", True),
        ("language in ('de', 'fr') or not (duration > 3)", False),
        ("len(text) / duration > 1", True),
        ("speaker == None", True),  # no such key
        ("speaker > 3", False),
        ("nothing != None", False),
        ("'x' in tags", True),
        ("language not in ['en']", False),
        ("duration * 2 - 1 >= 8", True),
        ("-duration < 0", True),
    ],
)
def test_filters(text: str, accepts: bool) -> None:
    assert row_filter(text)(ROW) is accepts


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "().__class__",
        "open('x')",
        "duration <",
        "[d for d in tags]",
        "lambda: 1",
        "text.upper()",
        "a is b",
    ]
    + ["f'{text}'", "x := 3", "text[0]", "2 ** 99999999", "b'x'", "", "..."],
)
def test_filters_are_no_python(text: str) -> None:
    with pytest.raises(InputError, match="--filter"):
        row_filter(text)


def test_a_filter_that_does_not_fit_a_row_names_it() -> None:
    with pytest.raises(InputError, match="row 'a'"):
        row_filter("text < 3")(ROW)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], str]:
    """Two corpora of 60 and 40 clips whose ids are the same."""
    root = tmp_path_factory.mktemp("two")
    manifests = [write_corpus(root / "one", 60), write_corpus(root / "two", 40, seed=1)]
    for manifest in manifests:
        extract(str(manifest), str(root / "store"), NAMES[:2], resources=Resources(workers=0))
    return [str(m) for m in manifests], str(root / "store")


def test_a_filter_keeps_the_rows_that_it_accepts(two: tuple[list[str], str], tmp_path: Path) -> None:
    manifest = Manifest.read(two[0][0])
    index = build_shards(two[0][0], two[1], ["level"], str(tmp_path / "out"), filter="duration < 2 and id != 'c1'")
    wanted = {u.id for u in manifest if (u.duration or 0) < 2 and u.id != "c1"}
    assert 3 < len(wanted) < 60
    assert {s.id for s in iterate_shards(str(tmp_path / "out"))} == wanted
    assert index.skipped == 0
    with pytest.raises(InputError, match=r"no utterance has all that .* --filter 'duration > 99'"):
        build_shards(two[0][0], two[1], ["level"], str(tmp_path / "none"), filter="duration > 99")


def test_manifests_are_mixed_by_weight(two: tuple[list[str], str], tmp_path: Path) -> None:
    manifests, store = two
    build_shards(manifests, store, ["level"], str(tmp_path / "all"))
    every = list(iterate_shards(str(tmp_path / "all")))
    assert len({s.key for s in every}) == 100  # ids that both corpora have get keys of their own
    index = build_shards(manifests, store, ["level"], str(tmp_path / "mixed"), weights=[0.5, 2])
    samples = list(iterate_shards(str(tmp_path / "mixed")))
    assert len({s.key for s in samples}) == len(samples) == index.samples
    copies = Counter(s.seconds for s in samples if s.seconds in {u.duration for u in Manifest.read(manifests[1])})
    assert len(copies) == 40
    assert set(copies.values()) == {2}
    halved = len(samples) - 80
    assert 18 <= halved <= 42  # by digest, so about half
    more = build_shards(manifests, store, ["level"], str(tmp_path / "more"), weights=[0.75, 1])
    assert more.samples - 40 >= halved
    with pytest.raises(InputError, match="--weights: 1 for 2 manifests"):
        build_shards(manifests, store, ["level"], str(tmp_path / "wrong"), weights=[1])


def test_stats(two: tuple[list[str], str], tmp_path: Path) -> None:
    manifests, store = two
    out = tmp_path / "out"
    build_shards(manifests[0], store, ["level", "scarce"], str(out), layout="sidecar", max_seconds=2)
    found = shard_stats(str(out), count_tokens=lambda text: len(text.split()))
    manifest = Manifest.read(manifests[0])
    longer = [u for u in manifest if (u.duration or 0) > 2]
    assert found.hours * 3600 == pytest.approx(manifest.seconds, abs=1e-3)
    assert (found.samples, found.pieces) == (60 + len(longer), 2 * len(longer))
    assert found.audio_tokens == round(manifest.seconds * 25)
    assert found.text_tokens == 3 * found.samples + (60 - len(longer))  # "What is it?", and "noise" where it is whole
    level = found.experts["level"]
    assert (level.samples, level.missing) == (found.samples, 0)
    assert level.frames == sum(len(s.targets["level"]) for s in iterate_shards(str(out)))
    assert level.bytes == level.frames * 3 * 2


def test_the_command_line(two: tuple[list[str], str], tmp_path: Path) -> None:
    manifests, store = two
    out = tmp_path / "out"
    where = ("--manifest", manifests[0], "--manifest", manifests[1], "--store", store, "--out", out)
    more = ("--weights", "1,0.5", "--filter", "duration < 3.5", "--max-seconds", 2, "--layout", "sidecar")
    coat("build-shards", *where, "--experts", "level", *more, "--audio", "original", "--missing", "mask")
    assert "scarce" in coat("shards", "add-expert", out, "--store", store, "--expert", "scarce").stdout
    stats = ("shards", "stats", out)
    as_json, as_text, verified = coat(*stats, "--json"), coat(*stats), coat("verify", out)
    shown = json.loads(as_json.stdout)
    assert set(shown["experts"]) == {"level", "scarce"}
    assert 70 < shown["samples"] < 140
    assert f"audio tokens about {shown['audio_tokens']:,}" in as_text.stdout
    assert "no damage found" in verified.stdout
    again = ("build-shards", *where, "--experts", "level", "--overwrite")
    layout, audio = (coat(*again, more, "x", status=2) for more in ("--layout", "--audio"))
    assert "expected one of joint, sidecar" in layout.stderr
    assert "expected one of flac, original" in audio.stderr
