"""Does a worker feed a GPU? The expert only takes as long as a GPU at so many times real time; all the rest is real.

For each kind of corpus: bare decoding (a thread a CPU, nothing else), bare decoding while a further thread hashes and
writes as many bytes of frames to files (nothing else either: what these CPUs and this disk can do), then extraction at
each speed. `fed` is the audio that the GPU had from its first batch to its last, over the smaller of the GPU's speed
and the first; `of the bound` over the smaller of the GPU's and the second. The run's first download and last commit,
which a run of hours has once as well, are told beside it. CPU seconds say more than the clock where the machine is
shared: they are of this process, and of the store's where it is elsewhere.

    python -m benchmarks.feeding [--kind flac] [--seconds 28800]
"""

import argparse
import json
import os
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np
import psutil
import soundfile
import xxhash

from benchmarks.common import CPUS, ROOT, Figure, Results, durations, results, run, speech_like
from benchmarks.paced_expert import BATCHES, DIM, RATE_HZ, SAMPLE_RATE
from benchmarks.slow_s3 import Bucket, serve
from coat.extractors.expert import Options
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.pipeline.plan.planning import UNIT_BYTES

SPEEDS = (1000, 2000, 5000)
LEAST = 0.95
DISTINCT = 100  # clips of a kind; the others are links to them, under names of their own
REMOTE, DELAY_S = "remote", 0.05  # a store that takes so long for each request


def clips_of(
    folder: Path, seconds: float, suffix: str, rate: int, lengths: Callable[[np.random.Generator], list[float]]
) -> Path:
    """A manifest of so many seconds of clips."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    made = []
    for i, length in enumerate(lengths(rng)):
        path = folder / f"made{i}.{suffix}"
        soundfile.write(path, speech_like(rng, int(length * rate), rate), rate)
        made.append((path, int(length * rate) / rate))
    rows, total = [], 0.0
    while total < seconds:
        path, length = made[len(rows) % len(made)]
        name = f"c{len(rows)}.{suffix}"
        os.link(path, folder / name)
        rows.append({"id": name, "audio_filepath": name, "duration": length})
        total += length
    return write(folder, rows)


def spans_of(folder: Path, seconds: float) -> Path:
    """Spans of 10 s of one FLAC file."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    part_T = np.concatenate([speech_like(rng, 60 * SAMPLE_RATE, SAMPLE_RATE) for _ in range(10)])
    with soundfile.SoundFile(folder / "long.flac", "w", SAMPLE_RATE, 1) as f:
        for _ in range(round(seconds / 600)):
            f.write(part_T)
    rows = [
        {"id": f"s{i}", "audio_filepath": "long.flac", "offset": 10.0 * i, "duration": 10.0}
        for i in range(round(seconds / 600) * 60)
    ]
    return write(folder, rows)


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


KINDS: dict[str, tuple[str, Callable[[Path, float], Path]]] = {
    "flac": ("FLAC, 16 kHz", lambda f, s: clips_of(f, s, "flac", 16000, lambda rng: list(durations(DISTINCT, rng)))),
    "mp3": ("MP3, 44.1 kHz", lambda f, s: clips_of(f, s, "mp3", 44100, lambda rng: list(durations(DISTINCT, rng)))),
    "short": ("FLAC clips of 2 s", lambda f, s: clips_of(f, s / 2, "flac", 16000, lambda rng: [2.0] * DISTINCT)),
    "spans": ("spans of one FLAC", spans_of),
    REMOTE: (
        "FLAC, 16 kHz, 50 ms a request",
        lambda f, s: clips_of(f, s, "flac", 16000, lambda rng: list(durations(DISTINCT, rng))),
    ),
}


def corpus_of(kind: str, seconds: float) -> Path:
    folder = ROOT / f"feeding-{kind}-{seconds:g}"
    return folder / "manifest.jsonl" if folder.exists() else KINDS[kind][1](folder, seconds)


def put_clips(folder: str, bucket: Bucket) -> None:
    """All clips of a folder; links to one file share its bytes."""
    known: dict[int, bytes] = {}
    for path in Path(folder).glob("c*.flac"):
        data = known.setdefault(path.stat().st_ino, path.read_bytes())
        bucket.put(path.name, data, path.name)


@contextmanager
def stored(kind: str, manifest: Path) -> Iterator[Path]:
    """The manifest that extraction reads: the same clips, in a store elsewhere where the kind says so."""
    if kind != REMOTE:
        yield manifest
        return
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    remote = manifest.parent / "remote.jsonl"
    remote.write_text(
        "".join(json.dumps({**row, "audio_filepath": f"s3://clips/{row['audio_filepath']}"}) + "\n" for row in rows)
    )
    with serve(DELAY_S, partial(put_clips, str(manifest.parent))):
        yield remote


