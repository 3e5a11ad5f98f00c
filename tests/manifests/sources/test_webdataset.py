"""WebDataset tars are read in place: samples as webdataset itself groups them, and what is not read is named."""

import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webdataset.compat import WebDataset

from coat.manifests import addresses
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError
from coat.manifests.sources.importing import ImportResult, import_manifest
from coat.manifests.sources.tars.members import Member, open_tar
from coat.manifests.sources.tars.samples import PassedOver, Sample, read_samples
from tests.manifests.conftest import encoded, sine
from tests.manifests.sources.importing import imported, problems
from tests.manifests.sources.tars import add, as_json, wav, write_tar

WAV = wav()
FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def done(source: Path | str, out: Path, **options: Any) -> ImportResult:
    return import_manifest(str(source), str(out), **options)


def grouped_by_webdataset(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    samples = WebDataset(str(path), shardshuffle=False, empty_check=False)
    return [(s["__key__"], {k: v for k, v in s.items() if not k.startswith("__")}) for s in samples]


def grouped_here(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    with open_tar(str(path)) as tar:
        found = [s for s in read_samples(tar, PassedOver()) if isinstance(s, Sample)]
        return [(s.key, {suffix: tar.read(m) for suffix, m in s.members.items()}) for s in found]


@pytest.mark.parametrize("form", FORMATS)
def test_samples_are_those_of_webdataset(form: str, tmp_path: Path) -> None:
    members = [
        ("a.wav", WAV),
        ("a.json", as_json(text="one", n=1)),
        ("./b.WAV", wav(0.2)),
        ("./b.Txt", b"two"),
        ("deep/er.x/c.left.wav", WAV),
        ("deep/er.x/c.cls", b"7"),
        ("d" * 80 + "/" + "d" * 80 + ".wav", WAV),
        ("__meta__/x.wav", WAV),
        ("README", b"no suffix"),
        ("e.wav", WAV),
    ]
    path = write_tar(tmp_path / "a.tar", members, FORMATS[form])
    assert grouped_here(path) == grouped_by_webdataset(path)
    result = done(path, tmp_path / "m.jsonl")
    rows = list(Manifest.read(str(tmp_path / "m.jsonl")))
    assert [u.id for u in rows] == ["a", "b", "deep/er.x/c", "d" * 80 + "/" + "d" * 80, "e"]
    assert [(u.text, u.extra) for u in rows[:3]] == [("one", {"n": 1}), ("two", {}), (None, {"cls": 7})]
    assert [u.duration for u in rows] == [0.1, 0.2, 0.1, 0.1, 0.1]
    for u, (_, found) in zip(rows, grouped_by_webdataset(path), strict=True):
        data = next(v for k, v in found.items() if k.endswith("wav"))
        opened = addresses.parse(u.audio).open()
        assert isinstance(opened, io.BytesIO)
        assert opened.getvalue() == data
        assert (decode(u.audio).samples_T == soundfile.read(io.BytesIO(data), dtype="float32")[0]).all()
    assert "1 __NAME__ (webdataset's own), 1 without a suffix" in " ".join(result.notes)


NAMES = st.sampled_from(["a", "b", "c/a", "b.x", "ü", "n" * 120])
SUFFIXES = st.sampled_from(["wav", "txt", "l.wav", "json", "npy"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.tuples(NAMES, SUFFIXES), max_size=12, unique=True),
    form=st.sampled_from(list(FORMATS.values())[:2]),
)
def test_any_order_of_members_is_grouped_as_webdataset_groups_it(
    names: list[tuple[str, str]], form: int, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{n}.{s}", f"{n} {s}".encode()) for n, s in names], form)
    theirs = grouped_by_webdataset(path)
    first_of_key = {
        key: i for i, (key, _) in reversed(list(enumerate(theirs)))
    }  # they give a key that comes back twice
    assert grouped_here(path) == [s for i, s in enumerate(theirs) if first_of_key[s[0]] == i]


def test_columns(tmp_path: Path) -> None:
    said = {"id": "other", "text": "spoken", "start": 3.0, "end": 4.0, "audio": "orig.wav", "duration": 0.1, "x": [1]}
    path = write_tar(
        tmp_path / "a.tar",
        [
            ("a.wav", WAV),
            ("a.json", as_json(**said)),
            ("a.txt", " in the text\n".encode("utf-8-sig")),
            ("a.en.txt", b"english"),
            ("a.meta.json", b"[1, 2]"),
            ("a.cls", b"dog"),
            ("a.npy", b"x"),
            ("a.emb.npy", b"x"),
        ],
    )
    result = done(path, tmp_path / "m.jsonl")
    (u,) = Manifest.read(str(tmp_path / "m.jsonl"))
    assert (u.id, u.text, u.offset, u.duration) == ("a", "in the text", 0.0, 0.1)
    assert u.extra == {
        "original_id": "other", "original_text": "spoken", "original_start": 3.0, "original_end": 4.0,
        "audio": "orig.wav", "x": [1], "en.txt": "english", "meta.json": [1, 2], "cls": "dog",
    }  # fmt: skip
    notes = "\n".join(result.notes)
    assert "members of tars that are not used: 2 .npy" in notes
    assert "a member is taken as the whole clip: start (1), end (1); --map offset=NAME" in notes
    (u,) = imported(path, tmp_path / "m.jsonl", column_map={"text": "en.txt"})
    assert u.text == "english"
    said = {"start": 0.02, "end": 0.05}
    write_tar(path, [("a.wav", WAV), ("a.json", as_json(**said))])
    (u,) = imported(path, tmp_path / "m.jsonl", column_map={"offset": "start", "end": "end"})
    assert (u.offset, u.duration) == (0.02, 0.03)


def test_conversations_in_json(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "<audio>What?"}, {"role": "assistant", "content": "A dog."}]
    path = write_tar(tmp_path / "a.tar", [("a.wav", WAV), ("a.json", as_json(messages=said, audios=["b.wav"]))])
    (u,) = imported(path, tmp_path / "m.jsonl")
    assert (u.id, u.prompt, u.response, u.duration) == ("a", "What?", "A dog.", 0.1)


def test_several_audio_members_of_a_key(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [
            *(("call.left.wav", WAV), ("call.left.txt", b"hello"), ("call.right.wav", wav(0.2))),
            *(("call.right.txt", b"yes"), ("call.json", as_json(day=1))),
            *(("two.flac", encoded(sine(0.1), "FLAC", "PCM_16")), ("two.wav", WAV), ("two.txt", b"both")),
        ],
    )
    result = done(path, tmp_path / "m.jsonl")
    rows = list(Manifest.read(str(tmp_path / "m.jsonl")))
    assert [(u.id, u.text, u.extra) for u in rows] == [
        ("call.left", "hello", {"day": 1}),
        ("call.right", "yes", {"day": 1}),
        ("two.flac", "both", {}),
        ("two.wav", "both", {}),
    ]
    assert "2 samples have several audio members, each a row of its own: call.left, call.right" in result.notes


def test_bad_samples_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "good.wav", WAV)
        add(tar, "silent.txt", b"no audio")
        add(tar, "json.wav", WAV)
        add(tar, "json.json", b"{no")
        add(tar, "list.wav", WAV)
        add(tar, "list.json", b"[]")
        add(tar, "latin.wav", WAV)
        add(tar, "latin.txt", "café".encode("latin-1"))
        add(tar, "good.txt", b"late")
        add(tar, "twice.wav", WAV)
        add(tar, "twice.wav", WAV)
        add(tar, "link.wav", type=tarfile.SYMTYPE, linkname="good.wav")
        add(tar, "link.txt", b"of a link")
        add(tar, "hard.wav", type=tarfile.LNKTYPE, linkname="good.wav")
        add(tar, "pipe.wav", type=tarfile.FIFOTYPE)
        add(tar, "folder", type=tarfile.DIRTYPE)
        add(tar, "._good.wav", b"of macOS")
        add(tar, "last.wav", WAV)
    assert problems(path, tmp_path / "m.jsonl") == [
        "2: silent.txt: no audio beside it (its sample has .txt)",
        "3: json.json: not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        "5: list.json: list; expected a JSON object",
        "7: latin.txt: not UTF-8 (byte 3); save the text as UTF-8",
        "9: good.txt: its key 'good' was there before; members of a sample must follow each other, and samples of two "
        "keys must differ before the first dot of their names",
        "10: twice.wav: is there twice in one sample",
        "12: link.wav: a link to good.wav; it cannot be read in place: pack the tar anew with plain files",
        "14: hard.wav: a link to good.wav; it cannot be read in place: pack the tar anew with plain files",
        "15: pipe.wav: no plain file (type b'6'); it cannot be read in place: pack the tar anew with plain files",
    ]
    result = done(path, tmp_path / "m.jsonl", skip_bad=True)
    assert [u.id for u in Manifest.read(str(tmp_path / "m.jsonl"))] == ["good", "last"]
    assert "members of tars that are not used: 1 hidden (._NAME, .NAME)" in result.notes


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.wav").open("wb") as f:
        f.write(WAV)
        f.truncate(10 * 2**20)
    (tmp_path / "b.wav").write_bytes(WAV)
    for form in ("gnu", "posix"):
        arguments = ["tar", "--sparse", f"--format={form}", "-cf", "a.tar", "a.wav", "b.wav"]
        subprocess.run(arguments, cwd=tmp_path, check=True)
        assert (tmp_path / "a.tar").stat().st_size < 2**20
        (line,) = problems(tmp_path / "a.tar", tmp_path / "m.jsonl")
        assert line.startswith("1: a.wav: stored with holes (sparse)")
        done(tmp_path / "a.tar", tmp_path / "m.jsonl", skip_bad=True)
        assert [u.id for u in Manifest.read(str(tmp_path / "m.jsonl"))] == ["b"]
        (tmp_path / "m.jsonl").unlink()


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar", "v7"])
def test_tars_of_gnu_tar(form: str, tmp_path: Path) -> None:
    names = ["a.wav", "Grüße.wav"] + ([] if form in ("ustar", "v7") else ["x" * 150 + ".wav", "ü" * 90 + ".wav"])
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(wav(0.1 + 0.1 * i))
    arguments = ["tar", f"--format={form}", "-cf", "a.tar", *(f"./{name}" for name in names)]
    subprocess.run(arguments, cwd=tmp_path, check=True)
    rows = imported(tmp_path / "a.tar", tmp_path / "m.jsonl")
    assert [(u.id, u.duration) for u in rows] == [(n[:-4], round(0.1 + 0.1 * i, 6)) for i, n in enumerate(names)]


def test_a_header_whose_name_is_another_is_read_as_bytes(tmp_path: Path) -> None:
    """As libarchive shortens long names: the whole one is in a PAX header alone."""
    path = write_tar(tmp_path / "a.tar", [("é" + "x" * 150 + ".wav", WAV)])
    data = bytearray(path.read_bytes())
    at = data.index(b"?" + b"x" * 99)
    data[at : at + 100] = b"short/PaxHeader".ljust(100, b"\0")
    header = data[at : at + 512]
    header[148:156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(header)
    path.write_bytes(data)
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["é" + "x" * 150 + ".wav"]
    (u,) = imported(path, tmp_path / "m.jsonl")
    assert u.id == "é" + "x" * 150
    assert u.audio_filepath.endswith(f"#offset=1536&size={len(WAV)}")
    assert decode(u.audio).seconds == 0.1


def test_truncated_tars(tmp_path: Path) -> None:
    """Cut anywhere, what is whole is read, and the cut is named."""
    members = [("a.wav", WAV), ("a.txt", b"one"), ("b.wav", WAV), ("b.txt", b"two")]
    path = write_tar(tmp_path / "whole.tar", members)
    whole = path.read_bytes()
    with open_tar(str(path)) as tar:
        starts = {m.name: m.offset for m in tar.members() if isinstance(m, Member)}
    cut, out = tmp_path / "a.tar", tmp_path / "m.jsonl"
    for at, ids, said in (
        (starts["a.wav"] + 10, [], "a.wav: the tar ends"),
        (starts["a.txt"] - 300, [], "the tar ends in the middle of a header"),
        (starts["a.txt"] + 1, [], "a.txt: the tar ends 2 bytes before"),
        (starts["b.wav"] + 700, ["a"], "b.wav: the tar ends"),
        (starts["b.txt"] - 100, ["a"], "the tar ends in the middle of a header"),
    ):
        cut.write_bytes(whole[:at])
        lines = problems(cut, out)
        assert any(said in line for line in lines), lines
        if ids:
            done(cut, out, skip_bad=True)
            assert [u.id for u in Manifest.read(str(out))] == ids
            out.unlink()
    cut.write_bytes(whole[: starts["b.wav"] - 512])  # nothing tells, but for the end that is not there
    result = done(cut, out)
    assert (result.rows, result.notes[-1]) == (1, f"{cut}: no end-of-archive blocks; it may be cut short")


def test_damaged_headers(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(f"{n}.wav", WAV) for n in "abc"])
    data = bytearray(path.read_bytes())
    at = data.index(b"b.wav")
    data[at : at + 5] = b"\xff" * 5
    path.write_bytes(data)
    first, second = problems(path, tmp_path / "m.jsonl")
    left = len(data) - at
    assert f"a damaged header at byte {at} (bad checksum); {left} bytes from there on are not read" in first
    assert "a.wav: members of its sample may be in what is not read" in second
    path.write_bytes(b"RIFF" + b"x" * 2000)
    (line,) = problems(path, tmp_path / "m.jsonl")
    assert "no tar" in line


def test_joined_tars_and_zeros_at_the_end(tmp_path: Path) -> None:
    for n in "ab":
        write_tar(tmp_path / f"{n}.tar", [(f"{n}.wav", WAV), (f"{n}.txt", n.encode())])
    joined = (tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes()
    (tmp_path / "c.tar").write_bytes(joined + bytes(3_000_000))
    result = done(tmp_path / "c.tar", tmp_path / "m.jsonl")
    assert [(u.id, u.text) for u in Manifest.read(str(tmp_path / "m.jsonl"))] == [("a", "a"), ("b", "b")]
    assert any("2 members behind its first end (tars that were joined)" in note for note in result.notes)
    (tmp_path / "c.tar").write_bytes(joined + b"no tar" * 200)
    (line, *_) = problems(tmp_path / "c.tar", tmp_path / "n.jsonl")
    assert f"1200 bytes from byte {len(joined)} on, behind the end of the tar, are no tar" in line


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    for name, mode in (("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("plain.tar", "w:gz"), ("a.tar.xz", "w:xz")):
        with tarfile.open(tmp_path / name, mode) as tar:  # type: ignore[call-overload]
            add(tar, "a.wav", WAV)
        with pytest.raises(
            InputError, match=r"a compressed tar, of which no member can be read by itself; .* FILE$"
        ) as e:
            done(tmp_path / name, tmp_path / "m.jsonl")
        assert ("unxz" if name.endswith("xz") else "gunzip") in str(e.value) or name.endswith(".tar.xz")
    assert not (tmp_path / "m.jsonl").exists()


def test_sizes_and_headers_that_lie(tmp_path: Path) -> None:
    """No loop, no memory, no traceback."""
    out = tmp_path / "m.jsonl"
    for fields, said in (
        ({"size": "-1024"}, "damaged|no tar"),
        ({"size": str(2**60)}, "the tar ends"),
        ({"path": "../../evil.wav"}, ""),
    ):
        info = tarfile.TarInfo("a.wav")
        info.size, info.pax_headers = len(WAV), fields
        header = info.tobuf(tarfile.PAX_FORMAT)
        (tmp_path / "a.tar").write_bytes(header + WAV + bytes(-len(WAV) % 512 + 1024))
        if said:
            lines = problems(tmp_path / "a.tar", out)
            assert any(s in lines[0] for s in said.split("|")), lines
        else:
            (u,) = imported(tmp_path / "a.tar", out)
            assert (u.id, decode(u.audio).seconds) == ("../../evil", 0.1)
            (u,) = imported(tmp_path / "a.tar", out, copy=True)  # a name is never a path
            assert Path(u.audio).resolve().parent == tmp_path / "m_audio"
            out.unlink()
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 2**40
    (tmp_path / "a.tar").write_bytes(long.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    (line,) = problems(tmp_path / "a.tar", out)
    assert "a header of 1099511627776 bytes" in line
    chain = tarfile.TarInfo("x")
    chain.type, chain.size = tarfile.XHDTYPE, 0
    (tmp_path / "a.tar").write_bytes(chain.tobuf(tarfile.USTAR_FORMAT) * 5000)
    (line,) = problems(tmp_path / "a.tar", out)
    assert "no tar" in line


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_a_line_or_harmless(data: st.DataObject, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("ü" * 60 + ".wav", b"RIFF" + b"x" * 600), ("b.txt", b"b")])
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, 4000))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with open_tar(str(path)) as tar:
        for found in tar.members():
            assert not isinstance(found, Member) or 0 <= found.offset <= found.offset + found.nbytes <= len(whole)


def test_equal_keys_of_two_tars(tmp_path: Path) -> None:
    for n in range(2):
        write_tar(tmp_path / f"t/part-{n}.tar", [("a.wav", WAV)])
    (line,) = problems(tmp_path / "t", tmp_path / "m.jsonl")
    assert line.endswith("ids must be unique; --tar-in-id puts the name of its tar before each id")
    rows = imported(tmp_path / "t", tmp_path / "m.jsonl", tar_in_id=True)
    assert [u.id for u in rows] == ["part-0/a", "part-1/a"]


def test_patterns_and_folders(tmp_path: Path) -> None:
    for n in range(3):
        write_tar(tmp_path / f"t/deep/p-{n:03d}.tar", [(f"{n}.wav", WAV), (f"{n}.json", as_json(n=n))])
    expected = [("0", 0), ("1", 1), ("2", 2)]
    for source in ("t/deep/p-{000..002}.tar", "t/deep/*.tar", "t", "t/deep", "t/deep/p-_OP_000..002_CL_.tar"):
        assert [(u.id, u.extra["n"]) for u in imported(tmp_path / source, tmp_path / "m.jsonl")] == expected
    with pytest.raises(InputError, match="3 of 4 are there"):
        done(tmp_path / "t/deep/p-{000..003}.tar", tmp_path / "m.jsonl")
    (tmp_path / "t/x.wav").write_bytes(WAV)  # now it is a folder of audio, and the tars are named
    assert any("3 .tar" in note for note in done(tmp_path / "t", tmp_path / "m.jsonl").notes)


def test_copies_beside_the_manifest(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("x/a.wav", WAV), ("y/a.wav", wav(0.2)), ("y/a.txt", b"t")])
    rows = imported(path, tmp_path / "m.jsonl", copy=True)
    assert [(u.id, u.audio_filepath, u.duration) for u in rows] == [
        ("x/a", "m_audio/a.wav", 0.1),
        ("y/a", "m_audio/a-2.wav", 0.2),
    ]
    assert Path(rows[1].audio).read_bytes() == wav(0.2)


def test_addresses_move_with_the_manifest(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "c/a.tar", [("a.wav", WAV)])
    done(path, tmp_path / "c/m.jsonl")
    assert json.loads((tmp_path / "c/m.jsonl").read_text())["audio_filepath"].startswith("a.tar#offset=512&")
    (tmp_path / "c").rename(tmp_path / "d")
    (u,) = Manifest.read(str(tmp_path / "d/m.jsonl"))
    assert decode(u.audio).seconds == 0.1
