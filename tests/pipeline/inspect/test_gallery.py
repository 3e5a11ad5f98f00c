"""Galleries: which clips are chosen, safe names of files, pages made by others, all or nothing."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from coat.cli.main import app
from coat.drawing.galleries.gallery import GalleryPage, gallery_folder, gallery_index, page_name
from coat.manifests import InputError, Manifest, decode
from coat.pipeline.inspect import choosing
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import commit_unit, write_spec
from coat.trainer.evaluation.predictions import RowScore
from tests.pipeline.inspect.browser import CHROMIUM, browse
from tests.pipeline.inspect.helpers import RATE, spec_of

IDS = ("a", "b", "c", "../x</td><script>")
SECONDS = (0.5, 2.0, 1.0, 0.7)
APART = (0.0, 0.5, 1.0, 0.25)  # share of frames in which the second expert hears another pitch


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    rows = []
    for i, (identity, seconds) in enumerate(zip(IDS, SECONDS, strict=True)):
        soundfile.write(folder / f"{i}.wav", np.full(round(seconds * RATE), 0.1, np.float32), RATE)
        rows.append({"id": identity, "audio_filepath": f"{i}.wav", "text": f"said {i}"})
    rows.append({"id": "t", "audio_filepath": None, "prompt": "?", "response": "."})
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "m.jsonl"


def pitch(seconds: float, rate_hz: float, apart: float) -> np.ndarray:
    """220 Hz; in the last part of the frames 60 cents higher, which is another pitch."""
    frames = round(seconds * rate_hz)
    higher = np.arange(frames) >= round(frames * (1 - apart))
    return np.stack([np.log2(220.0) + higher * 60 / 1200, np.ones(frames)], axis=1)


@pytest.fixture(scope="module")
def sets(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, TargetSet]:
    """Two pitch experts at other rates, and one of loudness that failed on b."""
    store = tmp_path_factory.mktemp("sets")
    specs = {
        "one": spec_of("one", "pitch", 2, 50.0, 0.01, channels=("log2_f0_hz", "voicing")),
        "two": spec_of("two", "pitch", 2, 100.0, 0.005, channels=("log2_f0_hz", "voicing")),
        "loud": spec_of("loud", "scalars", 1, 10.0, 0.05),
    }
    for name, spec in specs.items():
        url, rows, frames = TargetStore(str(store)).set_url(spec), [], []
        write_spec(url, spec)
        for i, u in enumerate(x for x in Manifest.read(str(many)) if not x.text_only):
            clip, first = decode(u.audio), sum(map(len, frames))
            if (name, u.id) == ("loud", "b"):
                rows.append(Row("", u.id, u.digest, None, 0.0, first, 0, "failed", "model: broke"))
                continue
            own = np.ones((5, 1)) if name == "loud" else pitch(clip.seconds, spec.rate_hz, (name == "two") * APART[i])
            rows.append(Row("", u.id, u.digest, clip.digest, clip.seconds, first, len(own), "ok", None))
            frames.append(own)
        commit_unit(url, "u-0", np.concatenate(frames).astype(np.float32), rows, {})
    return {name: TargetStore(str(store)).target_set(name) for name in specs}


def ids_of(manifest: Manifest, chosen: list[choosing.Chosen]) -> list[str]:
    return [manifest[one.position].id for one in chosen]


def test_clips_are_chosen_by_what_stands_out(many: Path, sets: dict[str, TargetSet]) -> None:
    manifest = Manifest.read(str(many))
    assert ids_of(manifest, choosing.failed(manifest, list(sets.values()))) == ["b"]
    assert ids_of(manifest, choosing.failed(manifest, [sets["one"]])) == []
    longest = choosing.longest(manifest, [sets["one"]], 3)  # the manifest states no duration
    assert ids_of(manifest, longest) == ["b", "c", IDS[3]]
    assert [one.value for one in longest] == [2.0, 1.0, 0.7]
    apart = choosing.disagreeing(manifest, sets["one"], sets["two"])
    assert ids_of(manifest, apart) == ["c", "b", IDS[3], "a"]
    np.testing.assert_allclose([one.value for one in apart], [1.0, 0.5, 0.25, 0.0], atol=0.03)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="loud: its targets are scalars"):
        choosing.disagreeing(manifest, sets["one"], sets["loud"])
    assert ids_of(manifest, choosing.by_ids(manifest, ["c", "a", "c", "t"])) == ["c", "a"]
    with pytest.raises(InputError, match="near it are"):
        choosing.by_ids(manifest, ["nobody"])
    heard = [choosing.Chosen(int(p)) for p in choosing.with_audio(manifest)]
    drawn = choosing.sampled(heard, 2, seed=1)
    assert drawn == choosing.sampled(heard, 2, seed=1)
    assert len(drawn) == 2


def test_disagreement_is_the_same_both_ways(sets: dict[str, TargetSet]) -> None:
    one, two = sets["one"], sets["two"]
    silent = pitch(1.0, 50.0, 0.0) * (1, 0)
    assert choosing.disagreement(silent, pitch(1.0, 100.0, 0.0), one, two) == 1.0
    assert choosing.disagreement(silent, pitch(1.0, 100.0, 0.0) * (2, 0), one, two) == 0.0
    half = pitch(1.0, 100.0, 0.5)
    ways = (
        choosing.disagreement(pitch(1.0, 50.0, 0.0), half, one, two),
        choosing.disagreement(half, pitch(1.0, 50.0, 0.0), two, one),
    )
    assert ways[0] == ways[1] == pytest.approx(0.5, abs=0.03)


def test_names_of_files_are_safe_whatever_the_ids_are() -> None:
    hostile = ["../../etc/passwd", "a" * 999, "CON", "", "-rf", "é/ü", "a b\n", "<b>", ".hidden", "a\0b"]
    names = [page_name(n, identity) for n, identity in enumerate(hostile, start=1)]
    assert all(re.fullmatch(r"\d{4}(-[a-z0-9_-]+)?\.html", name) for name in names)
    assert max(map(len, names)) < 60
    assert len(set(names)) == len(names)
    assert names[0] == "0001-etc-passwd.html"


def test_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "g"

    def break_off() -> None:
        with gallery_folder(str(out)) as folder:
            (folder / "index.html").write_text("x")
            assert not out.exists()
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert list(tmp_path.iterdir()) == []
    with gallery_folder(str(out)) as folder:
        (folder / "index.html").write_text("x")
    assert [p.name for p in tmp_path.rglob("*")] == ["g", "index.html"]
    with pytest.raises(InputError, match="something already"), gallery_folder(str(out)):
        pass
    with pytest.raises(InputError, match="a local folder"), gallery_folder("s3://b/g"):
        pass


def inspect(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["inspect", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_the_command_writes_a_gallery(many: Path, sets: dict[str, TargetSet], tmp_path: Path) -> None:
    store, out = Path(sets["one"].url).parents[1], tmp_path / "g"
    where = ("--store", store, "--manifest", many)
    said = json.loads(inspect(*where, "--disagree", "one,two", "--limit", 3, "--workers", 0, "--out", out, "--json"))
    assert [page["id"] for page in said["pages"]] == ["c", "b", IDS[3]]
    assert said["left_out"] == 1
    assert [page["status"] for page in said["pages"]] == ["ok", "loud: failed", "ok"]
    assert said["pages"][0]["one,two disagree"] == pytest.approx(1.0, abs=0.03)
    index = (out / "index.html").read_text()
    assert index.count("<script") == index.count("</script>") == 1
    assert html.escape(IDS[3]) in index
    for file in re.findall(r'<a href="(.*?)"', index):
        assert (out / file).read_text().startswith("<!doctype html>")
    with pytest.raises(InputError, match="--failed and --longest: give one of them"):
        inspect(*where, "--failed", "--longest", 2, "--out", tmp_path / "h")
    with pytest.raises(InputError, match="which clip"):
        inspect(*where, "--out", tmp_path / "h")
    with pytest.raises(InputError, match="--failed leaves no clip"):
        inspect(*where, "--experts", "one", "--failed", "--out", tmp_path / "h")
    assert not (tmp_path / "h").exists()


def test_wrong_answers_of_an_evaluation(many: Path, sets: dict[str, TargetSet], tmp_path: Path) -> None:
    where = ("--store", Path(sets["one"].url).parents[1], "--manifest", many, "--workers", 0)
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    with pytest.raises(InputError, match=r"no scores\.jsonl"):
        inspect(*where, "--wrong", evaluation, "--out", tmp_path / "g")

    def write(*scored: tuple[str, bool]) -> None:
        more: dict[str, Any] = {"audio": "", "groups": {}, "status": "answered", "official": True, "unparsed": False}
        more |= {"official_why": "", "strict_why": "", "official_sums": {}, "strict_sums": {}}
        lines = (RowScore(benchmark="manifest", id=i, strict=right, **more).to_line() for i, right in scored)
        (evaluation / "scores.jsonl").write_text("".join(lines))

    write(("c", False), ("b", True), ("a", False), ("of another corpus", False))
    said = json.loads(inspect(*where, "--wrong", evaluation, "--out", tmp_path / "g", "--json"))
    assert [page["id"] for page in said["pages"]] == ["c", "a"]
    write(("of another corpus", False))
    with pytest.raises(InputError, match="none of its 1 wrong answers is about a row"):
        inspect(*where, "--wrong", evaluation, "--out", tmp_path / "h")


def test_ids_are_read_from_a_file(many: Path, sets: dict[str, TargetSet], tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("b\n\na\n")
    where = ("--store", Path(sets["one"].url).parents[1], "--manifest", many, "--workers", 0, "--json")
    of_file = json.loads(inspect(*where, "--ids", tmp_path / "ids.txt", "--out", tmp_path / "g"))
    assert [page["id"] for page in of_file["pages"]] == ["b", "a"]
    named = json.loads(inspect(*where, "--ids", "b,a", "--sample", 1, "--out", tmp_path / "h"))
    assert len(named["pages"]) == 1


@pytest.mark.slow
def test_other_processes_draw_the_same_pages(many: Path, sets: dict[str, TargetSet], tmp_path: Path) -> None:
    where = ("--store", Path(sets["one"].url).parents[1], "--manifest", many, "--sample", 9, "--json")
    for workers in (0, 2):
        inspect(*where, "--workers", workers, "--out", tmp_path / str(workers))
    a, b = ({p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("0", "2"))
    assert a == b
    assert len(a) == 5


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to open the page with")
def test_a_browser_sorts_and_filters(tmp_path: Path) -> None:
    pages = [
        GalleryPage("1.html", "b", 2.0, "ok", {"cents": 30.0, "answer": "low"}),
        GalleryPage("2.html", "a", 11.0, "failed", {"cents": None, "answer": "high"}),
        GalleryPage("3.html", "c", 3.0, "ok", {"cents": 4.0, "answer": "high"}),
    ]
    document = gallery_index("A gallery", "of three", pages).decode()
    (tmp_path / "index.html").write_text(document)
    assert browse(tmp_path / "index.html", "", "--dump-dom")[1] == []
    tried = """
addEventListener("load", () => setTimeout(() => {
  const out = [], ids = () => [...document.querySelectorAll("tbody tr")].filter((r) => !r.hidden).map((r) => r.cells[0].textContent).join("");
  const heads = [...document.querySelectorAll("th button")];
  for (const i of [1, 1, 3, 0]) { heads[i].click(); out.push(ids()); }
  document.getElementById("search").value = "HIGH"; document.getElementById("search").dispatchEvent(new Event("input")); out.push(ids());
  document.getElementById("status").value = "ok"; document.getElementById("status").dispatchEvent(new Event("change")); out.push(ids());
  document.body.append(Object.assign(document.createElement("pre"), { textContent: out.join(" ") + " " + document.getElementById("count").textContent }));
}, 300));"""  # noqa: E501
    policy = re.findall(r"<meta http-equiv.*?>", document)[0]
    tried_page = document.replace(policy, "").replace("</body>", f"<script>{tried}</script></body>")
    (tmp_path / "tried.html").write_text(tried_page)
    dom, console = browse(tmp_path / "tried.html", "", "--dump-dom")
    assert console == []
    assert re.findall(r"<pre>(.*?)</pre>", dom) == ["bca acb cba abc ac c 1 of 3"]
