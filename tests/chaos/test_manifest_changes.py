"""A manifest that grows, shrinks or is shuffled: only its new rows are extracted."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from coat.extractors.expert import Options
from coat.manifests import Manifest, decode
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.extraction.summary import Summary
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.verification import verify
from tests.pipeline.conftest import Corpus
from tests.pipeline.experts import level

ROWS, NEW = 50, 5  # 10 % more


def run(manifest: Path, store: Path) -> Summary:
    (summary,) = extract(
        str(manifest), str(store), ["tests.pipeline.experts:Level"], Options(dtype="float32"), Resources(workers=0)
    )
    return summary


@pytest.mark.parametrize("change", ["grown", "shrunk", "shuffled", "all at once"])
def test_only_new_rows_are_extracted(make_corpus: Corpus, tmp_path: Path, change: str) -> None:
    manifest = make_corpus(ROWS + NEW)
    lines = manifest.read_text().splitlines()
    old, new = lines[:ROWS], lines[ROWS:]
    manifest.write_text("\n".join(old) + "\n")
    assert run(manifest, tmp_path / "store").ok == ROWS
    before = {p: p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()}

    shuffled = random.Random(0).sample(old, ROWS)
    mixed = random.Random(1).sample(old[ROWS // 2 :] + new, ROWS - ROWS // 2 + NEW)
    lines = {"grown": new + old, "shrunk": old[::2], "shuffled": shuffled, "all at once": mixed}[change]
    manifest.write_text("\n".join(lines) + "\n")
    added = [line for line in lines if line in new]
    summary = run(manifest, tmp_path / "store")

    assert (summary.rows, summary.ok) == (len(lines), len(lines))
    assert summary.audio_seconds == pytest.approx(sum(json.loads(line)["duration"] for line in added), abs=1e-3)
    assert bool(summary.units_done) == bool(added)
    after = {p: p.read_bytes() for p in (tmp_path / "store").rglob("*") if p.is_file()}
    assert before.items() <= after.items()  # nothing was touched, and so nothing done twice
    targets = TargetStore(str(tmp_path / "store")).target_set("level")
    assert len(targets) == ROWS + len(added)
    for u in Manifest.read(str(manifest)):
        np.testing.assert_array_equal(targets.read(u).frames, level(decode(u.audio).at(16000)))
    assert not verify(str(tmp_path / "store")).damages
