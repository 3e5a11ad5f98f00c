"""The page and the picture: strangers' words are only words, every panel is there, and a browser has no complaint."""

import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coat.drawing.tracks_figure import LEFT_IN, RIGHT_IN
from coat.pipeline.inspect.inspection import inspect
from coat.pipeline.inspect.page import inspection_figure, inspection_page
from tests.integration.helpers import coat
from tests.pipeline.inspect.browser import CHROMIUM, browse
from tests.pipeline.inspect.helpers import corpus, data_of, event, put, spec_of

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<!--$x_1$"


def test_strangers_words_stay_words(tmp_path: Path, store: Path) -> None:
    said = {"text": HOSTILE, "prompt": HOSTILE, "response": HOSTILE, "choices": [HOSTILE]}
    manifest = corpus(tmp_path / "hostile", id=HOSTILE, **said)
    spec = spec_of("e", "scalars", 40, 50.0, channels=(HOSTILE,) * 40, family="reconstruction", checkpoint=HOSTILE)
    put(store, spec, manifest, np.zeros((200, 40)), identity=HOSTILE)
    found = inspect(str(store), str(manifest), HOSTILE)
    document = inspection_page(found).decode()
    assert document.count("<script") == document.count("</script>") == 2
    assert "<img src=x" not in document
    assert "<!--" not in document
    assert html.escape(HOSTILE) in document
    assert HOSTILE in data_of(document)["panels"][2]["reads"][0][0]  # as a value
    assert not re.findall(r'(?:src|href)="(?!data:|#)', document)
    assert "http" not in document.replace("http-equiv", "")
    assert Image.open(io.BytesIO(inspection_figure(found))).format == "PNG"  # nor is it a formula


def test_the_picture_for_a_paper_holds_every_panel(manifest: Path, store: Path) -> None:
    put(store, spec_of("e", "probabilities", 40, 5.0, 0.1), manifest, event(spec_of("e", "scalars", 40, 5.0), 20, 6, 7))
    put(store, spec_of("f", "scalars", 25, 50.0), manifest, np.zeros((200, 25)))
    put(store, spec_of("g", "scalars", 25, 50.0), manifest, "failed: no")
    image = Image.open(io.BytesIO(inspection_figure(inspect(str(store), str(manifest), "a"))))
    assert image.size[0] == 1600
    assert 1000 < image.size[1] < 4000
    left, width = LEFT_IN * 160, (10.0 - LEFT_IN - RIGHT_IN) * 160
    darkest = np.flatnonzero((np.asarray(image)[:, :, :3] == (8, 48, 107)).all(axis=2).any(axis=0))  # of "Blues"
    times = (darkest[[0, -1]] + (0, 1) - left) / width * 4.0
    np.testing.assert_allclose(times, [0.1 + 5.5 / 5, 0.1 + 6.5 / 5], atol=2 * 4.0 / width)


def test_the_command_writes_both_and_says_what(manifest: Path, store: Path, tmp_path: Path) -> None:
    put(store, spec_of("good", "scalars", 1, 50.0), manifest, np.zeros((200, 1)))
    put(store, spec_of("bad", "scalars", 1, 50.0), manifest, "model: broke")
    where = ("inspect", "--store", store, "--manifest", manifest, "--id", "a")
    out, png = tmp_path / "p" / "a.html", tmp_path / "a.png"
    said = json.loads(coat(*where, "--out", out, "--png", png, "--json").stdout)
    assert said["written"] == {str(out): out.stat().st_size, str(png): png.stat().st_size}
    assert [(e["name"], e["frames"], e["problem"]) for e in said["experts"]] == [
        ("bad", 0, "failed: model: broke"),
        ("good", 200, None),
    ]
    assert (said["start"], said["end"], said["seconds"]) == (0.0, 4.0, 4.0)
    assert Image.open(io.BytesIO(png.read_bytes())).size[0] == 1600
    done = coat(*where, "--experts", "bad,good", "--out", out)
    assert (str(out) in done.stdout, done.stderr) == (True, "bad: failed: model: broke\n")
    assert "give --out page.html" in coat(*where, status=2).stderr
    assert "near it are a" in coat(*where[:-1], "b", "--out", out, status=2).stderr


