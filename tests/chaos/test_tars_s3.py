"""Tars of a store are read in place: few large requests, whatever the number of clips."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from coat.manifests.sources.importing import import_manifest
from coat.manifests.storage.node_cache import BLOCK_BYTES
from coat.pipeline.shards.build import build_shards
from coat.trainer import iterate_shards
from tests.chaos.s3 import Fault, FaultyS3
from tests.chaos.test_long_remote_audio import temporary
from tests.chaos.test_s3 import bucket, extract_s3
from tests.manifests.sources.importing import jsonl
from tests.manifests.sources.tars import as_json, write_tar
from tests.pipeline.extraction.test_extract import run

__all__ = ["bucket", "temporary"]

pytestmark = pytest.mark.slow

CLIPS, TARS = 120, 2


@pytest.fixture
def tars(bucket: str, tmp_path: Path) -> str:
    """Two tars of 60 clips each, about 14 MB: two blocks. The same clips lie as files in tmp_path."""
    rng = np.random.default_rng(0)
    (tmp_path / "plain").mkdir()
    for n in range(TARS):
        members = []
        for i in range(n, CLIPS, TARS):
            path = tmp_path / f"plain/c{i}.wav"
            soundfile.write(path, rng.uniform(-0.5, 0.5, int(rng.uniform(5.0, 9.0) * 16000)), 16000)
            members += [(f"c{i}.wav", path.read_bytes()), (f"c{i}.json", as_json(response="noise", prompt="What?"))]
        path = write_tar(tmp_path / f"tars/t-{n}.tar", members)
        storage.write_bytes(f"{bucket}/t/{path.name}", path.read_bytes())
    return f"{bucket}/t"


def blocks(tmp_path: Path) -> int:
    return sum(-(-p.stat().st_size // BLOCK_BYTES) for p in (tmp_path / "tars").glob("*.tar"))


def gets(s3: FaultyS3, since: int) -> int:
    return sum(method == "GET" and ".tar" in path.split("?")[0] for method, path, _ in s3.log[since:])


def asked(s3: FaultyS3, since: int) -> int:
    """HEAD requests for a tar."""
    return sum(method == "HEAD" and path.endswith(".tar") for method, path, _ in s3.log[since:])


def forget(temporary: Path) -> None:
    """What this node has downloaded."""
    for folder in temporary.glob("coat-downloads-*"):
        shutil.rmtree(folder)


def test_a_corpus_of_tars_costs_its_blocks(
    tars: str, bucket: str, s3: FaultyS3, temporary: Path, tmp_path: Path
) -> None:
    before = len(s3.log)
    manifest = f"{bucket}/m.jsonl"
    result = import_manifest(f"{tars}/t-{{0..1}}.tar", manifest)
    assert (result.rows, result.format) == (CLIPS, "webdataset")
    assert asked(s3, before) < 10
    assert gets(s3, before) == blocks(tmp_path) == 4  # headers, texts, and the headers of the audio
    rows = list(Manifest.read(manifest))
    assert all(u.audio_filepath.startswith("t/t-") and u.duration for u in rows)
    import_manifest(tars, f"{bucket}/again.jsonl")  # the folder
    import_manifest(f"{tars}/*.tar", f"{bucket}/stars.jsonl")
    texts = [storage.read_bytes(f"{bucket}/{n}.jsonl") for n in ("m", "again", "stars")]
    assert texts[0] == texts[1] == texts[2]

    forget(temporary)
    before = len(s3.log)
    summary = extract_s3(manifest, bucket)
    assert (summary.ok, summary.failed) == (CLIPS, 0)
    assert gets(s3, before) == 4
    assert asked(s3, before) < 10
    lines = [{"id": u.id, "audio_filepath": f"plain/{u.id}.wav", "duration": u.duration} for u in rows]
    lines = [line | {"prompt": "What?", "response": "noise"} for line in lines]
    run(jsonl(tmp_path / "plain.jsonl", *lines), tmp_path / "plain-store")

    forget(temporary)
    before = len(s3.log)
    build_shards(manifest, f"{bucket}/store", ["level"], f"{bucket}/out", 5_000_000)
    assert sum(m == "GET" and "/t/t-" in p for m, p, _ in s3.log[before:]) == 4
    build_shards(
        str(tmp_path / "plain.jsonl"), str(tmp_path / "plain-store"), ["level"], str(tmp_path / "out"), 5_000_000
    )
    theirs = {s.id: s for s in iterate_shards(str(tmp_path / "out"))}
    found = list(iterate_shards(f"{bucket}/out"))
    assert len(found) == len(theirs) == CLIPS
    for sample in found:
        np.testing.assert_array_equal(sample.samples_S, theirs[sample.id].samples_S)
        np.testing.assert_array_equal(sample.targets["level"], theirs[sample.id].targets["level"])


def test_workers_share_the_blocks_of_a_node(
    tars: str, bucket: str, s3: FaultyS3, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(temporary))  # of workers, too
    manifest = f"{bucket}/m.jsonl"
    import_manifest(tars, manifest)
    forget(temporary)
    before = len(s3.log)
    summary = extract_s3(manifest, bucket, workers=2)
    assert (summary.ok, summary.failed) == (CLIPS, 0)
    assert gets(s3, before) == 4


def test_faults_of_the_store(tars: str, bucket: str, s3: FaultyS3, temporary: Path) -> None:
    import_manifest(tars, f"{bucket}/plain.jsonl")
    forget(temporary)
    s3.faults += [Fault(503, "GET", r"\.tar", times=2), Fault("cut", "GET", r"\.tar", skip=1)]
    import_manifest(tars, f"{bucket}/m.jsonl")
    assert all(f.struck == f.times for f in s3.faults)
    assert storage.read_bytes(f"{bucket}/m.jsonl") == storage.read_bytes(f"{bucket}/plain.jsonl")
    with pytest.raises(InputError, match="no such file or folder"):
        import_manifest(f"{bucket}/none.tar", f"{bucket}/m.jsonl")
    with pytest.raises(InputError, match=r"t-2\.tar: no such file \(2 of 3 are there\)"):
        import_manifest(f"{tars}/t-{{0..2}}.tar", f"{bucket}/m.jsonl")
    assert tempfile.gettempdir() == str(temporary)


def test_nemo_tars_and_copies(bucket: str, tmp_path: Path, temporary: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16000)
    data = (tmp_path / "a.wav").read_bytes()
    for n in range(2):
        path = write_tar(tmp_path / f"audio_{n}.tar", [(f"a{n}.wav", data)])
        storage.write_bytes(f"{bucket}/n/{path.name}", path.read_bytes())
    rows = [{"audio_filepath": f"a{n}.wav", "shard_id": n, "text": f"{n}", "duration": 0.1} for n in (0, 1)]
    path = jsonl(tmp_path / "tarred_audio_manifest.json", *rows)
    storage.write_bytes(f"{bucket}/n/{path.name}", path.read_bytes())
    for source in ("n", "n/tarred_audio_manifest.json"):
        result = import_manifest(f"{bucket}/{source}", f"{bucket}/m.jsonl")
        assert (result.format, result.rows) == ("nemo-tarred", 2)
    import_manifest(str(path), str(tmp_path / "m.jsonl"), tars=f"{bucket}/n/audio__OP_0..1_CL_.tar", copy=True)
    assert [Path(u.audio).read_bytes() for u in Manifest.read(str(tmp_path / "m.jsonl"))] == [data, data]
