"""Damage: each kind is found, named, and repaired by the next extract."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from coat.manifests import InputError
from coat.pipeline.store import TargetStore
from coat.pipeline.verification import verify
from tests.pipeline.conftest import Corpus
from tests.pipeline.test_extract import run, tree


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


def unit_of(store: Path) -> Path:
    return sorted(store.rglob("done.json"))[0].parent


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte": (lambda u: flip(u / "frames.zarr" / "c" / "0" / "0", 100), "cannot be read|digest"),
    "torn shard": (lambda u: (u / "frames.zarr" / "c" / "0" / "0").write_bytes(b"torn"), "cannot be read"),
    "no shard": (lambda u: (u / "frames.zarr" / "c" / "0" / "0").unlink(), "digest"),
    "torn zarr.json": (lambda u: (u / "frames.zarr" / "zarr.json").write_text("{"), "cannot be opened"),
    "no zarr.json": (lambda u: (u / "frames.zarr" / "zarr.json").unlink(), "cannot be opened"),
    "flipped parquet": (lambda u: flip(u / "rows.parquet", 200), "digest of done.json"),
    "no parquet": (lambda u: (u / "rows.parquet").unlink(), "cannot be read"),
    "torn done.json": (lambda u: (u / "done.json").write_text('{"rows": 1'), "expected JSON"),
    "empty done.json": (lambda u: (u / "done.json").write_text("{}"), "not a whole done.json"),
    "no done.json": (lambda u: (u / "done.json").unlink(), "no done.json"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_repaired(name: str, make_corpus: Corpus, tmp_path: Path) -> None:
    manifest, store = make_corpus(), tmp_path / "store"
    run(manifest, store)
    whole = tree(store)
    damage, message = DAMAGES[name]
    unit = unit_of(store)
    damage(unit)

    (found,) = verify(str(store)).damages
    assert found.unit == unit.name
    assert re.search(message, found.message)

    assert verify(str(store), repair=True).repaired == 1
    assert run(manifest, store).units_done == 1
    assert tree(store) == whole
    assert not verify(str(store)).damages


def test_an_edited_spec_is_refused(make_corpus: Corpus, tmp_path: Path) -> None:
    run(make_corpus(), tmp_path / "store")
    (spec,) = (tmp_path / "store").rglob("spec.json")
    spec.write_text(spec.read_text().replace('"rate_hz": 100.0', '"rate_hz": 50.0'))
    (found,) = verify(str(tmp_path / "store")).damages
    assert "not its folder's name" in found.message
    with pytest.raises(InputError, match="edited"):
        TargetStore(str(tmp_path / "store")).target_set("level")


def test_no_store_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no target sets"):
        verify(str(tmp_path / "nothing"))
