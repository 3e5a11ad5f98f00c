"""One name for many files."""

from pathlib import Path

import pytest

from coat.manifests import storage
from coat.manifests.errors import InputError


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{8..11}.tar", ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{train,dev}/{0..1}", ["train/0", "train/1", "dev/0", "dev/1"]),
        ("m_{0..1,7}.json", ["m_0.json", "m_1.json", "m_7.json"]),
        ("s3://b/audio__OP_0..2_CL_.tar", [f"s3://b/audio_{i}.tar" for i in range(3)]),
        ("{x}.wav", ["{x}.wav"]),
    ],
)
def test_braces(pattern: str, files: list[str]) -> None:
    assert storage.expand(pattern) == files
    assert storage.is_pattern(pattern) == (files != [pattern])


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a-{3..1}.tar", "no range"),
        ("a-{a..c}.tar", "no range"),
        ("a-{0..99999999}.tar", "more than"),
        ("{0..999}{0..999}{0..9}", "10,000,000 files"),
        ("a-{0..1,1..2}.tar", "a-1.tar twice"),
        ("none-*.tar", "no such files"),
    ],
)
def test_patterns_that_are_none(pattern: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        storage.expand(str(tmp_path / pattern))


def test_stars(tmp_path: Path) -> None:
    for name in ("b-10.tar", "b-2.tar", "a.tar", ".b-0.tar", "x/c.tar", "x/.h/d.tar", "what?.wav", "[x].wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert storage.expand(f"{tmp_path}/b-*.tar") == [f"{tmp_path}/b-10.tar", f"{tmp_path}/b-2.tar"]
    assert storage.expand(f"{tmp_path}/what?.wav") == [f"{tmp_path}/what?.wav"]
    assert not storage.is_pattern(f"{tmp_path}/[x].wav")
    assert storage.files_below(str(tmp_path), (".tar",)) == [
        f"{tmp_path}/{name}" for name in ("a.tar", "b-10.tar", "b-2.tar", "x/c.tar")
    ]
    with pytest.raises(InputError, match=r"c-0\.tar, .*c-1\.tar: no such file \(0 of 2 are there\)"):
        storage.check_all_there(storage.expand(f"{tmp_path}/c-{{0..1}}.tar"))
