"""A target depends on its clip alone: not on where units run, nor on what else is in its batch."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coat.extractors.expert import Options
from coat.extractors.experts.wav2vec2 import Wav2Vec2
from coat.manifests import Manifest
from coat.pipeline.cluster.ray_connection import connect
from coat.pipeline.cluster.resources import Cluster, Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.store.target_store import TargetStore
from tests.extractors.tiny import wav2vec2
from tests.pipeline.conftest import Corpus

CLIPS = 64  # some two minutes: several units
# Of a clip's largest value. BLAS sums a matrix product of another shape, or over another number of threads, in
# another order: some ten times float32's 1.2e-7.
TOLERANCE = 1e-5


class Alone(Wav2Vec2):
    """The same model, a clip a batch."""

    batch_seconds = 0.001


def targets(store: Path, manifest: Path, expert: str, resources: Resources, options: Options) -> dict[str, np.ndarray]:
    (summary,) = extract(str(manifest), str(store), [expert], options, resources)
    assert (summary.ok, summary.units_done > 0) == (len(Manifest.read(str(manifest))), True)
    found = TargetStore(str(store)).target_set(summary.expert)
    return {u.id: found.read(u).frames for u in Manifest.read(str(manifest))}


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(a[i] - b[i]).max() / np.abs(a[i]).max()) for i in b)


@pytest.fixture(scope="module")
def threads() -> int:
    """Of a worker in this process: a worker elsewhere must have as many for equal bits."""
    return os.cpu_count() or 1


@pytest.fixture(scope="module")
def ray_here(threads: int) -> Iterator[None]:
    import ray

    started = connect(Cluster(workers=2, cpus_per_worker=threads))
    yield
    if started:
        ray.shutdown()


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    return str(wav2vec2(tmp_path / "model", kind="wav2vec2-layer"))


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("expert", ["wav2vec2", "mel", "tests.pipeline.experts:Level"])
def test_0_1_and_2_workers_give_equal_bits(
    expert: str, checkpoint: str, make_corpus: Corpus, threads: int, tmp_path: Path
) -> None:
    manifest = make_corpus(CLIPS)
    options = Options(checkpoint=checkpoint if expert == "wav2vec2" else None, dtype="float32")
    here = targets(tmp_path / "0", manifest, expert, Resources(workers=0, device="cpu"), options)
    for workers in (1, 2):
        resources = Resources(workers=workers, device="cpu", cpus_per_worker=threads)
        there = targets(tmp_path / str(workers), manifest, expert, resources, options)
        for identity, frames_ND in here.items():
            np.testing.assert_array_equal(there[identity], frames_ND, err_msg=f"{identity}, {workers} workers")


@pytest.mark.parametrize("change", ["alone", "half"])
def test_batch_mates_and_units_change_no_more_than_rounding(
    change: str, checkpoint: str, make_corpus: Corpus, tmp_path: Path
) -> None:
    manifest = make_corpus(CLIPS)
    options, resources = Options(checkpoint=checkpoint, dtype="float32"), Resources(workers=0, device="cpu")
    whole = targets(tmp_path / "whole", manifest, "wav2vec2", resources, options)
    expert, rows = "wav2vec2", manifest
    if change == "alone":
        expert = "tests.pipeline.extraction.test_invariance:Alone"
    else:  # every other row: other units, other batches
        rows = manifest.parent / "half.jsonl"
        Manifest(list(Manifest.read(str(manifest)))[::2]).write(str(rows))
    other = targets(tmp_path / "other", rows, expert, resources, options)
    assert largest_difference(whole, other) < TOLERANCE
    assert largest_difference(whole, {i: np.roll(x, 1, axis=0) for i, x in other.items()}) > 1e-2  # a frame off shows
