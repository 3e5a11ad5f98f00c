"""What is heard, beside what experts heard: a head made by hand that reads f0 exactly draws the expert's own curve."""

import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from coat.analysis.listening.page import listening_page
from coat.analysis.listening.panels import Target
from coat.analysis.listening.session import ListeningSession, Sound
from coat.analysis.listening.targets import StoredTargets, as_in_shards
from coat.cli.main import app
from coat.manifests import Clip, InputError, Manifest, ShardIndex
from coat.manifests.targets.reduction import Reduction
from coat.trainer.model.losses import pitch_bins
from coat.trainer.training.train import train
from tests.pipeline.inspect.browser import CHROMIUM, browse
from tests.pipeline.inspect.helpers import data_of
from tests.trainer.helpers import RATE, SPECS, toy_config, toy_sample, write_shards

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--"


class ExactPitch(nn.Module):
    """A head that knows a curve: log2 f0 and voicing at any time; loudness is the training mean."""

    def forward(self, _name: str, states_BKD: Tensor, _mask: Tensor, _seconds: Tensor, times_N: Tensor) -> Tensor:
        log2_N, voiced_N = curve(times_N)
        bins_NP = torch.log(pitch_bins(log2_N) + 1e-12)
        rest_N2 = torch.stack([torch.where(voiced_N, 6.0, -6.0), torch.zeros_like(log2_N)], dim=1)
        return torch.cat([bins_NP, rest_N2], dim=1)[None]


def curve(times_N: Tensor) -> tuple[Tensor, Tensor]:
    return 7.0 + times_N, times_N < 0.7


def sound(seconds: float = 1.0, **more: object) -> Sound:
    return Sound(Clip(toy_sample(1, seconds=seconds)["audio"], RATE), "c1", **more)  # type: ignore[arg-type]


def exact_target(seconds: float) -> np.ndarray:
    times = torch.from_numpy(SPECS["pitch"].times(int(seconds * 62.5))).float()
    log2_N, voiced_N = curve(times)
    return np.stack([log2_N, voiced_N.float(), torch.zeros_like(log2_N)], axis=1).astype(np.float32)


def test_a_head_that_reads_f0_exactly_draws_the_experts_curve(session: ListeningSession) -> None:
    session.model.heads.groups[session.model.heads.group_names["pitch"]] = ExactPitch()
    target = exact_target(1.0)
    listened = session.listen(sound(targets={"pitch": Target(target)}), [], names=["pitch"])
    (heard,) = listened.heard
    f0 = heard.panel.tracks[0]
    assert f0.reference is not None
    np.testing.assert_allclose(f0.values, f0.reference, rtol=1e-4)
    times = SPECS["pitch"].times(len(target))
    np.testing.assert_allclose(f0.values[times < 0.7], 2 ** (7.0 + times[times < 0.7]), rtol=1e-3)
    assert np.isnan(f0.values[times >= 0.7]).all()
    assert heard.agreement["cents"] == pytest.approx(0.0, abs=0.5)
    assert heard.agreement["voicing"] == 1.0
    document = listening_page(listened).decode()
    assert "0 cents off (median), 100% within 50 cents, voicing alike in 100%" in document
    reads = data_of(document)["panels"][2]["reads"][0]
    assert reads[10] == f"{2 ** (7.0 + times[10]):.4g} / {2 ** (7.0 + times[10]):.4g}"

    octave = target + np.array([1.0, 0.0, 0.0], np.float32)
    (other,) = session.listen(sound(targets={"pitch": Target(octave)}), [], names=["pitch"]).heard
    assert other.agreement["cents"] == pytest.approx(1200.0, abs=0.5)


def test_a_page_of_every_student(run: Path) -> None:
    session = ListeningSession.load(str(run))
    targets = {name: Target(x.astype(np.float32)) for name, x in toy_sample(1)["targets"].items()}
    listened = session.listen(sound(targets=targets), ["High or low?", "Is it loud?"], max_new_tokens=3)
    assert [one.expert for one in listened.heard] == list(session.experts)
    assert all(one.panel.frames == len(targets[one.expert].frames_ND) for one in listened.heard)  # type: ignore[arg-type]
    document = listening_page(listened).decode()
    assert document.count("<script") == document.count("</script>") == 2
    assert document.count('<table class="evidence">') == sum(bool(a.tokens) for a in listened.answers) > 0
    assert "Attention alone misleads" in document
    assert not re.findall(r'(?:src|href)="(?!data:|#)', document)
    assert all(a.why_no_rollout == "" for a in listened.answers)


def test_strangers_words_stay_words(session: ListeningSession) -> None:
    one = Sound(sound().clip, HOSTILE, {"pitch": Target(problem=HOSTILE)}, truth=HOSTILE)
    document = listening_page(session.listen(one, [HOSTILE], max_new_tokens=2)).decode()
    assert document.count("<script") == document.count("</script>") == 2
    assert "<img src=x" not in document
    assert "<!--" not in document
    assert html.escape(HOSTILE) in document


