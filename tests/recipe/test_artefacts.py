"""What places are known by."""

import os
from pathlib import Path

import pytest

from coat.manifests import InputError
from coat.recipe.artefacts import LARGE, Identities
from coat.recipe.stages import Place


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    return Identities(tmp_path, tmp_path / "corpus/out", str(tmp_path / "digests.json"))


def test_a_large_file_is_read_once_and_again_when_it_changes(identities: Identities, tmp_path: Path) -> None:
    file, place = tmp_path / "m.jsonl", Place("manifest", "m.jsonl")
    file.write_bytes(b"a" * LARGE)
    first = identities.of(place)
    identities.save()
    again = Identities(identities.folder, identities.out, identities.cache)
    again.load()
    again.kept = {path: [stamp, "kept"] for path, (stamp, _) in again.kept.items()}
    assert again.of(place) != first  # it was not read
    file.write_bytes(b"b" + b"a" * (LARGE - 1))
    os.utime(file, ns=(1, 1))
    changed = again.of(place)
    assert again.kept[str(file)][1] != "kept"
    assert changed != first
    file.write_bytes(b"a" * LARGE)
    os.utime(file, ns=(2, 2))
    assert again.of(place) == first  # by what is in it


def test_a_manifest_in_parts_and_a_pattern(identities: Identities, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / name).write_text(name)
    whole, pattern = Place("manifest", "parts"), Place("manifest", "parts/*.jsonl")
    assert identities.of(whole) == identities.of(pattern)
    before = identities.of(whole)
    (tmp_path / "parts/b.jsonl").write_text("c")
    assert identities.of(whole) != before
    assert identities.of(Place("manifest", "parts/{a,c}.jsonl")) is None


def test_a_corpus_does_not_change_by_what_is_made_inside_of_it(identities: Identities, tmp_path: Path) -> None:
    (tmp_path / "corpus/out").mkdir(parents=True)
    (tmp_path / "corpus/a.wav").write_bytes(b"a")
    place = Place("tree", "corpus")
    before = identities.of(place)
    (tmp_path / "corpus/out/index.html").write_text("made")
    assert identities.of(place) == before
    (tmp_path / "corpus/b.wav").write_bytes(b"b")
    assert identities.of(place) != before


def test_a_config_is_known_by_its_values(identities: Identities, tmp_path: Path) -> None:
    file, place = tmp_path / "t.toml", Place("config", "t.toml")
    file.write_text("[optim]\nlr = 1e-4 # small\n[[stages]]\nname = 'a'\nsteps = 2\n")
    assert identities.of(place) == {"optim.lr": 1e-4, "stages.0.name": "a", "stages.0.steps": 2}
    file.write_text("[optim")
    with pytest.raises(InputError, match="not TOML"):
        identities.of(place)
