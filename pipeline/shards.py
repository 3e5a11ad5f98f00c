"""`coat build-shards`: join audio, text and targets into WebDataset tars.

Equal inputs give equal bytes: the order is a seeded shuffle, cuts depend on sizes alone, times and owners
in the tars are fixed. A shard is written under another name and renamed; index.json comes last.
N frames, D dim, T samples.
"""

import io
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import soundfile
import xxhash
from numpy.typing import NDArray

from coat.manifests import files
from coat.manifests.audio import AudioError, decode
from coat.manifests.errors import InputError, RunError
from coat.manifests.manifest import Manifest
from coat.manifests.shard_index import INDEX_NAME, ExpertInfo, ShardIndex, ShardInfo
from coat.manifests.utterance import Utterance
from coat.pipeline.cluster import Cluster, connect
from coat.pipeline.statistics import moments
from coat.pipeline.store import Row, TargetSet, TargetStore

Missing = Literal["fail", "mask", "skip"]

SAMPLE_RATE = 16_000  # Hz; what the audio towers of the students hear
FLAC_BYTES_PER_SECOND = 17_000  # of 16-bit mono speech and music at 16 kHz, for cutting shards
TAR_OVERHEAD = 1024  # bytes a member: header and padding
NAMED = 10  # ids in one message


@dataclass(frozen=True)
class Sample:
    """One sample to be written, and where its targets lie, by expert."""

    utterance: Utterance
    rows: Mapping[str, Row]
    bytes: int  # about


@dataclass(frozen=True)
class ShardJob:
    """One tar to be written; small enough to send anywhere."""

    name: str
    out: str
    set_urls: Mapping[str, str]
    samples: tuple[Sample, ...]
    missing: Missing


@dataclass(frozen=True)
class Built:
    """What became of one tar. `left_out` has (id, reason) of samples that could not be written whole."""

    info: ShardInfo
    expert_samples: Mapping[str, int]
    expert_frames: Mapping[str, int]
    left_out: tuple[tuple[str, str], ...]


def build_shards(
    manifest: Manifest | str,
    store: str,
    experts: Sequence[str],
    out: str,
    shard_size: int = 256 * 2**20,
    missing: Missing = "fail",
    seed: int | None = 0,
    workers: int = 0,
    ray_address: str | None = None,
    overwrite: bool = False,
    on_planned: Callable[[int], None] = lambda samples: None,
    on_shard: Callable[[Built], None] = lambda built: None,
) -> ShardIndex:
    """Write a shard set (joint layout) and give its index.

    `experts` are names, or `name@fingerprint` where the store has several. `missing` says what happens to
    an utterance that lacks a target: fail (InputError names them, nothing is written), mask (its sample
    goes without that target), skip (it is left out). `seed` None keeps the manifest's order.
    """
    if missing not in get_args(Missing):
        raise InputError(f"--missing {missing}: expected one of {', '.join(get_args(Missing))}")
    manifest = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    out = files.absolute(out)
    if files.exists(files.join(out, INDEX_NAME)) and not overwrite:
        raise InputError(f"{out}: holds a shard set already; give another --out, or --overwrite")
    check_out(out)
    sets = open_sets(store, experts)
    samples, left_out = choose_samples(manifest, sets, missing)
    if not samples:
        raise InputError(f"{manifest.path}: no utterance has all that --missing {missing} asks for; run `coat extract`")
    if seed is not None:
        random.Random(seed).shuffle(samples)  # a trainer reads tars in order: neighbours should be strangers
    remove_old(out)
    set_urls = {name: targets.url for name, targets in sets.items()}
    jobs = [
        ShardJob(f"shard-{i:06d}.tar", out, set_urls, tuple(part), missing)
        for i, part in enumerate(cut(samples, shard_size))
    ]
    on_planned(len(samples))
    built = []
    for b in run(jobs, workers, ray_address):
        built.append(b)
        on_shard(b)
    built.sort(key=lambda b: b.info.name)
    late = [item for b in built for item in b.left_out]
    if missing == "fail" and late:
        raise InputError(f"{manifest.path}: {len(late)} utterances cannot be written: {listed(late)}")
    index = ShardIndex(
        path=out,
        layout="joint",
        sample_rate=SAMPLE_RATE,
        shards=tuple(b.info for b in built),
        experts={name: expert_info(name, targets, built) for name, targets in sets.items()},
        skipped=len(left_out) + len(late),
    )
    index.write(out)
    return index


