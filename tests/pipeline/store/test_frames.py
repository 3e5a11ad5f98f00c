"""frames.zarr, written as a stream: the bytes that Zarr writes, whatever the pieces."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from coat.pipeline.store import frames_writer
from coat.pipeline.store.frames_writer import CHUNK_FRAMES, FramesWriter
from tests.integration.helpers import PEAK

ROOT = Path(__file__).parents[3]


def files_of(array: Path) -> dict[str, bytes]:
    return {str(p.relative_to(array)): p.read_bytes() for p in array.rglob("*") if p.is_file()}


def write(path: Path, frames_ND: np.ndarray, cuts: list[int]) -> FramesWriter:
    with FramesWriter(path, frames_ND.shape[1], str(frames_ND.dtype)) as writer:
        for part in np.split(frames_ND, sorted(cuts)):
            writer.append(part)
        writer.close()
    return writer


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_bytes_are_zarrs_own_and_follow_from_the_frames_alone(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    n = data.draw(st.one_of(st.integers(0, 4 * CHUNK_FRAMES), st.sampled_from([512 * k for k in range(9)])))
    dim = data.draw(st.sampled_from([1, 3]))
    dtype = data.draw(st.sampled_from(["float16", "float32"]))
    shard_chunks = data.draw(st.sampled_from([1, 2, 3, 100]))
    cuts = data.draw(st.lists(st.integers(0, n), max_size=6))
    rng = np.random.default_rng(n)
    frames_ND = rng.standard_normal((n, dim)).astype(dtype)
    frames_ND[: n // 2] *= data.draw(st.sampled_from([0, 1]))  # chunks of zeros are chunks too
    root = tmp_path_factory.mktemp("frames")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames_writer, "SHARD_BYTES", shard_chunks * CHUNK_FRAMES * dim * frames_ND.itemsize)
        writer = write(root / "ours", frames_ND, cuts)
    shards = min(shard_chunks, max(1, -(-n // CHUNK_FRAMES)))
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarrs = frames_writer.create_array(root / "zarr", n, dim, frames_ND.dtype, shards)
        if n:
            zarrs[:] = frames_ND
    assert files_of(root / "ours") == files_of(root / "zarr")
    assert (writer.frames, writer.nbytes) == (n, frames_ND.nbytes)
    np.testing.assert_array_equal(np.asarray(zarr.open_array(root / "ours", mode="r")[:]), frames_ND)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_unit(tmp_path: Path) -> None:
    """400 MB of frames in pieces of 1.3 MB, in a process of its own: the peak is of the whole process."""
    script = (
        PEAK
        + """
import sys
from pathlib import Path
import numpy as np
from coat.pipeline.store.frames_writer import FramesWriter
piece = np.ones((512, 1280), np.float16)
with FramesWriter(Path(sys.argv[1]), 1280, "float16") as writer:
    for i in range(305):
        writer.append(piece[: 500 + i % 12])
        before = peak() if i == 4 else before if i > 4 else 0
    writer.close()
print(peak() - before)
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "frames.zarr")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 32 * 2**20
    assert len(list((tmp_path / "frames.zarr" / "c").iterdir())) == 3
