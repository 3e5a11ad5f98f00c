"""One utterance with a click, target sets of it, and what a page shows."""

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from coat.manifests import Manifest, decode
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import commit_unit, write_spec

RATE = 16000
CLICK_S = 1.3  # of the sound


def spec_of(expert: str, kind: str, dim: int, rate_hz: float, start_s: float = 0.0, **more: Any) -> TargetSpec:
    fields = {"version": 1, "family": "events", "sample_rate": RATE, "min_samples": 1, "dtype": "float32"} | more
    return TargetSpec(expert=expert, kind=kind, dim=dim, rate_hz=rate_hz, start_s=start_s, **fields)  # pyright: ignore[reportArgumentType]


def put(store: Path, spec: TargetSpec, manifest: Path, frames: NDArray[Any] | str, identity: str = "a") -> None:
    """Commit one row of a set: its frames, or why it failed."""
    (u,) = [u for u in Manifest.read(str(manifest)) if u.id == identity]
    url = TargetStore(str(store)).set_url(spec)
    write_spec(url, spec)
    if isinstance(frames, str):
        row = Row("", u.id, u.digest, None, 0.0, 0, 0, "failed", frames)
        commit_unit(url, f"unit-{identity}", np.zeros((0, spec.dim), np.float32), [row], {})
        return
    clip = decode(u.audio, u.offset, u.duration)
    row = Row("", u.id, u.digest, clip.digest, clip.seconds, 0, len(frames), "ok", None)
    commit_unit(url, f"unit-{len(u.id)}", frames.astype(np.float32), [row], {})


def corpus(folder: Path, seconds: float = 4.0, **row: Any) -> Path:
    """One utterance `a` with a click of a millisecond at CLICK_S."""
    folder.mkdir(exist_ok=True)
    samples = np.zeros(round(seconds * RATE), np.float32)
    samples[round(CLICK_S * RATE) :][:16] = 0.9
    soundfile.write(folder / "a.wav", samples, RATE)
    path = folder / "m.jsonl"
    path.write_text(json.dumps({"id": "a", "audio_filepath": "a.wav", "prompt": "What?", "response": "A click."} | row))
    return path


def images(document: str) -> dict[str, NDArray[np.uint8]]:
    """Pictures of a page by the names of their tracks, `[height, width, 3]`."""
    found = re.findall(r'<img alt="(.*?) over time" src="data:image/png;base64,(.*?)"', document)
    return {html.unescape(n): np.asarray(Image.open(io.BytesIO(base64.b64decode(d))).convert("RGB")) for n, d in found}


def place(image: NDArray[np.uint8], seconds: float = 4.0) -> tuple[float, float]:
    """Seconds from where to where a picture is not as its first column is."""
    other = np.flatnonzero((image != image[:, :1]).any(axis=(0, 2)))
    return other[0] / image.shape[1] * seconds, (other[-1] + 1) / image.shape[1] * seconds


def data_of(document: str) -> dict[str, Any]:
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', document)[0])


def event(spec: TargetSpec, frames: int, frame: int, channel: int, value: float = 1.0) -> NDArray[np.float32]:
    made = np.zeros((frames, spec.dim), np.float32)
    made[frame, channel] = value
    return made


PIXEL_S = 4.0 / 2000  # of a track's picture
