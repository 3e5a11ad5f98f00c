"""Clips in tars, read in place, and the same clips as files: seconds to decode them, and to extract `mel` from them.

In turns, both ways that a corpus is met:

- from the disk, by the clock: the kernel is asked to forget the audio before each run. So a corpus is read that is
  larger than memory.
- from memory, in CPU seconds of this process: what reading in place costs by itself. Beside other work the clock of the
  first and the caches of both are those of a shared machine: repeat it.
"""

import argparse
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks.common import ROOT, Figure, Results, durations, format_range, judged, median, results, speech_like
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.sources.importing import import_manifest
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract

RATE, CLIPS_A_TAR = 16000, 800
Clock = Callable[[], float]


def corpora(clips: int) -> tuple[Path, Path]:
    """Manifests of files and of tars with the same clips, made once."""
    folder = ROOT / f"tars-{clips}"
    files, tars = folder / "files/manifest.jsonl", folder / "tars/manifest.jsonl"
    if files.exists() and tars.exists():
        return files, tars
    shutil.rmtree(folder, ignore_errors=True)
    for manifest in (files, tars):
        manifest.parent.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for first in range(0, clips, CLIPS_A_TAR):
        with tarfile.open(tars.parent / f"t-{first // CLIPS_A_TAR:03d}.tar", "w") as tar:
            for i, seconds in enumerate(durations(min(CLIPS_A_TAR, clips - first), rng), first):
                samples_T, sink = speech_like(rng, int(seconds * RATE), RATE), io.BytesIO()
                soundfile.write(sink, samples_T, RATE, format="FLAC")
                (files.parent / f"c{i}.flac").write_bytes(sink.getvalue())
                rows.append({"id": f"c{i}", "audio_filepath": f"c{i}.flac", "duration": len(samples_T) / RATE})
                for name, data in ((f"c{i}.flac", sink.getvalue()), (f"c{i}.json", json.dumps(rows[-1]).encode())):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    files.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_manifest(str(tars.parent), str(tars))
    return files, tars


def forget(manifest: Path) -> None:
    """Ask the kernel to drop the pages of all audio beside a manifest."""
    for path in manifest.parent.iterdir():
        with path.open("rb") as f:
            os.fsync(f.fileno())  # pages that are to be written stay
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def decode_all(manifest: Path, clock: Clock) -> float:
    utterances = list(Manifest.read(str(manifest)))
    start = clock()
    for u in utterances:
        decode(u.audio, u.offset, u.duration)
    return clock() - start


def extract_all(manifest: Path, clock: Clock) -> float:
    store = ROOT / "store"
    shutil.rmtree(store, ignore_errors=True)
    start = clock()
    (summary,) = extract(str(manifest), str(store), ["mel"], resources=Resources(workers=0))
    assert not summary.failed
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1600)  # fewer are cut into more units by tars than by files
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for each other spin, which is CPU time
    with results("tars") as found:
        manifests = corpora(options.clips)
        for what, run in (("Decoding", decode_all), ("`extract --expert mel`", extract_all)):
            for place, clock in (("the disk", time.perf_counter), ("memory", time.process_time)):
                for manifest in manifests:
                    run(manifest, clock)  # pages, imports
                seconds: tuple[list[float], list[float]] = [], []
                for _ in range(options.repeats):
                    for manifest, taken in zip(manifests, seconds, strict=True):
                        if place == "the disk":
                            forget(manifest)
                        taken.append(run(manifest, clock))
                add(found, f"{what} out of tars / out of files, from {place}", options.clips, seconds)


def add(found: Results, claim: str, clips: int, seconds: tuple[list[float], list[float]]) -> None:
    """`seconds`: of files, of tars, turn by turn."""
    files, tars = seconds
    found.data[claim] = {"files_s": files, "tars_s": tars}
    ratio = median(files) / median(tars)
    value = format_range([a / b for a, b in zip(files, tars, strict=True)])
    note = f"{clips:,} FLAC clips; {median(tars):.2f} and {median(files):.2f} seconds"
    found.add(Figure(f"{claim}, speed", value, ">= 1.0", judged(ratio >= 1.0, files), note))


if __name__ == "__main__":
    main()