def open_sets(store: str, experts: Sequence[str]) -> dict[str, TargetSet]:
    sets = {}
    for wanted in dict.fromkeys(experts):
        name, _, fingerprint = wanted.partition("@")
        if name in sets:
            raise InputError(f"--experts: {name} stands twice")
        sets[name] = TargetStore(store).target_set(name, fingerprint or None)
    if not sets:
        raise InputError("--experts: expected at least one, as pitch,whisper")
    return sets


def choose_samples(
    manifest: Manifest, sets: Mapping[str, TargetSet], missing: Missing
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """Samples to write, and (id, reason) of the utterances that are left out."""
    samples: list[Sample] = []
    lacking: list[tuple[str, str]] = []
    keys: dict[str, Utterance] = {}
    for u in manifest:
        if u.key in keys:
            lacking.append((u.id, f"row {u.row} repeats the id of row {keys[u.key].row}"))
            continue
        keys[u.key] = u
        rows = {name: targets.rows.get(u.digest) for name, targets in sets.items()}
        have = {name: row for name, row in rows.items() if row is not None and row.status == "ok"}
        gone = [f"{name} {row.error if row else 'was not extracted'}" for name, row in rows.items() if name not in have]
        if gone and (missing != "mask" or unheard(rows.values())):
            lacking.append((u.id, gone[0]))
            continue
        seconds = max((row.seconds for row in have.values()), default=u.duration or 0.0)
        size = round(seconds * FLAC_BYTES_PER_SECOND) + 2 * TAR_OVERHEAD
        for name, row in have.items():
            size += row.frames * sets[name].spec.dim * np.dtype(sets[name].spec.dtype).itemsize + TAR_OVERHEAD
        samples.append(Sample(u, have, size))
    if lacking and missing == "fail":
        raise InputError(
            f"{manifest.path}: {len(lacking)} of {len(manifest)} utterances lack a target: {listed(lacking)}; "
            "extract them, or give --missing mask or --missing skip"
        )
    return samples, lacking


def unheard(rows: Iterable[Any]) -> bool:
    """No expert could decode it: then a shard cannot hold its audio either."""
    return all(row is not None and row.source is None for row in rows)


def cut(samples: Sequence[Sample], shard_size: int) -> Iterator[list[Sample]]:
    part: list[Sample] = []
    size = 0
    for sample in samples:
        if part and size + sample.bytes > shard_size:
            yield part
            part, size = [], 0
        part.append(sample)
        size += sample.bytes
    if part:
        yield part


def run(jobs: Sequence[ShardJob], workers: int, ray_address: str | None) -> Iterator[Built]:
    """In this process, or as Ray tasks."""
    if workers == 0 and not ray_address:
        yield from map(build_shard, jobs)
        return
    import ray

    started_here = connect(Cluster(workers=max(1, workers), address=ray_address))
    try:
        task = ray.remote(build_shard)
        waiting = [task.remote(job) for job in jobs]
        while waiting:
            (finished,), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(finished)
    finally:
        if started_here:
            ray.shutdown()


def build_shard(job: ShardJob) -> Built:
    """Write one tar. RunError where it cannot be written."""
    from webdataset.writer import TarWriter

    sets = {name: TargetSet.open(url) for name, url in job.set_urls.items()}
    counts, frames = dict.fromkeys(sets, 0), dict.fromkeys(sets, 0)
    left_out: list[tuple[str, str]] = []
    seconds, written = 0.0, 0
    buffer = io.BytesIO()
    with TarWriter(buffer, user="coat", group="coat", mode=0o644, mtime=0, encoder=False) as tar:
        for sample in job.samples:
            try:
                members, targets, duration = sample_members(sample, sets, job.missing)
            except AudioError as e:
                left_out.append((sample.utterance.id, f"{e.reason}: {e}"))
                continue
            tar.write({"__key__": sample.utterance.key, **members})
            written, seconds = written + 1, seconds + duration
            for name, frames_ND in targets.items():
                counts[name] += 1
                frames[name] += len(frames_ND)
    data = buffer.getvalue()
    try:
        files.write_bytes(files.join(job.out, job.name), data)
    except OSError as e:
        raise RunError(f"{job.out}: cannot write {job.name} ({e})") from e
    info = ShardInfo(
        name=job.name,
        samples=written,
        bytes=len(data),
        seconds=round(seconds, 6),
        xxh3=xxhash.xxh3_128_hexdigest(data),
    )
    return Built(info, counts, frames, tuple(left_out))


def sample_members(
    sample: Sample, sets: Mapping[str, TargetSet], missing: Missing
) -> tuple[dict[str, bytes], dict[str, NDArray[Any]], float]:
    """Members of one sample, its targets and its seconds. AudioError where it cannot be written."""
    u = sample.utterance
    clip = decode(u.audio, u.offset, u.duration)
    targets: dict[str, NDArray[Any]] = {}
    for name, row in sample.rows.items():
        if row.source == clip.digest:
            targets[name] = sets[name].read_row(row).frames
        elif missing != "mask":
            raise AudioError("changed", f"{u.audio}: its sound changed since {name} was extracted; extract it anew")
    record = {
        "id": u.id,
        "key": u.key,
        "duration": round(clip.seconds, 6),
        "text": u.text,
        "prompt": u.prompt,
        "response": u.response,
        "choices": list(u.choices),
        "targets": {name: len(frames_ND) for name, frames_ND in targets.items()},
        "extra": dict(u.extra),
    }
    members = {"flac": flac(clip.at(SAMPLE_RATE)), "json": files.to_json(record, indent=None)}
    members |= {f"{name}.npy": npy(frames_ND) for name, frames_ND in targets.items()}
    return members, targets, clip.seconds


def flac(samples_T: NDArray[np.float32]) -> bytes:
    """16-bit mono FLAC; resampling may overshoot full scale, which is clipped."""
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(samples_T, -1.0, 1.0), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


def npy(frames_ND: NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    np.save(sink, frames_ND, allow_pickle=False)
    return sink.getvalue()


def expert_info(name: str, targets: TargetSet, built: Sequence[Built]) -> ExpertInfo:
    found = moments(targets)
    return ExpertInfo(
        spec=targets.spec,
        samples=sum(b.expert_samples[name] for b in built),
        frames=sum(b.expert_frames[name] for b in built),
        mean=tuple(found.mean_D.tolist()),
        std=tuple(found.std_D.tolist()),
    )


def check_out(out: str) -> None:
    """InputError where the folder holds what is not of a shard set: tars do not go among strangers' files."""
    strangers = [n for n in files.list_names(out) if not (n == INDEX_NAME or n.startswith((".", "shard-")))]
    if strangers:
        raise InputError(f"{out}: holds {strangers[0]}, which is not of a shard set; give a folder of its own")


def remove_old(out: str) -> None:
    """An index first, so that what is left of an older set can never be taken for one."""
    for name in [INDEX_NAME, *files.list_names(out)]:
        if name == INDEX_NAME or (name.startswith("shard-") and name.endswith(".tar")):
            fs, path = files.filesystem(files.join(out, name))
            if fs.exists(path):
                fs.rm(path)


def listed(items: Sequence[tuple[str, str]]) -> str:
    shown = "; ".join(f"{identity} ({reason})" for identity, reason in items[:NAMED])
    return shown + (f"; and {len(items) - NAMED} more" if len(items) > NAMED else "")
