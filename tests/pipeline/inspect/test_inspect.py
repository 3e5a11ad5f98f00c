"""`coat inspect`: all is drawn where it was heard, what is missing is said, and strangers' words are only words."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from coat.drawing.sound import log_mel_db
from coat.drawing.target_tracks import order_by_similarity
from coat.drawing.tracks import time_ticks
from coat.manifests import InputError
from coat.pipeline.inspect.expert_panels import frames_between
from coat.pipeline.inspect.inspection import inspect
from coat.pipeline.inspect.page import inspection_figure, inspection_page
from tests.pipeline.inspect.helpers import CLICK_S, PIXEL_S, RATE, corpus, data_of, event, images, place, put, spec_of


@pytest.mark.parametrize(
    ("kind", "family", "dim", "name"),
    [
        ("probabilities", "events", 40, "class 7"),
        ("distribution", "speech", 40, "class 7"),
        ("representation", "speech", 700, "700 dimensions"),
        ("scalars", "reconstruction", 128, "channel"),
    ],
)
def test_a_frame_is_drawn_where_it_is_centred_and_as_wide_as_it_is(
    kind: str, family: str, dim: int, name: str, manifest: Path, store: Path
) -> None:
    names = tuple(f"class {i}" for i in range(dim)) if dim == 40 else ()
    names = tuple(f"mel_{i}" for i in range(dim)) if kind == "scalars" else names
    spec = spec_of("e", kind, dim, rate_hz=5.0, start_s=0.0375, family=family, channels=names)
    put(store, spec, manifest, event(spec, 20, 6, 7))
    found = inspect(str(store), str(manifest), "a")
    image = images(inspection_page(found).decode())[name]
    left, right = place(image[:, :1960], 3.92)  # behind that there is no frame
    centre, width = 0.0375 + 6 / 5.0, 1 / 5.0
    assert left == pytest.approx(centre - width / 2, abs=2 * PIXEL_S)
    assert right == pytest.approx(centre + width / 2, abs=2 * PIXEL_S)


def test_the_sound_is_drawn_on_the_same_axis(manifest: Path, store: Path) -> None:
    spec = spec_of("vad", "probabilities", 1, 31.25, 0.016)
    put(store, spec, manifest, np.zeros((125, 1), np.float32))
    shown = images(inspection_page(inspect(str(store), str(manifest), "a")).decode())
    grid = min(abs(t - CLICK_S) for t in time_ticks(0.0, 4.0))
    assert grid > 0.05  # no line of the grid is near
    wave = shown["amplitude"][4:40]  # above the middle: the click, and the grid
    dark = np.flatnonzero((wave[:, :, 0] < 60).any(axis=0)) / wave.shape[1] * 4.0
    assert dark.min() == pytest.approx(CLICK_S, abs=2 * PIXEL_S)
    assert dark.max() == pytest.approx(CLICK_S + 0.001, abs=2 * PIXEL_S)
    left, right = place(shown["frequency"])
    assert (left + right) / 2 == pytest.approx(CLICK_S, abs=0.005)
    assert right - left == pytest.approx(0.025, abs=0.006)  # the window


def test_f0_is_broken_where_unvoiced(manifest: Path, store: Path) -> None:
    spec = spec_of("pitch", "pitch", 3, 62.5, family="pitch", channels=("log2_f0_hz", "voicing", "loudness_db"))
    frames = np.tile(np.array([np.log2(220.0), 0.0, -60.0], np.float32), (250, 1))
    frames[100:150, 1] = 0.9
    frames[120:125, 1] = 0.4
    put(store, spec, manifest, frames)
    document = inspection_page(inspect(str(store), str(manifest), "a")).decode()
    readouts = data_of(document)["panels"][2]["reads"]
    assert readouts[0] == [220.0 if 100 <= i < 120 or 125 <= i < 150 else None for i in range(250)]
    image = images(document)["f0"]
    blue = np.flatnonzero((image[:, :, 0] < 60).any(axis=0)) / image.shape[1] * 4.0
    gap = np.flatnonzero(np.diff(blue) > 0.01)
    assert len(gap) == 1
    edges = [blue[0], blue[gap[0]], blue[gap[0] + 1], blue[-1]]
    np.testing.assert_allclose(edges, [(i - 0.5) / 62.5 for i in (100, 120, 125, 150)], atol=3 * PIXEL_S)


def test_values_are_those_of_the_frame_at_that_time(manifest: Path, store: Path) -> None:
    spec = spec_of("level", "scalars", 2, 100.0, 0.005, family="prosody", channels=("rms_db", "peak"))
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(400, 2)).astype(np.float32)
    put(store, spec, manifest, frames)
    found = inspect(str(store), str(manifest), "a", start_s=1.0, end_s=2.5)
    panel = data_of(inspection_page(found).decode())["panels"][2]
    assert panel["units"] == ["dB", ""]
    assert panel["first"] == pytest.approx(1.005)
    for shown, values in zip(panel["reads"], frames[100:250].T, strict=True):
        np.testing.assert_allclose(shown, values, rtol=1e-3)


def test_every_expert_is_there_with_its_spec(manifest: Path, store: Path) -> None:
    specs = [
        spec_of("one", "representation", 1, 50.0, weights="w1", checkpoint="org/one"),
        spec_of("wide", "representation", 1280, 50.0, weights="w2", checkpoint="org/wide", settings={"pool": "mean"}),
        spec_of("many", "scalars", 25, 50.0, channels=tuple(f"lld_{i}" for i in range(25))),
    ]
    rng = np.random.default_rng(0)
    for spec in specs:
        put(store, spec, manifest, rng.normal(size=(200, spec.dim)))
    document = inspection_page(inspect(str(store), str(manifest), "a")).decode()
    sections = re.findall(r"<section.*?</section>", document, flags=re.DOTALL)
    assert [re.findall("<h2>(.*?)</h2>", s)[0] for s in sections] == ["waveform", "log-mel", "many", "one", "wide"]
    for spec in specs:
        (section,) = (s for s in sections if f"<h2>{spec.expert}</h2>" in s)
        for fact in (spec.fingerprint, spec.weights, spec.checkpoint, f"{spec.dim} × 50 frames/s"):
            assert fact in section
    assert "{&quot;pool&quot;: &quot;mean&quot;}" in document
    assert all(f'title="lld_{i}"' in document for i in range(25))
    assert {"What?", "A click."} <= set(re.findall("<dd>(.*?)</dd>", document))


def test_two_sets_of_one_expert_are_told_apart(manifest: Path, store: Path) -> None:
    specs = [spec_of("w", "representation", 4, 50.0, weights=w) for w in ("one", "two")]
    for spec in specs:
        put(store, spec, manifest, np.zeros((200, 4)))
    names = [f"w@{s.fingerprint[:6]}" for s in specs]
    assert sorted(p.title for p in inspect(str(store), str(manifest), "a").experts) == sorted(names)
    assert [p.title for p in inspect(str(store), str(manifest), "a", ["w@" + specs[1].fingerprint]).experts] == names[
        1:
    ]
    with pytest.raises(InputError, match="no targets of x; it has w"):
        inspect(str(store), str(manifest), "a", ["x"])
    with pytest.raises(InputError, match="no target sets"):
        inspect(str(store / "nothing"), str(manifest), "a")


def test_what_is_missing_is_said_in_its_place(manifest: Path, store: Path) -> None:
    row = json.loads(manifest.read_text())
    rows = [row, row | {"id": "b", "audio_filepath": "gone.wav"}]
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows))
    good, bad = spec_of("good", "scalars", 1, 50.0), spec_of("bad", "scalars", 1, 50.0)
    put(store, good, manifest, np.zeros((200, 1)))
    put(store, bad, manifest, "model: <it> broke")
    put(store, bad, manifest, "missing: gone.wav: no such file", identity="b")

    first, second = inspect(str(store), str(manifest), "a").experts
    assert (first.title, first.problem, second.frames) == ("bad", "failed: model: <it> broke", 200)
    assert (
        '<p class="problem">failed: model: &lt;it&gt; broke</p>'
        in inspection_page(inspect(str(store), str(manifest), "a")).decode()
    )

    lost = inspect(str(store), str(manifest), "b")  # the page of a row without sound
    assert lost.clip is None
    assert "no such file" in lost.sound[0].problem
    assert [p.problem.split(":")[0] for p in lost.experts] == ["failed", "missing"]
    assert "run `coat extract --expert good`" in lost.experts[1].problem
    assert "<audio" not in inspection_page(lost).decode()
    assert Image.open(io.BytesIO(inspection_figure(lost))).format == "PNG"


def test_a_changed_row_or_sound_is_noticed(manifest: Path, store: Path) -> None:
    put(store, spec_of("e", "scalars", 1, 50.0), manifest, np.zeros((200, 1)))
    soundfile.write(manifest.parent / "a.wav", np.full(4 * RATE, 0.1, np.float32), RATE)
    (panel,) = inspect(str(store), str(manifest), "a").experts
    assert panel.frames == 200
    assert "sound has changed since" in panel.problem
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"duration": 3.0}))
    (panel,) = inspect(str(store), str(manifest), "a").experts
    assert "another path or span" in panel.problem


def test_an_unknown_id_names_its_neighbours(manifest: Path, store: Path) -> None:
    rows = [json.loads(manifest.read_text()) | {"id": f"clip_{i:05}"} for i in range(5000)]
    manifest.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(InputError, match=r"m\.jsonl has no such id; near it are .*clip_0433") as e:
        inspect(str(store), str(manifest), "clip_0433x")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(("start", "end"), [(5.0, None), (1.0, 1.0), (2.0, 1.0), (4.0, None)])
def test_times_that_are_not_there(start: float, end: float | None, manifest: Path, store: Path) -> None:
    put(store, spec_of("e", "scalars", 1, 50.0), manifest, np.zeros((200, 1)))
    with pytest.raises(InputError, match=r"within the utterance, which lasts 4\.000 s"):
        inspect(str(store), str(manifest), "a", start_s=start, end_s=end)


def test_of_long_audio_a_minute_is_shown(tmp_path: Path, store: Path) -> None:
    manifest = corpus(tmp_path / "long", seconds=100.0)
    spec = spec_of("e", "scalars", 1, 50.0)
    put(store, spec, manifest, np.arange(5000.0)[:, None])
    found = inspect(str(store), str(manifest), "a")
    assert (found.start_s, found.end_s, found.axis.until_s) == (0.0, 60.0, 60.0)
    assert "0 to 60 s of 100.0 s are shown" in inspection_page(found).decode()
    later = inspect(str(store), str(manifest), "a", start_s=90.0)
    assert (later.end_s, later.axis.until_s, later.clip and later.clip.seconds) == (100.0, 100.0, 10.0)
    assert later.experts[0].first_s == 90.0
    assert list(later.experts[0].tracks[0].readouts) == list(range(4500, 5000))


def test_frames_behind_a_short_sound_stay_visible(tmp_path: Path, store: Path) -> None:
    manifest = corpus(tmp_path / "short", seconds=0.05)
    put(store, spec_of("e", "probabilities", 1, 2.0, 0.5), manifest, np.ones((1, 1)))
    found = inspect(str(store), str(manifest), "a")
    assert (found.end_s, found.axis.until_s) == (pytest.approx(0.05), 0.75)
    assert b"NaN" not in inspection_page(found)


def test_frames_between_are_those_that_overlap() -> None:
    spec = spec_of("e", "scalars", 1, 10.0, 0.05)  # frame i is i / 10 to (i + 1) / 10
    assert frames_between(spec, 0.2, 0.5, 100) == (2, 5)
    assert frames_between(spec, 0.25, 0.55, 100) == (2, 6)
    assert frames_between(spec, 0.2, float("inf"), 7) == (2, 7)
    assert frames_between(spec, 0.2, 0.5, 1) == (2, 1)


@pytest.mark.parametrize("kind", ["representation", "scalars", "probabilities", "distribution", "pitch"])
@pytest.mark.parametrize(("frames", "dim"), [(1, 2), (1, 1280), (2, 33), (200, 2), (200, 1280)])
def test_no_size_or_silence_gives_nan(dim: int, kind: str, frames: int, manifest: Path, store: Path) -> None:
    dim = min(dim, 3) if kind == "pitch" else dim
    spec = spec_of("e", kind, dim, frames / 4, 2 / frames)
    put(store, spec, manifest, np.zeros((frames, dim)))
    soundfile.write(manifest.parent / "a.wav", np.zeros(4 * RATE, np.float32), RATE)
    document = inspection_page(inspect(str(store), str(manifest), "a")).decode()
    panels = data_of(document)["panels"]
    assert all(len(readouts) == frames for readouts in panels[2]["reads"])
    assert "NaN" not in json.dumps(panels)


def test_the_order_of_dimensions_puts_those_together_that_move_together() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, size=300)
    z_ND = rng.normal(size=(400, 3))[:, kinds] + 0.3 * rng.normal(size=(400, 300))
    ordered = kinds[order_by_similarity(z_ND.astype(np.float32))]
    assert (np.diff(ordered) != 0).sum() < 12  # some 200 where they are not ordered


def test_the_log_mel_knows_a_tone() -> None:
    t = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 1000 * t) * (t > 0.5)
    level_NR = log_mel_db(tone.astype(np.float32), RATE, 160)
    assert level_NR.shape == (101, 128)
    assert level_NR[75].max() == pytest.approx(0.0, abs=0.1)
    assert level_NR[:48].max() == -80.0
