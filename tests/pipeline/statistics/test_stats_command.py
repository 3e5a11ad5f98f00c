"""`coat stats`: a table, JSON, and a page that shows what is in the sums. On Ray: test_runs.py of extraction."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coat.pipeline.statistics.compute import compute_statistics
from coat.pipeline.statistics.page import statistics_page
from coat.pipeline.statistics.statistics import Statistics
from coat.pipeline.store.target_store import TargetStore
from tests.integration.helpers import PEAK, ROOT, coat
from tests.pipeline.inspect.browser import CHROMIUM, browse
from tests.pipeline.statistics.test_statistics import correlated, put_all, spec_of

EVENTS = ("Speech", "<script>alert(1)</script>", "Dog $x$", *(f"class {i}" for i in range(27)))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Hidden states with a dead dimension, events, and pitch."""
    root, rng = tmp_path / "store", np.random.default_rng(0)
    states_ND = correlated(2000, 64)
    states_ND[:, 5] = 3.0
    put_all(root, spec_of(64, expert="states", dtype="float16"), states_ND)
    events_ND = rng.random((800, 30)) ** np.linspace(1, 9, 30)
    put_all(root, spec_of(30, "probabilities", expert="events", family="events", channels=EVENTS), events_ND)
    names = ("log2_f0_hz", "voicing", "loudness_db")
    pitch_ND = np.stack([rng.normal(7, 0.3, 600), rng.random(600) > 0.25, rng.normal(-30, 9, 600)], axis=1)
    put_all(root, spec_of(3, "pitch", expert="pitch", family="pitch", channels=names), pitch_ND)
    return root


def found_in(store: Path) -> list[Statistics]:
    return [compute_statistics(targets) for targets in TargetStore(str(store)).target_sets()]


def test_the_command(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = coat("stats", store, "--report", out)
    assert "voiced" in done.stdout
    assert "Speech 4" in done.stdout
    assert "states: 1 of 64 dimensions never move, or no more than float16 rounds: 5" in done.stdout
    assert out.read_bytes() == statistics_page(str(store), found_in(store))
    done = coat("stats", store, "--expert", "pitch", "--json")
    (data,) = json.loads(done.stdout)
    assert data["channels"] == ["log2_f0_hz", "voicing", "loudness_db"]
    assert data["voiced_share"] == pytest.approx(0.75, abs=0.05)
    assert len(data["variance"]) == 3
    assert "loudness_db" in coat("stats", store, "--expert", "pitch").stdout
    assert "no targets of whisper" in coat("stats", store, "--expert", "whisper", status=2).stderr
    assert "is this a store?" in coat("stats", tmp_path / "nothing", status=2).stderr


def test_saved_sums_that_are_damaged_are_told(store: Path) -> None:
    coat("stats", store)
    saved = next(p for p in store.glob("pitch/*/statistics/*.npz") if p.name != "pca.npz")
    saved.write_bytes(saved.read_bytes()[:-1])
    assert f"pitch: statistics/{saved.name} is not used: it was damaged" in coat("stats", store, "--json").stderr
    assert coat("stats", store, "--json").stderr == ""


def test_the_page_needs_nothing_and_strangers_words_are_words(store: Path) -> None:
    document = statistics_page(str(store), found_in(store)).decode()
    assert "<script" not in document
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in document
    assert not re.findall(r'(?:src|href)="(?!data:|#)', document)
    pictures = re.findall(r'src="data:image/png;base64,(.*?)"', document)
    assert len(pictures) == 3 + 4 + 1  # values, ranges, components; of events their shares, too; pitch's channels
    for data in pictures:
        colours = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getcolors(1 << 20)
        assert colours is not None
        assert len(colours) > 8


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to open the page with")
def test_a_browser_has_nothing_to_complain_of(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.write_bytes(statistics_page(str(store), found_in(store)))
    dom, console = browse(out, "", "--dump-dom")
    assert console == []
    assert "voiced" in dom


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """128 MB and 384 MB of float16 frames, each in a process of its own: the peak is of the whole process. With
    one heap: how many malloc keeps is a matter of the load.
    """
    script = (
        PEAK
        + """
import sys
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.statistics.compute import compute_statistics
compute_statistics(TargetStore(sys.argv[1]).target_set("e"), exact_values=0)
print(peak())
"""
    )
    frames_ND = correlated(64 * 2**20 // 128, 64).astype(np.float16)
    peaks = []
    for copies in (2, 6):
        spec = spec_of(64, dtype="float16")
        put_all(tmp_path / str(copies), spec, np.concatenate([frames_ND] * copies), units=4 * copies)
        command = [sys.executable, "-c", script, str(tmp_path / str(copies))]
        one_heap = os.environ | {"MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(command, cwd=ROOT, env=one_heap, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    assert peaks[1] - peaks[0] < 64 * 2**20
