"""Does a worker feed a GPU? The expert only takes as long as a GPU at so many times real time; all the rest is real.

For each kind of corpus: bare decoding (a thread a CPU, nothing else), then extraction at each speed. A worker cannot
be faster than either. `fed` is the speed that came out over the smaller of the two. A run's first and last units
are in it: give hours of audio, for a few seconds of a fast one would be mostly those.

    python -m benchmarks.feeding [--kind flac] [--seconds 28800]
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.common import CPUS, ROOT, Figure, durations, results, run, speech_like
from benchmarks.paced_expert import SAMPLE_RATE
from benchmarks.slow_s3 import Bucket, serve
from coat.extractors.expert import Options
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest

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


def bare_speed(manifest: Path) -> float:
    """Seconds of audio that a thread a CPU decodes and resamples in a second."""
    rows = list(Manifest.read(str(manifest)))

    def hear(start: int) -> float:
        return sum(len(decode(u.audio, u.offset, u.duration).at(SAMPLE_RATE)) for u in rows[start::CPUS]) / SAMPLE_RATE

    began = time.perf_counter()
    with ThreadPoolExecutor(CPUS) as pool:
        seconds = sum(pool.map(hear, range(CPUS)))
    return seconds / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    parser.add_argument("--seconds", type=float, default=28800.0)
    asked = parser.parse_args()
    with results("feeding") as found:
        for kind in asked.kind or KINDS:
            manifest = corpus_of(kind, asked.seconds)
            for speed in SPEEDS:
                before = bare_speed(manifest)
                with stored(kind, manifest) as rows:
                    fed = run(rows, ROOT / "store", "benchmarks.paced_expert:PacedExpert", Options(layer=str(speed)))
                bare = (before + bare_speed(manifest)) / 2
                share = fed.speed / min(speed, bare)
                found.add(
                    Figure(
                        f"Fed to a GPU of {speed:,} x real time: {KINDS[kind][0]}",
                        f"{fed.speed:,.0f} x, {share:.2f} of what it could be",
                        f">= {LEAST}",
                        share >= LEAST,
                        f"bare decoding on these CPUs {bare:,.0f} x",
                    )
                )
                found.data[f"{kind} {speed}"] = {"fed": fed.speed, "bare": bare, "share": share}


if __name__ == "__main__":
    main()
