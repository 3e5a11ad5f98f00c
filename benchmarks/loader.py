"""Reading shards: against the least that it can cost, beside what people use today, and while a student learns.

(bare) each tar read from end to end, and its FLAC members decoded: neither headers nor targets are looked at
(a) plain `webdataset`, the members decoded by the same libsndfile and numpy
(b) Hugging Face `datasets`, the same tars, streaming; its Arrow batches of numpy, audio decoded by the same libsndfile
(c) Lhotse Shar, in order
(d) a folder with one .flac, one .json and one .npy an expert for each sample
(e) coat: `iterate_shards`, which also checks every sample against the index

All give samples as float32 and targets as they were stored, in one thread and in the order of the disk; the script
fails where their counts differ. Files are in the page cache: of a disk, all read the same bytes.
"""

import argparse
import io
import json
import shutil
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import xxhash
from numpy.typing import NDArray

from benchmarks.common import ROOT, Figure, Results, durations, format_range, judged, median, results, speech_like
from coat.manifests import ExpertInfo, ShardIndex, ShardInfo, TargetSpec
from coat.manifests.shards.tar import TAR_END, sample_bytes
from coat.manifests.targets.arrays import to_npy

RATE = 16000
EXPERTS = {"speech": (384, 50.0), "sound": (768, 50.0), "pitch": (3, 100.0)}  # dim and Hz: of the kinds people train on
SHARD_SAMPLES = 50
STUDENT_S = 3.0  # what a tiny student hears
BATCH = 8
WINDOW = 256  # samples that are cut into batches by length
LEVEL = 0.95  # what counts as level: repeats of one reader differ by as much

Members = dict[str, bytes]  # of one sample, by suffix
Counts = tuple[int, int, int]  # samples, samples of audio, values of targets
Decoded = Iterator[tuple[NDArray[Any], list[NDArray[Any]]]]  # audio [S], and each expert's [N, D]


def make_members(rng: np.random.Generator, key: str, seconds: float) -> Members:
    flac = io.BytesIO()
    soundfile.write(flac, speech_like(rng, int(seconds * RATE), RATE), RATE, format="FLAC", subtype="PCM_16")
    seconds = int(seconds * RATE) / RATE
    arrays = {n: rng.standard_normal((max(1, int(seconds * hz)), dim), np.float32) for n, (dim, hz) in EXPERTS.items()}
    meta = {"id": key, "key": key, "duration": seconds, "prompt": "Does the pitch rise or fall?", "response": "rise",
            "targets": {name: len(frames_ND) for name, frames_ND in arrays.items()}}  # fmt: skip
    targets = {f"{name}.npy": to_npy(frames_ND.astype(np.float16)) for name, frames_ND in arrays.items()}
    return {"flac": flac.getvalue(), "json": json.dumps(meta).encode(), **targets}


def write_shards(folder: Path, samples: list[tuple[str, Members]], per_shard: int = SHARD_SAMPLES) -> ShardIndex:
    folder.mkdir(parents=True)
    shards = []
    for start in range(0, len(samples), per_shard):
        part, path = samples[start : start + per_shard], folder / f"shard-{start // per_shard:06d}.tar"
        path.write_bytes(b"".join([*(sample_bytes(key, members) for key, members in part), TAR_END]))
        digest = xxhash.xxh3_128_hexdigest(path.read_bytes())
        seconds = sum(json.loads(members["json"])["duration"] for _, members in part)
        shards.append(
            ShardInfo(name=path.name, samples=len(part), bytes=path.stat().st_size, seconds=seconds, xxh3=digest)
        )
    experts = {}
    for name, (dim, hz) in EXPERTS.items():
        spec = TargetSpec(
            expert=name, version=1, family="reconstruction", kind="representation", dim=dim, rate_hz=hz, start_s=0.0,
            sample_rate=RATE, min_samples=400, dtype="float16",
        )  # fmt: skip
        experts[name] = ExpertInfo(spec=spec, samples=len(samples), frames=1, mean=(0.0,) * dim, std=(1.0,) * dim)
    index = ShardIndex(path=str(folder), layout="joint", sample_rate=RATE, shards=tuple(shards), experts=experts)
    index.write(str(folder))
    return index


def write_files(folder: Path, samples: list[tuple[str, Members]]) -> None:
    folder.mkdir()
    for key, members in samples:
        for suffix, data in members.items():
            (folder / f"{key}.{suffix}").write_bytes(data)


def write_shar(folder: Path, files: Path, samples: list[tuple[str, Members]]) -> None:
    from lhotse import Recording
    from lhotse.shar import SharWriter

    folder.mkdir()
    fields = {"recording": "flac", **dict.fromkeys(EXPERTS, "numpy")}
    with SharWriter(str(folder), fields, shard_size=SHARD_SAMPLES) as writer:
        for key, members in samples:
            cut: Any = Recording.from_file(files / f"{key}.flac", recording_id=key).to_cut()
            for name in EXPERTS:
                cut = cut.attach_tensor(name, np.load(io.BytesIO(members[f"{name}.npy"])))
            writer.write(cut)


