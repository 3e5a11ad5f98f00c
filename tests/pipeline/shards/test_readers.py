"""Shards in the hands of readers that are not ours: webdataset, tarfile by the index, Hugging Face, Energon."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from webdataset.compat import WebDataset

from coat.manifests import Manifest
from coat.manifests.shards.index import ShardIndex
from coat.manifests.shards.reading import read_sample_at
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.shards.build import build_shards
from coat.pipeline.store.target_store import TargetStore
from tests.pipeline.conftest import write_corpus

Frames = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Frames]:
    """A set of 30 samples in several tars, and its targets by id."""
    root = tmp_path_factory.mktemp("built")
    manifest, store = write_corpus(root / "corpus", 30), str(root / "store")
    extract(str(manifest), store, ["tests.pipeline.experts:Level"], resources=Resources(workers=0))
    build_shards(str(manifest), store, ["level"], str(root / "out"), 300_000)
    level = TargetStore(store).target_set("level")
    return root / "out", {u.id: level.read(u).frames for u in Manifest.read(str(manifest))}


def check(samples: Iterable[Mapping[str, Any]], frames: Frames, key: str = "__key__") -> None:
    """Raw members of every sample, once."""
    seen = []
    for s in samples:
        seen.append(s[key])
        np.testing.assert_array_equal(np.load(io.BytesIO(s["level.npy"]), allow_pickle=False), frames[s[key]])
        record = json.loads(s["json"])
        assert (record["id"], record["response"]) == (s[key], "noise")
        audio, rate = soundfile.read(io.BytesIO(s["flac"]))
        assert rate == 16000
        assert len(audio) / rate == pytest.approx(record["duration"], abs=1e-5)
    assert sorted(seen) == sorted(frames)


def test_webdataset(built: tuple[Path, Frames]) -> None:
    out, frames = built
    tars = sorted(str(p) for p in out.glob("*.tar"))
    assert len(tars) > 3
    check(WebDataset(tars, shardshuffle=False, empty_check=False), frames)


def test_any_sample_by_its_place_in_the_index_with_nothing_of_coat(built: tuple[Path, Frames]) -> None:
    """As wids does it: an index, one read of one span, and tarfile."""
    out, frames = built
    shards = json.loads((out / "index.json").read_text())["shards"]
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    samples = []
    for row in reversed(rows):
        with (out / shards[row["shard"]]["name"]).open("rb") as f:
            f.seek(row["offset"])
            span = io.BytesIO(f.read(row["length"]))
        with tarfile.open(fileobj=span, mode="r:") as tar:
            members = {m.name.split(".", 1)[1]: tar.extractfile(m).read() for m in tar}  # pyright: ignore
        samples.append({**members, "__key__": row["key"]})
        assert len(frames[row["id"]]) == row["frames.level"]
    check(samples, frames)


def test_any_sample_by_its_place_with_coat(built: tuple[Path, Frames]) -> None:
    out, frames = built
    index = ShardIndex.read(str(out))
    rows = index.table().to_pylist()
    read = [read_sample_at(index.path, index.shards[r["shard"]].name, r["offset"], r["length"]) for r in rows]
    check([{**s.members, "__key__": s.key} for s in read], frames)


def test_hugging_face_datasets_streams_the_tars(built: tuple[Path, Frames]) -> None:
    import datasets

    out, frames = built
    tars = sorted(str(p) for p in out.glob("*.tar"))
    stream = datasets.load_dataset("webdataset", data_files=tars, split="train", streaming=True)
    stream = stream.cast_column("flac", datasets.Audio(decode=False))
    seen = []
    for sample in stream:
        seen.append(sample["__key__"])
        np.testing.assert_array_equal(np.array(sample["level.npy"], np.float16), frames[sample["__key__"]])
        assert sample["json"]["prompt"] == "What is it?"
        audio, _ = soundfile.read(io.BytesIO(sample["flac"]["bytes"]))
        assert len(audio) / 16000 == pytest.approx(sample["json"]["duration"], abs=1e-5)
    assert sorted(seen) == sorted(frames)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true")
def test_megatron_energon(built: tuple[Path, Frames]) -> None:
    energon = pytest.importorskip("megatron.energon", reason="pip install megatron-energon")
    out, frames = built

    @energon.stateless
    def cook(sample: dict[str, Any]) -> Any:
        level = np.load(io.BytesIO(sample["level.npy"]), allow_pickle=False)
        audio, rate = soundfile.read(io.BytesIO(sample["flac"]))
        record = json.loads(sample["json"])
        assert len(audio) / rate == pytest.approx(record["duration"], abs=1e-4)
        text = json.dumps({"level": level.tolist(), "json": record})
        return energon.TextSample(**energon.basic_sample_keys(sample), text=text)

    class Encoder(energon.DefaultTaskEncoder):
        cookers = (energon.Cooker(cook),)
        decoder = None  # bytes: its own decoder of audio wants PyAV

        def batch(self, samples: list[Any]) -> list[Any]:
            return samples

    config = energon.WorkerConfig(rank=0, world_size=1, num_workers=2)
    once = energon.get_val_dataset(out, split_part="train", worker_config=config, batch_size=4, task_encoder=Encoder())
    seen = {}
    for sample in chain.from_iterable(energon.get_loader(once)):
        content = json.loads(sample.text)
        assert content["json"]["id"] not in seen
        seen[content["json"]["id"]] = np.array(content["level"], np.float16)
    assert seen.keys() == frames.keys()
    for name, values in seen.items():
        np.testing.assert_array_equal(values, frames[name])

    shuffled = energon.get_train_dataset(
        out,
        worker_config=config,
        batch_size=3,
        shuffle_buffer_size=8,
        max_samples_per_sequence=None,
        task_encoder=Encoder(),
    )
    drawn = chain.from_iterable(islice(energon.get_loader(shuffled), 40))  # without end
    assert {json.loads(sample.text)["json"]["id"] for sample in drawn} == frames.keys()


def test_what_is_written_for_energon_has_its_documented_fields(built: tuple[Path, Frames]) -> None:
    out, frames = built
    index = ShardIndex.read(str(out))
    info = json.loads((out / ".nv-meta/.info.json").read_text())
    assert info["shard_counts"] == {s.name: s.samples for s in index.shards}
    assert sum(info["shard_counts"].values()) == len(frames)
    split = json.loads((out / ".nv-meta/split.yaml").read_text())
    assert split == {"split_parts": {"train": [s.name for s in index.shards], "val": [], "test": []}, "exclude": []}
    rows = index.table().to_pylist()
    for number, shard in enumerate(index.shards):
        offsets = np.fromfile(out / f"{shard.name}.idx", "<u8").tolist()
        assert offsets[:-1] == [r["offset"] for r in rows if r["shard"] == number]
        assert offsets[-1] == shard.bytes - 1024
