"""Rows of text alone: not extracted, in the shards beside the others, and nowhere missed."""

import json
from pathlib import Path
from typing import Any

import pytest

from coat.manifests import InputError, Manifest, ManifestError, ShardIndex
from coat.manifests.corpus.split import split_manifest
from coat.manifests.corpus.stats import manifest_stats
from coat.manifests.corpus.validate import validate_manifest
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.inspect.inspection import inspect
from coat.pipeline.shard_checks.verification import verify_shards
from coat.pipeline.shards.build import build_shards
from coat.pipeline.status.status import status
from coat.trainer.data.samples import Sample
from coat.trainer.data.shard_reading import iterate_shards
from tests.pipeline.conftest import Corpus

TEXT = {"id": "sum", "audio_filepath": None, "prompt": "Two and two?", "response": "four", "turns": [["Hi", "Hello"]]}


@pytest.fixture
def manifest(make_corpus: Corpus) -> Path:
    """12 clips and two texts."""
    path = make_corpus()
    rows = [TEXT, *map(json.loads, path.read_text().splitlines()), {**TEXT, "id": "sum2"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_from_a_manifest_to_samples(manifest: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    (summary,) = extract(str(manifest), store, ["tests.pipeline.experts:Level"], resources=Resources(workers=0))
    assert (summary.rows, summary.ok) == (12, 12)
    (found,) = status(store, Manifest.read(str(manifest), spans=True))
    assert (found.ok, found.missing) == (12, 0)
    with pytest.raises(InputError, match="sum is text alone; there is nothing to hear"):
        inspect(store, str(manifest), "sum")
    forms: list[Any] = [("flac", "joint"), ("none", "joint"), ("flac", "sidecar")]
    for form, layout in forms:
        out = str(tmp_path / f"{form}-{layout}")
        index = build_shards(str(manifest), store, ["level"], out, audio=form, missing="fail", layout=layout)
        assert index == ShardIndex.read(out)
        assert index.samples == 14
        assert index.seconds == pytest.approx(Manifest.read(str(manifest)).seconds)
        assert not verify_shards(out).damages
        samples = {s.id: s for s in iterate_shards(out)}
        text: Sample = samples["sum"]
        assert (text.text_only, len(text.samples_S), text.targets) == (True, 0, {})
        assert (text.prompt, text.response, text.turns) == ("Two and two?", "four", (("Hi", "Hello"),))
        assert sum(s.text_only for s in samples.values()) == 2
        assert all(s.targets and s.seconds > 0 for s in samples.values() if not s.text_only)


def test_manifests_hold_them(manifest: Path, tmp_path: Path) -> None:
    whole, spans = Manifest.read(str(manifest)), Manifest.read(str(manifest), spans=True)
    assert whole[0].to_row() == TEXT
    assert (whole[0].text_only, whole[0].audio, whole[0].duration) == (True, "", 0.0)
    assert whole.with_audio.tolist() == spans.with_audio.tolist() == [False, *[True] * 12, False]
    assert validate_manifest(str(manifest), deep=True) == []
    found = manifest_stats(str(manifest))
    assert (found.rows, found.files, found.without["audio"]) == (14, 12, 2)
    assert found.shortest_s is not None
    assert found.shortest_s > 0
    parts = split_manifest(str(manifest), {"train": 0.5, "valid": 0.5}, out_dir=str(tmp_path / "parts"))
    kept = [u.to_row() for part in parts for u in Manifest.read(part.path) if u.text_only]
    assert sorted(row["id"] for row in kept) == ["sum", "sum2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"response": None}, "needs a prompt and a response"),
        ({"id": ""}, "no id; a row without audio needs one"),
        ({"duration": 2.0}, "audio_filepath is null, but there is an offset or a duration"),
        ({"turns": [["Hi"]]}, r"turns must be a list of \[prompt, answer\]"),
        ({"turns": [["Hi", 5]]}, "turns must hold strings"),
    ],
)
def test_rows_that_are_neither(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({**TEXT, **change}) + "\n")
    with pytest.raises(ManifestError, match=message):
        Manifest.read(str(path))
    path.write_text(json.dumps({"id": "a", "prompt": "?", "response": "!"}) + "\n")
    with pytest.raises(InputError, match="no audio_filepath; expected the path of an audio file, or null"):
        Manifest.read(str(path), spans=True)
