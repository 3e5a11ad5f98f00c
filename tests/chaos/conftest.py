"""The corpora of the pipeline's tests, and one whose row c3 is poison."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from ray.cluster_utils import Cluster

from tests.chaos.s3 import FaultyS3, serve_s3
from tests.pipeline.conftest import Corpus, make_corpus, many, ray_here

__all__ = ["make_corpus", "many", "ray_here"]


@pytest.fixture
def poisoned(make_corpus: Corpus) -> Path:
    """6 rows, of which c3 peaks at 1 and the others at 0.5."""
    manifest = make_corpus(6)
    soundfile.write(manifest.parent / "audio" / "c3.flac", np.full(16000, 1.0, np.float32), 16000)
    rows = manifest.read_text().splitlines()
    rows[3] = rows[3][: rows[3].index('"duration"')] + '"duration": 1.0}'
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head without CPUs, so that no worker lives beside the driver."""
    import ray

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyS3]:
    with serve_s3() as s3:
        yield s3


@pytest.fixture
def s3(server: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """Told to coat as a user tells it: by the environment alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("COAT_STORE_RETRY_S", "15")  # not two minutes, until it gives up
    server.faults.clear()
    server.go_on.clear()
    yield server
    server.faults.clear()