@dataclass(frozen=True)
class Speed:
    """Of audio, in seconds of it: a second of the clock, and a second of all CPUs' time."""

    clock: float
    cpu: float


def timed(work: Callable[[], float]) -> Speed:
    """Of work that gives the seconds of audio that it has decoded."""
    began, cpu = time.perf_counter(), time.process_time()
    seconds = work()
    return Speed(seconds / (time.perf_counter() - began), CPUS * seconds / (time.process_time() - cpu))


def bare_speed(manifest: Path, write: bool = False) -> Speed:
    """A thread a CPU decodes and resamples; `write`: another one hashes and writes frames of as many seconds."""
    rows = list(Manifest.read(str(manifest)))
    decoded: queue.SimpleQueue[float] = queue.SimpleQueue()

    def decode_share(start: int) -> float:
        total = 0.0
        for u in rows[start::CPUS]:
            seconds = len(decode(u.audio, u.offset, u.duration).at(SAMPLE_RATE)) / SAMPLE_RATE
            total += seconds
            decoded.put(seconds)
        decoded.put(0.0)
        return total

    def work() -> float:
        with ThreadPoolExecutor(CPUS + 1) as pool:
            writing = pool.submit(write_frames, decoded) if write else None
            seconds = sum(pool.map(decode_share, range(CPUS)))
            if writing:
                writing.result()
        return seconds

    return timed(work)


def write_frames(decoded: "queue.SimpleQueue[float]") -> None:
    """Frames of the seconds that come, in files of a unit's size, hashed and synced, by plain writes. Ends with all."""
    block = np.random.default_rng(0).standard_normal((round(RATE_HZ), DIM), np.float32).astype(np.float16)
    second = block.reshape(-1).view(np.uint8)
    path, ended, due, written = ROOT / "frames.bin", 0, 0.0, 0
    digest, f = xxhash.xxh3_128(), path.open("wb", buffering=0)
    while ended < CPUS or due >= 1:
        seconds = decoded.get() if ended < CPUS else 0.0
        ended, due = ended + (not seconds and ended < CPUS), due + seconds
        while due >= 1:
            digest.update(second.data)
            f.write(second.data)
            google_crc32c.value(second)
            due, written = due - 1, written + len(second)
            if written >= UNIT_BYTES:
                os.fsync(f.fileno())
                f.close()
                f, written = path.open("wb", buffering=0), 0
    os.fsync(f.fileno())
    f.close()
    path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--seconds", type=float, default=28800.0)
    asked = parser.parse_args()
    for kind in asked.kind or KINDS:
        with results("feeding", f"--kind {kind}") as found:
            manifest = corpus_of(kind, asked.seconds)
            for speed in SPEEDS:
                measure(found, kind, manifest, speed)


def measure(found: Results, kind: str, manifest: Path, speed: int) -> None:
    before, bound = bare_speed(manifest), bare_speed(manifest, write=True)
    with stored(kind, manifest) as rows:
        cpu, of_store = time.process_time(), seconds_of_children()
        BATCHES.clear()
        fed = run(rows, ROOT / "store", "benchmarks.paced_expert:PacedExpert", Options(layer=str(speed)))
        cpu, of_store = time.process_time() - cpu, seconds_of_children() - of_store
    bare = (before.clock + bare_speed(manifest).clock) / 2
    decoded = fed.summary.audio_seconds
    steady = decoded / (BATCHES[-1][1] - BATCHES[0][0])
    share, of_bound = steady / min(speed, bare), steady / min(speed, bound.clock)
    ms = {"run": 1e3 * cpu / decoded, "store": 1e3 * of_store / decoded}
    ms |= {"decoding": 1e3 * CPUS / before.cpu, "decoding and writing": 1e3 * CPUS / bound.cpu}
    found.add(
        Figure(
            f"Fed to a GPU of {speed:,} x real time: {KINDS[kind][0]}",
            f"{steady:,.0f} x, {share:.2f} of what it could be, {of_bound:.2f} of the bound",
            f">= {LEAST}",
            share >= LEAST,
            f"{fed.speed:,.0f} x with the first unit's start and the last one's commit, of {decoded / speed:.0f} s; "
            f"bare decoding on these CPUs {bare:,.0f} x, with writing {bound.clock:,.0f} x; CPU ms a second of audio, "
            f"start-up included: {', '.join(f'{name} {value:.2f}' for name, value in ms.items())}",
        )
    )
    found.data[f"{kind} {speed}"] = {
        "fed": steady, "with_ends": fed.speed, "bare": bare, "bound": bound.clock, "share": share, "of_bound": of_bound,
        "cpu_ms": ms,
    }  # fmt: skip


def seconds_of_children() -> float:
    """CPU of the processes that this one has now: the store's server."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(t.user + t.system for t in times)


if __name__ == "__main__":
    main()
