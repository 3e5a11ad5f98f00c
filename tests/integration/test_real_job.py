"""The main job on real recordings, by its commands, and what other readers see of its files."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import zarr
from webdataset.compat import WebDataset

from coat.manifests import Manifest, decode
from coat.pipeline import TargetStore
from tests.extractors.experts.test_whisper import plain_loop
from tests.integration.helpers import coat, folder

pytestmark = pytest.mark.real

EXPERTS = ("pitch", "yamnet", "prosody")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the targets of all recordings."""
    root = tmp_path_factory.mktemp("job")
    manifest = folder("COAT_REAL_DIR") / "manifest.jsonl"
    experts = [argument for name in EXPERTS for argument in ("--expert", name)]
    done = coat("extract", *experts, "--manifest", manifest, "--store", root / "targets", "--json")
    for summary in json.loads(done.stdout):
        assert (summary["ok"], summary["failed"], summary["skipped"]) == (51, 0, 0)
    return root


def test_from_recordings_to_an_answer(work: Path) -> None:
    manifest = folder("COAT_REAL_DIR") / "manifest.jsonl"
    targets, shards, student, run = (work / name for name in ("targets", "shards", "student", "run"))
    coat("verify", targets)
    coat("build-shards", "--manifest", manifest, "--store", targets, "--experts", ",".join(EXPERTS), "--out", shards)
    coat("tiny-student", "qwen2-audio", student, "--seconds", 12)
    small = ["--set", "stages.0.steps=6", "--set", "stages.1.steps=6", "--set", "data.batch_size=4"]
    small += ["--set", "lora.full=true", "--set", "heads.dim=32", "--set", "run.log_every=1"]
    config = work / "train.toml"
    config.write_text('[[stages]]\nname = "distill"\nsteps = 1\nce = 0.1\n[[stages]]\nname = "answer"\nsteps = 1\n')
    coat("train", "--config", config, "--student", student, "--shards", shards, "--out", run, *small)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(1, 13))
    assert all(np.isfinite([v for v in r.values() if isinstance(v, float)]).all() for r in rows)
    assert {f"distill/{name}" for name in EXPERTS} <= {key for r in rows for key in r}
    assert (run / "tensorboard").is_dir()
    u = Manifest.read(str(manifest))[0]
    answer = coat("generate", "--run", run, "--audio", u.audio, "--prompt", u.prompt, "--max-new-tokens", 4, "--json")
    assert json.loads(answer.stdout)["prompt"] == u.prompt


def test_plain_readers_see_what_was_written(work: Path) -> None:
    """webdataset.WebDataset and zarr.open_array, with nothing of coat between."""
    manifest = folder("COAT_REAL_DIR") / "manifest.jsonl"
    where = ["--manifest", manifest, "--store", work / "targets"]
    coat("build-shards", *where, "--experts", "pitch", "--out", work / "plain")
    urls = sorted(str(p) for p in (work / "plain").glob("*.tar"))
    samples = {s["__key__"]: s for s in WebDataset(urls, shardshuffle=False)}
    assert len(samples) == 51
    pitch = TargetStore(str(work / "targets")).target_set("pitch")
    for u in Manifest.read(str(manifest)):
        sample = samples[u.key]
        frames = np.load(io.BytesIO(sample["pitch.npy"]), allow_pickle=False)
        np.testing.assert_array_equal(frames, pitch.read(u).frames)
        audio, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert abs(len(audio) / rate - json.loads(sample["json"])["duration"]) < 0.001
    units = sorted((work / "targets" / "pitch").glob("*/units/*/frames.zarr"))
    arrays = [zarr.open_array(str(unit), mode="r") for unit in units]
    assert sum(a.shape[0] for a in arrays) == sum(r.frames for r in pitch.rows.values())
    assert all(np.isfinite(np.asarray(a[:])).all() for a in arrays)


def test_stored_whisper_states_equal_a_plain_loop(work: Path) -> None:
    """`coat extract`, with its units and batches, against one clip at a time in transformers: 1e-3 relative."""
    manifest, checkpoint = folder("COAT_REAL_DIR") / "manifest.jsonl", folder("COAT_WHISPER_DIR")
    where = ["--manifest", manifest, "--store", work / "targets", "--checkpoint", checkpoint]
    coat("extract", "--expert", "whisper", *where)
    targets = TargetStore(str(work / "targets")).target_set("whisper")
    assert targets.spec.dtype == "float16"
    worst = 0.0
    for u in Manifest.read(str(manifest)):
        samples = decode(u.audio, u.offset, u.duration).at(16000)
        reference, stored = plain_loop(checkpoint, samples), targets.read(u).frames.astype(np.float32)
        assert stored.shape == reference.shape
        assert len(stored) == -(-len(samples) // 320)
        error = np.linalg.norm(stored - reference) / np.linalg.norm(reference)
        worst = max(worst, float(error))
    print(f"whisper: largest relative error of a clip {worst:.2e}")
    assert worst < 1e-3
