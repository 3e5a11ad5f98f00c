"""`coat verify SHARDS`: damage is named, mended where that gives the same bytes; tampering is refused."""

import gzip
import io
import json
import multiprocessing
import pickle
import re
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

from coat.manifests import ShardIndex
from coat.manifests.shards.tar import TAR_END, read_tar, sample_bytes, tar_header
from coat.manifests.targets.arrays import from_npy, to_npy
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shard_checks.verification import verify_shards
from coat.pipeline.shards.build import build_shards
from tests.integration.helpers import coat
from tests.pipeline.conftest import Corpus
from tests.pipeline.shard_checks.fresh_process import verify_and_read
from tests.pipeline.shards.test_builds import tree_of

NAMES = ["tests.pipeline.experts:Level", "tests.pipeline.experts:Scarce"]


@pytest.fixture
def store(make_corpus: Corpus, tmp_path: Path) -> tuple[str, str]:
    manifest = make_corpus()
    extract(str(manifest), str(tmp_path / "store"), NAMES, resources=Resources(workers=0))
    return str(manifest), str(tmp_path / "store")


def build(store: tuple[str, str], out: Path, **more: Any) -> ShardIndex:
    return build_shards(*store, ["level", "scarce"], str(out), 200_000, **more)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("layout", ["joint", "sidecar"])
