"""What lies on S3 after an upload, seen by the server itself (faults of the network: test_s3.py)."""

import importlib.util
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

if not all(importlib.util.find_spec(name) for name in ("moto", "flask", "s3fs")):
    pytest.skip("needs moto[server] and s3fs", allow_module_level=True)

from coat.manifests import files
from coat.pipeline.commit import commit_unit
from coat.pipeline.extraction import extract
from coat.pipeline.verification import verify
from tests.pipeline.conftest import Corpus
from tests.pipeline.test_extract import HERE, run, tree


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    name = f"b{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


def test_a_large_shard_is_put_at_once(bucket: str) -> None:
    """No multipart upload, of which a kill would leave parts that nobody sees and somebody pays."""
    frames_ND = np.ones((60_000, 1000), np.float16)  # 120 MB; s3fs would cut it at 100 MB
    files.write_bytes(f"{bucket}/set/spec.json", b"{}")
    commit_unit(f"{bucket}/set", "u-1", frames_ND, [], {})
    fs, path = files.filesystem(f"{bucket}/set/units/u-1/frames.zarr/c/0/0")
    info = fs.info(path)
    assert info["size"] > frames_ND.nbytes
    assert "-" not in info["ETag"]  # what a multipart upload leaves in it


def test_damage_on_s3_is_found_dropped_and_made_again(bucket: str, make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(24), f"{bucket}/store"
    run(manifest, tmp_path / "whole")
    names = ["tests.pipeline.experts:Level"]
    extract(str(manifest), store, names, where=HERE)
    fs, root = files.filesystem(store)
    shard = min(p for p in fs.find(root) if "/c/" in p)
    fs.pipe_file(shard, fs.cat_file(shard)[:-8])
    (found,) = verify(store, repair=True).damages
    assert found.unit
    assert found.unit in shard
    (summary,) = extract(str(manifest), store, names, where=HERE)
    assert summary.units_done == 1
    remote = {p[len(root) + 1 :]: fs.cat_file(p) for p in fs.find(root) if not p.endswith("done.json")}
    assert remote == tree(tmp_path / "whole")
    assert not verify(store).damages