def decode_flac(data: bytes) -> NDArray[np.float32]:
    return np.asarray(soundfile.read(io.BytesIO(data), dtype="float32")[0], np.float32)


def counted(samples: Decoded) -> Counts:
    number, heard, values = 0, 0, 0
    for audio_S, targets in samples:
        number, heard, values = number + 1, heard + audio_S.size, values + sum(t.size for t in targets)
    return number, heard, values


def bare(folder: Path, spans: dict[str, list[tuple[int, int]]]) -> Counts:
    number, heard = 0, 0
    whole = memoryview(bytearray(max(path.stat().st_size for path in folder.glob("*.tar"))))  # touched once, then again
    for name, members in spans.items():
        with (folder / name).open("rb") as f:
            f.readinto(whole)
        for offset, size in members:
            heard += len(decode_flac(bytes(whole[offset : offset + size])))
            number += 1
    return number, heard, 0


def flac_spans(folder: Path) -> dict[str, list[tuple[int, int]]]:
    spans = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            spans[path.name] = [(m.offset_data, m.size) for m in tar if m.name.endswith(".flac")]
    return spans


def coat(folder: Path) -> Counts:
    from coat.trainer.data.shard_reading import iterate_shards

    return counted((s.samples_S, list(s.targets.values())) for s in iterate_shards(str(folder)))


def plain_webdataset(folder: Path) -> Counts:
    from webdataset.compat import WebDataset

    def samples() -> Decoded:
        for sample in WebDataset(sorted(map(str, folder.glob("*.tar"))), shardshuffle=False):
            json.loads(sample["json"])
            yield decode_flac(sample["flac"]), [np.load(io.BytesIO(sample[f"{name}.npy"])) for name in EXPERTS]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return counted(samples())


def hugging_face(folder: Path) -> Counts:
    import datasets

    def samples() -> Decoded:
        files = sorted(map(str, folder.glob("*.tar")))
        found = datasets.load_dataset("webdataset", data_files={"train": files}, split="train", streaming=True)
        for sample in found.cast_column("flac", datasets.Audio(decode=False)).with_format("numpy"):
            yield decode_flac(sample["flac"]["bytes"]), [np.asarray(sample[f"{name}.npy"]) for name in EXPERTS]

    return counted(samples())


def lhotse_shar(folder: Path) -> Counts:
    from lhotse import CutSet

    cuts: Any = CutSet.from_shar(in_dir=str(folder))
    return counted((cut.load_audio()[0], [cut.load_custom(name) for name in EXPERTS]) for cut in cuts)


def one_file_each(folder: Path) -> Counts:
    def samples() -> Decoded:
        for path in sorted(folder.glob("*.json")):
            json.loads(path.read_bytes())
            audio_S = soundfile.read(path.with_suffix(".flac"), dtype="float32")[0]
            yield audio_S, [np.load(path.with_suffix(f".{name}.npy")) for name in EXPERTS]

    return counted(samples())


