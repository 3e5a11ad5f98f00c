"""Manifests in parts, and audio inside of tables, go through the whole pipeline."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coat.manifests import Manifest, decode
from coat.manifests.sources.importing import import_manifest
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shards.build import build_shards
from coat.pipeline.status.status import status
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.pipeline.conftest import Corpus
from tests.pipeline.experts import level
from tests.pipeline.extraction.test_extract import HERE, run, tree


def cut(manifest: Path, suffix: str) -> list[Path]:
    """Three parts beside a manifest."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    parts = [manifest.parent / f"part-{i}{suffix}" for i in range(3)]
    for i, part in enumerate(parts):
        own = rows[4 * i : 4 * i + 4]
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(own), part, row_group_size=3)
        else:
            part.write_text("".join(json.dumps(row) + "\n" for row in own))
    return parts


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_store_of_the_whole_is_complete_for_the_parts(suffix: str, make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(), tmp_path / "store"
    run(manifest, store)
    before = tree(store)
    parts = cut(manifest, suffix)
    pattern = f"{manifest.parent}/part-{{0..2}}{suffix}"
    again = run(Path(pattern), store)
    assert (again.ok, again.units_done, again.bytes) == (12, 0, 0)
    assert tree(store) == before
    (counted,) = status(str(store), Manifest.read(pattern, spans=True))
    assert (counted.ok, counted.missing) == (12, 0)
    verified = verify(str(store), sources=Manifest.read(pattern))
    assert (verified.damages, verified.changes) == ((), ())
    shards = {}
    for name, path in (("whole", str(manifest)), ("parts", pattern)):
        build_shards(path, str(store), ["level"], str(tmp_path / name), shard_size=10**7)
        shards[name] = [p.read_bytes() for p in sorted((tmp_path / name).glob("*.tar"))]
    assert shards["parts"] == shards["whole"] != []
    if suffix == ".jsonl":  # an id of two parts is named with both
        parts[1].write_text(parts[0].read_text())
        build = run(Path(pattern), tmp_path / "other")
        assert build.failed == 4
        errors = " ".join(
            str(row.error) for row in TargetStore(str(tmp_path / "other")).target_set("level").rows.values()
        )
        assert f"row 1 of {parts[1]} repeats the id of row 1 of {parts[0]}" in errors


def test_targets_of_audio_in_a_table(make_corpus: Corpus, tmp_path: Path) -> None:
    """Of Parquet and of Arrow: the same as of the files that lie in it."""
    utterances = list(Manifest.read(str(make_corpus())))
    table = pa.table(
        {
            "id": [u.id for u in utterances],
            "audio": [{"bytes": Path(u.audio).read_bytes(), "path": None} for u in utterances],
            "duration": [u.duration for u in utterances],
        }
    )
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=5)
    with pa.ipc.new_stream(str(tmp_path / "d.arrow"), table.schema) as f:
        f.write_table(table, max_chunksize=5)
    for form in ("parquet", "arrow"):
        done = import_manifest(str(tmp_path / f"d.{form}"), str(tmp_path / f"{form}.jsonl"))
        extract(done.path, str(tmp_path / form), ["tests.pipeline.experts:Level"], resources=HERE)
        targets = TargetStore(str(tmp_path / form)).target_set("level")
        for u in utterances:
            expected = level(decode(u.audio).at(16000)).astype(np.float16)
            np.testing.assert_array_equal(targets.read(u.id).frames, expected)
