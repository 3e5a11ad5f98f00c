"""A short run of each tiny student, and a corpus of three clips with a store of their experts' targets."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from coat.analysis.listening.session import ListeningSession
from coat.manifests import Manifest, decode
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store.unit_writer import commit_unit, write_spec
from coat.trainer.training.train import train
from tests.trainer.helpers import RATE, SPECS, toy_config, toy_sample

IDS = ("c0", "c1", "../<b>c2</b>")


@pytest.fixture(scope="session")
def run(folder: Path, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of each student, trained for two steps."""
    out = tmp_path_factory.mktemp("listened") / "run"
    train(toy_config(folder, shards_dir, out, steps=2))
    return out


@pytest.fixture(scope="session")
def one_run(student_dir: Path, shards_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("listened") / "run"
    train(toy_config(student_dir, shards_dir, out, steps=2))
    return out


@pytest.fixture
def session(one_run: Path) -> ListeningSession:
    return ListeningSession.load(str(one_run))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for i, identity in enumerate(IDS):
        soundfile.write(folder / f"{i}.wav", toy_sample(i, seconds=1.0 + 0.1 * i)["audio"], RATE)
        asked = {"prompt": "High or low?", "response": "low" if i % 2 else "high"}
        rows.append({"id": identity, "audio_filepath": f"{i}.wav", **asked})
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "m.jsonl"


@pytest.fixture(scope="session")
def store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Targets of all four experts; prosody failed on c1."""
    out = tmp_path_factory.mktemp("store")
    for name, spec in SPECS.items():
        url = TargetStore(str(out)).set_url(spec)
        write_spec(url, spec)
        rows, frames = [], [np.zeros((0, spec.dim))]
        for i, u in enumerate(Manifest.read(str(corpus))):
            clip, first = decode(u.audio), sum(map(len, frames))
            if name == "prosody" and u.id == "c1":
                rows.append(Row("", u.id, u.digest, None, 0.0, first, 0, "failed", "model: broke"))
                continue
            own = toy_sample(i, seconds=1.0 + 0.1 * i)["targets"][name]
            rows.append(Row("", u.id, u.digest, clip.digest, clip.seconds, first, len(own), "ok", None))
            frames.append(own)
        commit_unit(url, "u-0", np.concatenate(frames).astype(spec.dtype), rows, {})
    return out