def reading(clips: int, rounds: int, found: Results) -> None:
    rng = np.random.default_rng(5)
    root = ROOT / "loader"
    shutil.rmtree(root, ignore_errors=True)
    samples = [(f"c{i:05d}", make_members(rng, f"c{i:05d}", s)) for i, s in enumerate(durations(clips, rng).tolist())]
    index = write_shards(root / "shards", samples)
    write_files(root / "files", samples)
    write_shar(root / "shar", root / "files", samples)
    shards, spans = root / "shards", flac_spans(root / "shards")
    sides: dict[str, Callable[[], Counts]] = {
        "bare": lambda: bare(shards, spans),
        "coat": lambda: coat(shards),
        "webdataset": lambda: plain_webdataset(shards),
        "datasets streaming": lambda: hugging_face(shards),
        "Lhotse Shar": lambda: lhotse_shar(root / "shar"),
        "one file each": lambda: one_file_each(root / "files"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        counts = {}
        for name, side in sides.items():
            started = time.perf_counter()
            counts[name] = side()
            if turn:  # the first warms everything up
                seconds[name].append(time.perf_counter() - started)
        assert len({c for name, c in counts.items() if name != "bare"}) == 1, counts
        assert counts["bare"][:2] == counts["coat"][:2], counts

    def ratios(name: str) -> list[float]:
        return [theirs / own for theirs, own in zip(seconds[name], seconds["coat"], strict=True)]

    steady, rate = seconds["coat"], ratios("bare")
    mine = median(steady)
    note = f"{index.seconds / mine:.0f} x real time, {clips / mine:.0f} samples and {index.bytes / mine / 1e6:.0f} MB/s"
    claim = "reading and decoding / bare reading and FLAC"
    found.add(Figure(claim, format_range(rate), "0.8", judged(median(rate) >= 0.8, steady), note))
    for name in ("webdataset", "datasets streaming", "Lhotse Shar", "one file each"):
        rate = ratios(name)
        met = judged(median(rate) >= LEVEL, steady)
        note = f"{clips / median(seconds[name]):.0f} samples/s"
        found.add(Figure(f"reading and decoding: coat / {name}", format_range(rate), "ahead or level", met, note))
    found.data["reading"] = {"clips": clips, "audio_seconds": index.seconds, "bytes": index.bytes, "seconds": seconds}
    resuming(index, found)


def resuming(index: ShardIndex, found: Results) -> None:
    from coat.trainer.data.stream import ShardStream

    def first(position: int) -> float:
        stream = ShardStream(index, seed=0, shuffle=16)
        stream.seek(replace(stream.cursor, position=position, window=None))
        started = time.perf_counter()
        next(stream)
        return 1000 * (time.perf_counter() - started)

    state = len(json.dumps(asdict(ShardStream(index, seed=0, shuffle=16).cursor)))
    start, end = median([first(0) for _ in range(5)]), median([first(index.samples - 1) for _ in range(5)])
    value = f"{start:.0f} / {end:.0f} ms"
    found.add(Figure("first sample: of an epoch / at its last position", value, note=f"the state is {state} bytes"))


def learning(steps: int, found: Results) -> None:
    """A tiny student of the quickstart's size, from shards of clips that it hears whole."""
    from coat.trainer import TrainConfig, train
    from coat.trainer.run_folder import read_metrics
    from coat.trainer.tiny_students.make import make_tiny_student

    rng = np.random.default_rng(6)
    root = ROOT / "loader"
    lengths_s = rng.uniform(0.5, STUDENT_S, 160).tolist()
    write_shards(root / "short", [(f"c{i:05d}", make_members(rng, f"c{i:05d}", s)) for i, s in enumerate(lengths_s)])
    make_tiny_student(root / "student", hidden=64, heads=4)
    for name, data in {"as they come": {}, "by length": {"batch_tokens": 150 * BATCH}}.items():
        config = TrainConfig.from_dict(
            {
                "student": {"path": str(root / "student")},
                "thinking": {"count": 16},
                "data": {"shards": str(root / "short"), "batch_size": BATCH, "shuffle": 64, "workers": 1, **data},
                "heads": {"dim": 64, "layers": 1, "heads": 2},
                "lora": {"full": True},
                "stages": [{"name": "distill", "steps": steps}],
                "run": {"out": str(root / f"run {name}"), "log_every": 1},
            },
            "benchmark",
        )
        train(config)
        shares = [row["wait_share"] for row in read_metrics(root / f"run {name}")]
        waited = float(np.mean(shares[1:]))
        claim = f"wait for the loader, of a tiny student's step, {name}"
        note = f"largest of a step {max(shares[1:]):.2%}; the first step, while threads start: {shares[0]:.0%}"
        found.add(Figure(claim, f"{waited:.2%}", "< 1%", waited < 0.01, note))
        found.data[f"wait_share {name}"] = shares
    padding(root, found)


def padding(root: Path, found: Results) -> None:
    from coat.trainer.config.sections import DataConfig, ThinkingConfig
    from coat.trainer.data.batching import group_by_length
    from coat.trainer.data.collator import Collator
    from coat.trainer.data.stream import ShardStream
    from coat.trainer.model.thinking import ThinkingBlock
    from coat.trainer.students.registry import load_student

    student = load_student(str(root / "student"))
    index = ShardIndex.read(str(root / "shards"))
    collator = Collator(student, ThinkingBlock.add_to(student, ThinkingConfig(count=16)), index, list(EXPERTS))
    config, stream = DataConfig(shards=index.path), ShardStream(index, seed=0, shuffle=WINDOW)
    lengths = [collator.sequence_length(raw, config) for raw in stream.next_window().samples]
    budget = max(BATCH * int(np.mean(lengths)), max(lengths))

    def share(groups: list[list[int]]) -> float:
        return 1 - sum(lengths) / sum(len(g) * max(lengths[i] for i in g) for g in groups)

    came = [list(range(i, min(i + BATCH, len(lengths)))) for i in range(0, len(lengths), BATCH)]
    value = f"{share(group_by_length(lengths, 4 * BATCH, budget)):.1%} / {share(came):.1%}"
    found.add(Figure("padding of batches by length / as they come", value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    with results("loader") as found:
        reading(arguments.clips, arguments.rounds, found)
        learning(arguments.steps, found)
        shutil.rmtree(ROOT / "loader")


if __name__ == "__main__":
    main()
