"""Reading and writing manifests; ids and keys."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.parsing import KNOWN_KEYS
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import SHOWN, InputError, ManifestError


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def test_a_full_row(tmp_path: Path) -> None:
    row = {
        "id": "a1",
        "audio_filepath": "wav/a.flac",
        "offset": 0.5,
        "duration": 3.2,
        "text": "hello",
        "prompt": "What is said?",
        "response": "hello",
        "choices": ["hello", "bye"],
        "speaker": "bob",
        "nested": {"x": [1, None]},
    }
    path = write(tmp_path / "m.jsonl", row)
    (u,) = Manifest.read(path)
    assert u.to_row() == row
    assert u.audio == str(tmp_path / "wav/a.flac")
    assert (u.row, u.extra) == (1, {"speaker": "bob", "nested": {"x": [1, None]}})
    assert Manifest.read(path).seconds == 3.2


def test_nemo_and_question_rows(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.jsonl",
        {"audio_filepath": "/abs/a.wav", "duration": 1, "text": ""},
        {"audio_filepath": "b.wav", "question": "Q?", "answer": "A", "prompt": None, "id": 7},
    )
    a, b = Manifest.read(path)
    assert (a.id, a.audio, a.text, a.duration) == ("/abs/a", "/abs/a.wav", "", 1.0)
    assert (b.id, b.prompt, b.response, b.extra) == ("7", "Q?", "A", {})


def test_ids_of_unnamed_rows_are_unique_and_stay(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"audio_filepath": p} for p in ("a.wav", "a.flac", "a.wav", "b.wav")]
    rows += [{"audio_filepath": "a.wav", "offset": 1.5}, {"audio_filepath": "c.wav", "id": "b"}]
    path = write(tmp_path / "m.jsonl", *rows)
    ids = [u.id for u in Manifest.read(path)]
    assert ids == ["a", "a#2", "a#3", "b#2", "a@1.500", "b"]
    Manifest.read(path).write(path)
    assert [u.id for u in Manifest.read(path)] == ids


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "expected an object, found list"),
        ("null", "expected an object, found NoneType"),
        ("{}", "no audio_filepath"),
        ('{"audio_filepath": ""}', "no audio_filepath"),
        ('{"audio_filepath": 5}', "no audio_filepath"),
        ('{"audio_filepath": "https://example.org/a.wav"}', "web addresses are read where --allow-http is given"),
        ('{"audio_filepath": "a.wav", "text": 5}', "text is int; expected a string"),
        ('{"audio_filepath": "a.wav", "answer": ["x"]}', "response is list; expected a string"),
        ('{"audio_filepath": "a.wav", "id": true}', "id is bool"),
        ('{"audio_filepath": "a.wav", "id": 1.5}', "id is float"),
        ('{"audio_filepath": "a.wav", "duration": "3 s"}', "duration is '3 s'; expected seconds"),
        ('{"audio_filepath": "a.wav", "duration": NaN}', "duration is 'nan'"),
        ('{"audio_filepath": "a.wav", "offset": 1e999}', "offset is 'inf'"),
        ('{"audio_filepath": "a.wav", "offset": true}', "offset is 'True'"),
        ('{"audio_filepath": "a.wav", "duration": 1' + "0" * 400 + "}", "expected seconds as a number"),
        ('{"audio_filepath": "a.wav", "choices": "yes"}', "choices must be a list"),
        ('{"audio_filepath": "a.wav", "choices": [1]}', "choices must be a list"),
        ('{"audio_filepath": "a.wav", "id": "\\ud800"}', "surrogate"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_a_bad_row_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "m.jsonl", {"audio_filepath": "ok.wav"}, line, {"audio_filepath": "ok.wav"})
    with pytest.raises(ManifestError, match=re.escape(message)) as e:
        Manifest.read(path)
    (problem,) = e.value.problems
    assert (problem.file, problem.row) == (path, 2)
    assert str(problem).startswith(f"{path}:2: ")
    assert "\n" not in str(problem)
    assert len(problem.message) < 200


def test_what_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"audio_filepath": "a.wav"}\n{"audio_filepath": "\xe9.wav"}\n')
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: not UTF-8"):
        Manifest.read(str(tmp_path / "m.jsonl"))


@pytest.mark.parametrize("tail", ['{"audio_filepath": "b.w', '{"audio_filepath": "b.wav"', "{"])
def test_a_half_written_last_line(tmp_path: Path, tail: str) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav"}\n' + tail)
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: the last line is half written"):
        Manifest.read(str(tmp_path / "m.jsonl"))


@pytest.mark.parametrize("end", ["", "\n", "\n\n  \n", "\r\n"])
def test_endings_blank_lines_and_byte_order_marks(tmp_path: Path, end: str) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'\xef\xbb\xbf{"audio_filepath": "a.wav"}' + end.encode())
    assert len(Manifest.read(str(tmp_path / "m.jsonl"))) == 1


@pytest.mark.parametrize("data", [b"", b"\n\n"])
def test_an_empty_manifest(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.jsonl").write_bytes(data)
    with pytest.raises(ManifestError, match="no rows"):
        Manifest.read(str(tmp_path / "m.jsonl"))


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(b'{"audio_filepath": "a.wav"}\n')[:-4])
    (tmp_path / "t.jsonl.gz").write_bytes(b"not gzip at all")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("none.jsonl", "no such manifest"),
        ("empty", "a folder without"),
        ("m.jsonl.gz", "whole gzip"),
        ("t.jsonl.gz", "whole gzip"),
    ):
        with pytest.raises(InputError, match=message):
            Manifest.read(str(tmp_path / name))


def test_gzip_and_object_stores(tmp_path: Path) -> None:
    line = b'{"audio_filepath": "../a.wav"}\n'
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(line))
    assert Manifest.read(str(tmp_path / "m.jsonl.gz"))[0].audio == str(tmp_path.parent / "a.wav")
    storage.write_bytes("memory://box/lists/m.jsonl", line)
    assert Manifest.read("memory://box/lists/m.jsonl")[0].audio == "memory://box/a.wav"


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", *["{}"] * (SHOWN + 5))
    with pytest.raises(ManifestError) as e:
        Manifest.read(path)
    assert len(e.value.problems) == SHOWN + 5
    assert len(str(e.value).splitlines()) == SHOWN + 1
    assert str(e.value).endswith("... and 5 more rows")


def test_slices_are_manifests(tmp_path: Path) -> None:
    manifest = Manifest.read(write(tmp_path / "m.jsonl", *[{"audio_filepath": f"{i}.wav"} for i in range(5)]))
    assert isinstance(manifest[1:3], Manifest)
    assert [u.id for u in manifest[1:3]] == ["1", "2"]


# Text as JSON can hold it: no half surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
SECONDS = st.floats(0, 1e6, allow_nan=False)
UTTERANCES = st.builds(
    Utterance,
    id=TEXT.filter(bool),
    audio=st.just(""),
    audio_filepath=TEXT.map(lambda t: "wav/" + t),
    offset=SECONDS,
    duration=st.none() | SECONDS,
    text=st.none() | TEXT,
    prompt=st.none() | TEXT,
    response=st.none() | TEXT,
    choices=st.lists(TEXT, max_size=3).map(tuple),
    extra=st.dictionaries(TEXT.filter(lambda k: k not in KNOWN_KEYS), VALUES, max_size=3),
)  # fmt: skip


@given(utterances=st.lists(UTTERANCES, min_size=1, max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, utterances: list[Utterance]) -> None:
    path = str(tmp_path_factory.getbasetemp() / "round.jsonl")
    kept = [u for u in utterances if "://" not in u.audio_filepath]
    if kept:
        Manifest(kept).write(path)
        back = Manifest.read(path)
        assert [u.to_row() for u in back] == [u.to_row() for u in kept]
        assert [(u.digest, u.key) for u in back] == [(u.digest, u.key) for u in kept]


@given(ids=st.lists(st.text(max_size=200).filter(lambda t: t.isprintable()), min_size=2, unique=True))
def test_keys_are_safe_and_unique(ids: list[str]) -> None:
    keys = [Utterance(id=i, audio="", audio_filepath="").key for i in ids]
    assert all(re.fullmatch(r"[A-Za-z0-9_\-]{1,120}", k) for k in keys)
    assert len(set(keys)) == len(ids)


@pytest.mark.parametrize("identity", ["../../etc/passwd", "..", ".", "a/b", "a.b", "a b", "ä", "x" * 500, "a\\b", "-"])
def test_keys_of_awkward_ids(identity: str) -> None:
    key = Utterance(id=identity, audio="", audio_filepath="").key
    assert re.fullmatch(r"[A-Za-z0-9_\-]{1,120}", key)
    other = Utterance(id=identity + "'", audio="", audio_filepath="").key
    assert key != other


def test_the_digest_is_of_id_and_span_alone() -> None:
    def digest(**changed: Any) -> str:
        row = {"id": "a", "audio": "/x/a.wav", "audio_filepath": "a.wav", "offset": 1.0, "duration": 2.0}
        return Utterance(**{**row, **changed}).digest

    same = [{"audio": "/moved/a.wav"}, {"text": "t"}, {"prompt": "p"}, {"row": 7}, {"duration": 2.0 + 1e-9}]
    other = [{"id": "b"}, {"audio_filepath": "b.wav"}, {"offset": 1.1}, {"duration": 2.1}, {"duration": None}]
    assert {digest(**c) for c in same} == {digest()}
    assert digest() not in {digest(**c) for c in other}
    assert len({digest(**c) for c in other}) == len(other)


def test_the_digest_is_what_the_formats_page_says() -> None:
    u = Utterance(id="ä b", audio="", audio_filepath="x/a.wav", offset=1.25, duration=0.1)
    assert u.digest == xxhash.xxh3_64_hexdigest("1250000 100000 3 ä b x/a.wav".encode())
    assert replace(u, duration=None).digest == xxhash.xxh3_64_hexdigest("1250000 - 3 ä b x/a.wav".encode())


def test_a_null_id_is_none(tmp_path: Path) -> None:
    (u,) = Manifest.read(write(tmp_path / "m.jsonl", {"audio_filepath": "a.wav", "id": None}))
    assert u.id == "a"


def test_audio_of_a_relative_manifest_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "wav/a.wav"}\n')
    monkeypatch.chdir(tmp_path)
    (u,) = Manifest.read("m.jsonl")
    assert (u.audio, u.audio_filepath) == (str(tmp_path / "wav" / "a.wav"), "wav/a.wav")
