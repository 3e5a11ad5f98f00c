"""Kaldi's data folders, as its recipes write them."""

from pathlib import Path

import pytest

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.sources.formats import detect_format
from coat.manifests.sources.importing import import_manifest
from tests.manifests.conftest import WriteAudio
from tests.manifests.sources.importing import imported, problems


@pytest.fixture
def folder(tmp_path: Path, write_audio: WriteAudio) -> Path:
    for name, seconds in (("a", 3.0), ("b c", 2.0)):
        write_audio(f"data/{name}.wav", seconds)
    (tmp_path / "data/wav.scp").write_text(f"reca a.wav\nrecb  {tmp_path}/data/b c.wav\n")
    (tmp_path / "data/spk2utt").write_text("bob reca recb\n")
    (tmp_path / "data/utt2spk").write_text("reca bob\nrecb ann\n")
    (tmp_path / "data/text").write_text("reca grüße an  alle\nrecb\n")
    return tmp_path / "data"


def test_recordings(folder: Path, tmp_path: Path) -> None:
    assert detect_format(str(folder)) == "kaldi"
    a, b = imported(folder, tmp_path / "m.jsonl")
    assert (a.id, a.text, a.duration, a.extra) == ("reca", "grüße an  alle", 3.0, {"speaker": "bob"})
    assert (b.id, b.text, b.duration, b.audio) == ("recb", "", 2.0, f"{folder}/b c.wav")
    notes = import_manifest(str(folder), str(tmp_path / "m.jsonl")).notes
    assert any("not read: a.wav, b c.wav, spk2utt" in note for note in notes)


def test_segments(folder: Path, tmp_path: Path) -> None:
    (folder / "segments").write_text("u1 reca 0.5 1.25\nu2 reca 1.25 -1\nu3 recb 0 2\n")
    (folder / "text").write_text("u1 one\nu2 two\nu3 three\n")
    (folder / "utt2spk").write_text("u1 bob\nu2 bob\nu3 ann\n")
    (folder / "utt2lang").write_text("u1 de\nu2 en\nu3 en\n")
    (folder / "utt2dur").write_text("u1 0.75\nu2 1.75\nu3 2.0\n")
    rows = imported(folder, tmp_path / "m.jsonl")
    assert [(u.id, u.offset, u.duration, u.text, u.extra["lang"]) for u in rows] == [
        ("u1", 0.5, 0.75, "one", "de"),
        ("u2", 1.25, 1.75, "two", "en"),
        ("u3", 0.0, 2.0, "three", "en"),
    ]
    assert {u.extra["recording"] for u in rows} == {"reca", "recb"}


def test_what_is_no_file_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    (folder / "wav.scp").write_text(
        f"reca touch {tmp_path}/ran |\nrecb | touch {tmp_path}/ran\nx sph2pipe -f wav a.sph |\ny a.ark:1234\nz\nw -\n"
    )
    lines = problems(folder, tmp_path / "m.jsonl")
    words = ("never run", "never run", "never run", "archive of Kaldi's", "names no file", "names no file")
    assert all(any(word in line for line in lines) for word in words)
    assert len([line for line in lines if "never run" in line]) == 3
    assert not (tmp_path / "ran").exists()


def test_tables_that_do_not_fit_each_other(folder: Path, tmp_path: Path) -> None:
    (folder / "segments").write_text(
        "u1 reca 0.5 0.25\nu2 nobody 0 1\nu3 recb\nu4 recb 0 1\nu4 recb 1 2\nu5 recb 9 12\n"
    )
    (folder / "text").write_text("u4 four\nu9 nine\n")
    (folder / "utt2spk").write_bytes(b"u4 \xff\n")
    lines = "\n".join(problems(folder, tmp_path / "m.jsonl"))
    for words in ("expected 0 <= START < END", "'nobody' is not in wav.scp", "not a segment", "'u4' is there twice"):
        assert words in lines
    assert "'u9' is not in segments; what is said of it would be lost" in lines
    assert "not UTF-8" in lines


def test_a_folder_in_a_store(folder: Path, tmp_path: Path) -> None:
    (folder / "wav.scp").write_text("reca a.wav\nrecb b c.wav\n")
    for file in folder.iterdir():
        storage.write_bytes(f"memory://bucket/kaldi/{file.name}", file.read_bytes())
    import_manifest("memory://bucket/kaldi", str(tmp_path / "m.jsonl"))
    a, b = Manifest.read(str(tmp_path / "m.jsonl"))
    assert (a.audio, a.text, a.duration) == ("memory://bucket/kaldi/a.wav", "grüße an  alle", 3.0)
    assert (b.audio, b.duration) == ("memory://bucket/kaldi/b c.wav", 2.0)
