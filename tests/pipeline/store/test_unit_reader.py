"""Many rows of a unit at once: the frames that Zarr reads, in few requests, and never those of a damaged unit."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coat.manifests import RunError, storage
from coat.pipeline.store import frames_writer, unit_reader
from coat.pipeline.store.frames_reader import open_frames
from coat.pipeline.store.frames_writer import CHUNK_FRAMES, FramesWriter, create_array
from coat.pipeline.store.unit_reader import GAP_BYTES, RANGE_BYTES, UnitFrames, merge_ranges

DIM = 3


def write(path: Path, frames: int, dtype: str = "float16") -> NDArray[Any]:
    values_ND = np.random.default_rng(frames).standard_normal((frames, DIM)).astype(dtype)
    with FramesWriter(path, DIM, dtype) as writer:
        writer.append(values_ND)
        writer.close()
    return values_ND


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.integers(1, 6000), shares=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=6))
def test_spans_are_what_zarr_reads(
    frames: int, shares: list[tuple[float, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over shards of three chunks, and requests that cut chunks apart."""
    size = CHUNK_FRAMES * DIM * 2
    monkeypatch.setattr(frames_writer, "SHARD_BYTES", 3 * size)
    monkeypatch.setattr(unit_reader, "SHARD_BYTES", 3 * size)
    monkeypatch.setattr(unit_reader, "GAP_BYTES", size)
    monkeypatch.setattr(unit_reader, "RANGE_BYTES", size + 100)
    path = Path(tempfile.mkdtemp(dir=tmp_path)) / "a"
    write(path, frames)
    spans = [(int(a * frames), int(b * (frames - int(a * frames)))) for a, b in shares]
    monkeypatch.setattr(unit_reader, "read_frames", lambda *_: pytest.fail("left to Zarr"))
    found = UnitFrames(str(path), frames, DIM, "float16").read(spans)
    array: Any = zarr.open_array(path, mode="r")
    for (first, count), frames_ND in zip(spans, found, strict=True):
        np.testing.assert_array_equal(frames_ND, array[first : first + count])


def test_ranges_near_each_other_are_one_and_long_ones_are_cut() -> None:
    assert list(merge_ranges([(10, 20), (0, 5)])) == [(0, 20)]
    apart = 20 + GAP_BYTES + 1
    assert list(merge_ranges([(0, 20), (apart, apart + 1)])) == [(0, 20), (apart, apart + 1)]
    assert list(merge_ranges([(0, RANGE_BYTES + 1)])) == [(0, RANGE_BYTES), (RANGE_BYTES, RANGE_BYTES + 1)]


def test_a_unit_of_another_writer_is_left_to_zarr(tmp_path: Path) -> None:
    """Zarr's own leaves chunks of zeros out, so that the others lie elsewhere."""
    frames = 3 * CHUNK_FRAMES
    values_ND = np.ones((frames, DIM), np.float16)
    values_ND[:CHUNK_FRAMES] = 0
    array: Any = create_array(tmp_path / "a", frames, DIM, "float16", 3)
    array[:] = values_ND
    (found,) = UnitFrames(str(tmp_path / "a"), frames, DIM, "float16").read([(500, 600)])
    np.testing.assert_array_equal(found, values_ND[500:1100])


@pytest.mark.parametrize("at", [100, -10])  # of a chunk, of the index
def test_damage_is_never_read(at: int, tmp_path: Path) -> None:
    write(tmp_path / "a", 1000)
    shard = tmp_path / "a/c/0/0"
    data = bytearray(shard.read_bytes())
    data[at] ^= 1
    shard.write_bytes(data)
    open_frames.cache_clear()
    with pytest.raises(RunError, match="frames cannot be read"):
        UnitFrames(str(tmp_path / "a"), 1000, DIM, "float16").read([(0, 10)])


def test_a_cut_shard_is_never_read(tmp_path: Path) -> None:
    write(tmp_path / "a", 1000)
    shard = tmp_path / "a/c/0/0"
    shard.write_bytes(shard.read_bytes()[:-4000])
    open_frames.cache_clear()
    with pytest.raises(RunError, match="frames cannot be read"):
        UnitFrames(str(tmp_path / "a"), 1000, DIM, "float16").read([(0, 10)])


def test_a_range_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    assert storage.read_range(str(tmp_path / "f"), 2, 5) == b"234"
    assert storage.read_range(str(tmp_path / "f"), 8, 50) == b"89"
