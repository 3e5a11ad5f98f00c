"""Files by URL."""

import os
import sys
from pathlib import Path

import pytest

from coat.manifests import storage
from coat.manifests.errors import InputError, RunError


@pytest.mark.parametrize("url", ["ftp://h/a", "zip://a.zip", "simplecache::s3://b/a", "zip://a::file:///b", "x://a"])
def test_protocols_that_are_not_accepted(url: str) -> None:
    for call in (storage.protocol, storage.exists, storage.read_bytes, lambda u: storage.resolve("/base", u)):
        with pytest.raises(InputError, match="not accepted"):
            call(url)


def test_web_addresses_are_not_read_unasked() -> None:
    for call in (storage.protocol, storage.exists, storage.read_bytes, lambda u: storage.resolve("/base", u)):
        with pytest.raises(InputError, match="read where --allow-http is given"):
            call("https://example.org/a")


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("/data", "wav/a.wav", "/data/wav/a.wav"),
        ("/data", "../a.wav", "/a.wav"),
        ("/data", "/other/a.wav", "/other/a.wav"),
        ("/data", "s3://b/a.wav", "s3://b/a.wav"),
        ("", "a.wav", "a.wav"),
        ("data", "./a.wav", "data/a.wav"),
        ("file:///data", "../x/a.wav", "/x/a.wav"),
        ("s3://bucket/lists", "../wav/a.wav", "s3://bucket/wav/a.wav"),
        ("s3://bucket", "a.wav", "s3://bucket/a.wav"),
        ("s3://bucket/lists", "../../../a.wav", "s3://bucket/a.wav"),
    ],
)
def test_paths_resolve_against_the_folder_of_their_file(base: str, path: str, expected: str) -> None:
    assert storage.resolve(base, path) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/m.jsonl", "/data"),
        ("m.jsonl", "."),
        ("s3://b/x/m.jsonl", "s3://b/x"),
        ("file:///d/m.jsonl", "file:///d"),
    ],
)
def test_parent(url: str, expected: str) -> None:
    assert storage.parent(url) == expected


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    storage.write_bytes(str(target), b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="No space"):
        storage.write_bytes(str(target), b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_writes_make_folders_and_readable_files(tmp_path: Path) -> None:
    target = tmp_path / "x" / "y" / ("n" * 240 + ".json")  # near the longest name that file systems take
    storage.write_bytes(str(target), b"1")
    assert target.read_bytes() == b"1"
    assert target.stat().st_mode & 0o777 == 0o644
    assert storage.list_names(str(target.parent)) == [target.name]


def test_object_stores() -> None:
    storage.write_bytes("memory://box/a/b.json", b"{}")
    assert storage.read_json("memory://box/a/b.json") == {}
    assert storage.exists("memory://box/a/b.json")
    assert storage.list_names("memory://box/a") == ["b.json"]
    assert storage.list_names("memory://box/none") == []
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("memory://box/none")


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)  # as Python says that there is none
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    for url, extra in (("s3://driverless/a", "s3"), ("gs://driverless/a", "gcs"), ("az://driverless/a", "azure")):
        for call in (storage.exists, storage.read_bytes, storage.list_names, storage.size):
            with pytest.raises(InputError, match=rf"coat-audio\[{extra}\]"):
                call(url)


def test_json_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: expected JSON"):
        storage.read_json(str(tmp_path / "a.json"))


def test_equal_values_give_equal_bytes() -> None:
    assert storage.to_json({"b": 1, "a": "ä"}) == storage.to_json({"a": "ä", "b": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.to_json(float("nan"))


@pytest.mark.parametrize("part", ["/etc", "../x", "a/../../b"])
def test_joined_names_stay_inside(part: str) -> None:
    with pytest.raises(AssertionError):
        storage.join("/base", part)


def test_what_was_removed_is_not_made_again_where_that_is_asked(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(InputError, match="cannot be written there"):
        storage.write_bytes(str(store / "running" / "a.json"), b"{}", parents=False)
    assert not store.exists()
    store.mkdir()
    storage.write_bytes(str(store / "running" / "a.json"), b"{}", parents=False)
    assert (store / "running" / "a.json").read_bytes() == b"{}"