@pytest.mark.parametrize(
    ("thinking", "stages", "note", "heard"),
    [
        ({"count": 0}, None, "no thinking block", False),
        ({"states": "audio", "count": 0}, None, "the audio's own states", True),
        ({"count": 4}, {"distill": 0.0, "ce": 1.0}, "has no heads", False),
        ({"states": "both"}, None, "", True),
        ({"rate_hz": 3.0, "placement": "before_response", "layer": 0}, None, "", True),
    ],
)
def test_what_a_run_lacks_is_said(
    student_dir: Path, shards_dir: Path, tmp_path: Path, thinking: dict, stages: dict | None, note: str, heard: bool
) -> None:
    parts = {"thinking": thinking} | ({"stages": [{"name": "a", "steps": 1, **stages}]} if stages else {})
    train(toy_config(student_dir, shards_dir, tmp_path / "run", steps=2, **parts))
    session = ListeningSession.load(str(tmp_path / "run"))
    listened = session.listen(sound(), ["High or low?"], max_new_tokens=4)
    assert (note in listened.note) if note else not listened.note
    assert bool(listened.heard) == heard
    titles = [one.expert for one in listened.heard]
    if thinking.get("states") == "both":
        assert titles == [*session.experts, *(f"{name}@audio" for name in session.experts)]
    document = listening_page(listened).decode()
    assert html.escape(listened.note) in document
    before = thinking.get("placement") == "before_response"
    assert ("may depend on the prompt" in document) == before
    has_block = thinking.get("count", 4) > 0
    for answer in listened.answers:
        assert answer.tokens or not answer.answer
        assert all(("block" in token.effect) == ("block" in token.attention) == has_block for token in answer.tokens)
    assert ("There is no block here" in document) == (not has_block and any(a.tokens for a in listened.answers))


def test_reduced_targets_are_compared_as_the_shards_have_them(tmp_path: Path) -> None:
    index = ShardIndex.read(str(write_shards(tmp_path / "shards", [toy_sample(0)])))
    spec = SPECS["mel"]
    reduction = Reduction.of(spec, rate_hz=5.0)
    expert = replace(
        index.experts["mel"],
        spec=reduction.decoded_spec(spec), reduction=reduction, extracted=spec.fingerprint,
    )  # fmt: skip
    frames = np.repeat(np.arange(5.0), 4)[:, None].repeat(6, axis=1).astype(np.float32)  # 20 Hz; 4 frames are one
    np.testing.assert_allclose(as_in_shards(frames, expert)[:, 0], np.arange(5.0), atol=1e-6)


def test_what_a_store_lacks_is_said(session: ListeningSession, corpus: Path, store: Path, tmp_path: Path) -> None:
    found = StoredTargets(str(store), session.experts)
    rows = {u.id: u for u in Manifest.read(str(corpus))}
    targets = found.find(rows["c0"])
    np.testing.assert_array_equal(targets["mel"].frames_ND, toy_sample(0)["targets"]["mel"].astype(np.float32))
    assert found.find(rows["c1"])["prosody"].problem == "failed: model: broke"
    empty = StoredTargets(str(tmp_path), session.experts).find(rows["c0"])
    assert "the store has none" in empty["pitch"].problem


def listen(*arguments: object, status: int = 0) -> str:
    """What the command says on stdout, or its error."""
    result = CliRunner().invoke(app, ["listen", *map(str, arguments)])
    if status:
        assert isinstance(result.exception, InputError), result.exception
        return str(result.exception)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_writes_a_page_and_says_what(one_run: Path, corpus: Path, store: Path, tmp_path: Path) -> None:
    where = ("--run", one_run, "--manifest", corpus, "--store", store, "--max-new-tokens", 3)
    out = tmp_path / "page.html"
    png = tmp_path / "page.png"
    said = json.loads(listen(*where, "--id", "c1", "--out", out, "--png", png, "--json"))
    assert said["written"] == {str(path): path.stat().st_size for path in (out, png)}
    assert Image.open(io.BytesIO(png.read_bytes())).size[0] == 1600
    assert {e["expert"]: bool(e["agreement"]) for e in said["experts"]} == {
        "pitch": True, "mel": True, "events": True, "prosody": False,
    }  # fmt: skip
    (answer,) = said["answers"]
    assert answer["prompt"] == "High or low?"
    assert answer["replaced_by"] == "the mean of 2 other clips"
    assert said["truth"] == "low"
    assert "Heard" in listen("--run", one_run, "--audio", corpus.parent / "0.wav", "--out", out)
    assert "which clip?" in listen("--run", one_run, "--out", out, status=2)
    assert "near it are c1" in listen(*where, "--id", "c", "--out", out, status=2)
    assert "no head for it" in listen(*where, "--id", "c1", "--experts", "nose", "--out", out, status=2)


def test_a_gallery_of_all_clips(one_run: Path, corpus: Path, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    where = ("--run", one_run, "--manifest", corpus, "--store", store, "--max-new-tokens", 2)
    said = json.loads(listen(*where, "--sample", 5, "--workers", 0, "--out", out, "--json"))
    files = ["0001-c0.html", "0002-c1.html", "0003-b-c2-b.html"]
    assert [page["file"] for page in said["pages"]] == files
    assert sorted(path.name for path in out.iterdir()) == [*files, "index.html"]
    index = (out / "index.html").read_text()
    assert html.escape("../<b>c2</b>") in index
    assert "<b>c2" not in index
    assert "no target of prosody" in index
    assert set(re.findall(r'href="(?!data:)(.*?)"', index)) == set(files)
    assert list(tmp_path.iterdir()) == [out]  # nothing half made is left
    assert "something already" in listen(*where, "--sample", 5, "--out", out, status=2)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to open the page with")
def test_a_browser_has_nothing_to_complain_of(session: ListeningSession, tmp_path: Path) -> None:
    targets = {"pitch": Target(exact_target(1.0))}
    out = tmp_path / "page.html"
    out.write_bytes(listening_page(session.listen(sound(targets=targets), ["High?"], max_new_tokens=2)))
    dom, console = browse(out, "#t=0.5", "--dump-dom")
    assert console == []
    assert "--at: 50%" in dom


def test_audio_that_is_too_long_is_said_in_a_line(session: ListeningSession) -> None:
    long = Sound(Clip(np.zeros(RATE * 400, np.float32), RATE), "long")
    with pytest.raises(InputError, match=r"long: 400\.00 s, but this"):
        session.listen(long, [])