TRY = """
const log = (text) => document.body.append(Object.assign(document.createElement("pre"), { textContent: text }));
window.onerror = (message) => log("ERROR " + message);
addEventListener("load", () => setTimeout(() => {
  const plot = document.querySelector("#panel-2 .plot"), box = plot.getBoundingClientRect();
  const at = { clientX: box.left + box.width * 0.75, clientY: box.top + 5, bubbles: true };
  plot.dispatchEvent(new PointerEvent("pointerdown", at));
  const rights = [...document.querySelectorAll(".plot")].map((p) => p.getBoundingClientRect());
  const audio = document.querySelector("audio");
  log("EDGES " + new Set(rights.map((r) => r.left + " " + r.right)).size);
  log("CURSOR " + getComputedStyle(plot, "::after").left + " OF " + box.width);
  plot.dispatchEvent(new PointerEvent("pointermove", { ...at, clientX: box.left + box.width * 0.25 }));
  log("OVER " + getComputedStyle(plot, "::before").left + " OF " + box.width);
  log("VALUE " + document.querySelector("#panel-2 .value").textContent);
  plot.dispatchEvent(new PointerEvent("pointerleave", at));
  log("LEFT " + document.querySelector("#panel-2 .value").textContent);
  log("AUDIO " + audio.currentTime.toFixed(3) + " OF " + audio.duration.toFixed(3));
}, 500));
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to open the page with")
def test_a_browser_moves_the_cursor_and_has_nothing_to_complain_of(manifest: Path, store: Path, tmp_path: Path) -> None:
    spec = spec_of("count", "scalars", 1, 50.0, 0.01, channels=("n_db",))
    put(store, spec, manifest, np.arange(200.0)[:, None])
    out = tmp_path / "page.html"
    document = inspection_page(inspect(str(store), str(manifest), "a")).decode()
    out.write_text(document)

    dom, console = browse(out, "#t=1.5", "--dump-dom")
    assert console == []
    assert "--at: 37.5%" in dom
    assert re.findall(r'class="clock" id="clock">(.*?)<', dom) == ["1.500 s"]
    section = dom[dom.index('id="panel-2"') :]
    assert re.findall(r'class="value">(.*?)<', section)[0] == "75 dB"  # frame 75 is 1.50 to 1.52 s

    # The page's own policy lets no other script run: a copy without it is clicked by one.
    policy = re.findall(r"<meta http-equiv.*?>", document)[0]
    (tmp_path / "tried.html").write_text(
        document.replace(policy, "").replace("</body>", f"<script>{TRY}</script></body>")
    )
    dom, console = browse(tmp_path / "tried.html", "", "--dump-dom")
    assert console == []
    logged = dict(line.split(" ", 1) for line in re.findall(r"<pre>(.*?)</pre>", dom))
    assert "ERROR" not in logged
    assert logged["EDGES"] == "1"
    for what, share in (("CURSOR", 0.75), ("OVER", 0.25)):
        left, width = (float(x.removesuffix("px")) for x in logged[what].split(" OF "))
        assert left == pytest.approx(share * width, abs=1.0)
    assert (logged["VALUE"], logged["LEFT"]) == ("50 dB", "150 dB")
    assert logged["AUDIO"] == "3.000 OF 4.000"

    (tmp_path / "barred.html").write_text(document.replace("</body>", f"<script>{TRY}</script></body>"))
    dom, console = browse(tmp_path / "barred.html", "", "--dump-dom")
    assert "<pre>" not in dom
    assert any("Content Security Policy" in line for line in console)

    browse(out, "", f"--screenshot={tmp_path / 'page.png'}")
    assert Image.open(io.BytesIO((tmp_path / "page.png").read_bytes())).size == (1400, 1000)