def test_damaged_tars_are_named_and_built_again_one_by_one(layout: str, store: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    index = build(store, out, layout=layout)
    whole = tree_of(out)
    assert len(index.shards) >= 4
    assert verify_shards(str(out)).damages == ()
    targets = out / "sidecars/scarce" if layout == "sidecar" else out
    flip(out / "shard-000000.tar", 3000)
    (out / "shard-000001.tar").unlink()
    tail = (targets / "shard-000002.tar").read_bytes()[:-5000]
    (targets / "shard-000002.tar").write_bytes(tail)
    (out / "shard-000003.tar.idx").unlink()
    damaged = {p: p.stat().st_mtime_ns for p in out.rglob("*.tar")}
    cut = str((targets / "shard-000002.tar").relative_to(out))
    expected = {"shard-000000.tar", "shard-000001.tar", cut, "shard-000003.tar.idx"}
    assert {d.file for d in verify_shards(str(out)).damages} == expected
    assert verify_shards(str(out), workers=2) == verify_shards(str(out))
    found = verify_shards(str(out), repair=True)
    assert {d.file for d in found.damages} == expected
    assert found.repaired == 4
    assert tree_of(out) == whole
    again = {p: p.stat().st_mtime_ns for p in damaged}
    assert len([p for p in damaged if again[p] == damaged[p]]) == len(damaged) - 2  # only the damaged were written
    assert verify_shards(str(out)).damages == ()


def test_what_cannot_be_built_again_is_left_and_said(store: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(store, out)
    flip(out / "shard-000000.tar", 3000)
    damaged = (out / "shard-000000.tar").read_bytes()
    manifest = Path(store[0])
    manifest.write_text(manifest.read_text().replace("What is it?", "What else?"))
    (damage,) = verify_shards(str(out), repair=True).damages
    assert "cannot be built again: the manifest, the store or the audio changed since" in damage.message
    assert (out / "shard-000000.tar").read_bytes() == damaged


def test_strays_and_a_damaged_index_of_samples(store: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(store, out)
    (out / "shard-000099.tar").write_bytes(TAR_END)
    (out / "notes.txt").write_text("")
    flip(out / "samples.parquet", 100)
    damages = [str(d) for d in verify_shards(str(out)).damages]
    assert [d.split(":")[0] for d in damages] == ["samples.parquet", "notes.txt", "shard-000099.tar"]


def test_the_command_line(store: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(store, out)
    assert "no damage found" in coat("verify", out).stdout
    flip(out / "shard-000001.tar", 3000)
    shown = coat("verify", out, status=1).stdout
    assert "shard-000001.tar: " in shown
    assert "`coat verify --repair` builds damaged tars again" in shown
    assert "1 mended" in coat("verify", out, "--repair", status=1).stdout
    assert json.loads(coat("verify", out, "--json").stdout)["damages"] == []


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the pickle ran",)


def add_member(name: str, data: bytes = b"", **fields: Any) -> Callable[[bytes], bytes]:
    def add(tar: bytes) -> bytes:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for key, value in fields.items():
            setattr(info, key, value)
        padded = data + b"\0" * (-len(data) % 512)
        return tar[: -len(TAR_END)] + info.tobuf(tarfile.GNU_FORMAT) + padded + TAR_END

    return add


def replace_target(data: bytes) -> Callable[[bytes], bytes]:
    """Of the first sample, in a tar that is right otherwise."""

    def swap(tar: bytes) -> bytes:
        samples = list(read_tar(io.BytesIO(tar), len(tar), "tar"))
        samples[0].members["level.npy"] = data
        return b"".join(sample_bytes(s.key, s.members) for s in samples) + TAR_END

    return swap


def lie_about_size(tar: bytes) -> bytes:
    first = next(read_tar(io.BytesIO(tar), len(tar), "tar"))
    return tar_header(f"{first.key}.flac", 8**11 - 1) + tar[512:]


def npy_that_says(shape: str) -> bytes:
    text = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(128 - 10 - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def objects() -> bytes:
    sink = io.BytesIO()
    np.save(sink, np.array([Bomb()], dtype=object), allow_pickle=True)
    return sink.getvalue()


TAMPERED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "traversal": (add_member("../outside.json", b"{}"), r"'\.\./outside\.json' is not <key>\.<suffix>"),
    "absolute": (add_member("/tmp/outside.json", b"{}"), "is not <key>.<suffix>"),
    "symlink": (add_member("c1.flac", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "is a link, folder or special"),
    "hard link": (add_member("c1.flac", type=tarfile.LNKTYPE, linkname="c2.flac"), "is a link, folder or special"),
    "device": (add_member("c1.flac", type=tarfile.CHRTYPE), "is a link, folder or special"),
    "long name": (add_member("a" * 200 + ".json", b"{}"), "is a link, folder or special"),
    "prefix": (lambda t: t[:345] + b"x/../.." + t[352:], "wrong checksum"),
    "pickle": (replace_target(pickle.dumps(Bomb())), "not the .npy of a plain array"),
    "objects": (replace_target(objects()), "Python objects; they are never unpickled"),
    "size": (lie_about_size, "more than the file has"),
    "huge array": (replace_target(npy_that_says("(1099511627776, 3)")), "its header says 6597069766656 bytes"),
    "overflow": (replace_target(npy_that_says("(9223372036854775807, 9223372036854775807)")), "its header says"),
    "negative": (replace_target(npy_that_says("(-1, 3)")), "not that of an array of numbers"),
    "code in a header": (
        replace_target(npy_that_says("(__import__('os').getpid(), 3)")),
        "not that of an array of numbers",
    ),
    "long header": (replace_target(npy_that_says("(" + "1," * 20_000 + ")")), "not that of an array of numbers"),
    "slow to match": (replace_target(npy_that_says("(" + "1" * 5000 + "x)")), "not that of an array of numbers"),
    "wrong dim": (replace_target(to_npy(np.zeros((5, 4), np.float16))), r"its spec says float16 \[frames, 3\]"),
    "stray": (add_member("zz.json", b"{}"), "no whole .json|no audio|is not what"),
    "gzip": (lambda t: gzip.compress(t), "not a header of a plain tar|checksum|cut"),
    "behind the end": (lambda t: t + b"x" * 512, "data behind the end"),
}


@pytest.fixture(scope="module")
def fresh_process() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tar_that_was_tampered_with_is_refused(
    name: str, store: tuple[str, str], tmp_path: Path, fresh_process: Executor
) -> None:
    """Even by someone who has put its digest into the index; nothing runs, nothing is written, no memory is taken."""
    tamper, message = TAMPERED[name]
    out = tmp_path / "set" / "out"
    build(store, out)
    tar = out / "shard-000000.tar"
    data = tamper(tar.read_bytes())
    tar.write_bytes(data)
    index = json.loads((out / "index.json").read_text())
    index["shards"][0] |= {"bytes": len(data), "xxh3": xxhash.xxh3_128_hexdigest(data)}
    (out / "index.json").write_text(json.dumps(index))
    before = {str(p) for p in tmp_path.rglob("*")}
    checked = fresh_process.submit(verify_and_read, str(out), str(tmp_path)).result()
    assert checked.is_refused
    assert checked.peak_bytes < 50e6
    assert "shard-000000.tar" in {file for file, _ in checked.damages}
    assert any(re.search(message, said) for _, said in checked.damages), checked.damages
    assert {str(p) for p in tmp_path.rglob("*")} == before


def test_arrays_go_there_and_back() -> None:
    for array in (np.zeros((0, 3), np.float16), np.arange(6, dtype=np.int8).reshape(2, 3), np.float32(2.5)):
        np.testing.assert_array_equal(from_npy(to_npy(np.asarray(array))), array)
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(from_npy(to_npy(fortran)), fortran)
