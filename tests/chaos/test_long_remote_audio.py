"""Spans of one long file of a store, in several units: the file is downloaded once on a node, and kept for a while."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests import storage
from coat.manifests.storage import node_cache
from coat.manifests.storage.node_cache import read_once_a_node
from coat.pipeline.store.target_store import TargetStore
from tests.chaos.s3 import FaultyS3
from tests.chaos.test_s3 import bucket, extract_s3, put_corpus, tree_s3
from tests.disks import mounted
from tests.pipeline.extraction.test_extract import run, tree

__all__ = ["bucket"]

SPANS = 40


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the test."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def spans(tmp_path: Path) -> Path:
    """400 s of noise in spans of 10 s: seven units."""
    samples_T = np.random.default_rng(0).uniform(-0.5, 0.5, SPANS * 160_000).astype(np.float32)
    (tmp_path / "corpus").mkdir()
    soundfile.write(tmp_path / "corpus/long.flac", samples_T, 16000)
    rows = [{"id": f"s{i}", "audio_filepath": "long.flac", "offset": i * 10.0, "duration": 10.0} for i in range(SPANS)]
    (tmp_path / "corpus/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "corpus/manifest.jsonl"


def downloads(s3: FaultyS3, since: int) -> int:
    return sum(method == "GET" and path.endswith(".flac") for method, path, _ in s3.log[since:])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_spans_of_one_file_in_several_units_cost_one_download(
    workers: int, spans: Path, bucket: str, s3: FaultyS3, tmp_path: Path
) -> None:
    run(spans, tmp_path / "store")
    remote = put_corpus(spans, bucket)
    before = len(s3.log)
    summary = extract_s3(remote, bucket, workers=workers)
    assert (summary.ok, summary.failed) == (SPANS, 0)
    assert len(TargetStore(f"{bucket}/store").target_set("level").done) > 4
    assert downloads(s3, before) == 1
    assert tree_s3(bucket) == tree(tmp_path / "store")


def test_a_file_that_changed_or_was_damaged_is_downloaded_again(bucket: str, s3: FaultyS3, temporary: Path) -> None:
    url, before = f"{bucket}/a.flac", len(s3.log)
    for content, expected in ((b"one" * 1000, 1), (b"two" * 1000, 2)):
        storage.write_bytes(url, content)
        assert read_once_a_node(url) == read_once_a_node(url) == content
        assert downloads(s3, before) == expected
    for path in temporary.glob("coat-downloads-*/*"):
        path.write_bytes(path.read_bytes().replace(b"two", b"owt", 1))
    assert read_once_a_node(url) == b"two" * 1000
    assert downloads(s3, before) == 3
    with pytest.raises(FileNotFoundError):
        read_once_a_node(f"{bucket}/none.flac")


def test_what_was_not_used_for_longest_goes_first(
    bucket: str, s3: FaultyS3, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_cache, "KEPT_BYTES", 250_000)
    for name in "abc":
        storage.write_bytes(f"{bucket}/{name}.flac", name.encode() * 100_000)
    for at, name in enumerate("abac"):  # c does not fit beside a and b
        read_once_a_node(f"{bucket}/{name}.flac")
        for path in temporary.glob("coat-downloads-*/*"):  # clocks of file systems are coarse
            if path.stat().st_mtime > 1e9:
                os.utime(path, (at + 1, at + 1))
        monkeypatch.setattr(node_cache, "KEPT_S", 1e12)
    before = len(s3.log)
    read_once_a_node(f"{bucket}/a.flac")
    assert downloads(s3, before) == 0
    read_once_a_node(f"{bucket}/b.flac")
    assert downloads(s3, before) == 1
    assert sum(path.stat().st_size for path in temporary.glob("coat-downloads-*/*")) <= 250_000 + 100


def test_a_full_disk_costs_downloads_and_nothing_else(
    bucket: str, s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, before = f"{bucket}/a.flac", len(s3.log)
    storage.write_bytes(url, b"x" * 2_000_000)
    with mounted(tmp_path / "disk", "1m") as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        monkeypatch.setattr(node_cache, "kept_bytes", lambda: 10**9)  # the disk says so, and is full a moment later
        assert read_once_a_node(url) == read_once_a_node(url) == b"x" * 2_000_000
        assert not [p for p in disk.glob("coat-downloads-*/*") if not p.name.startswith("lock-")]
    assert downloads(s3, before) == 2
