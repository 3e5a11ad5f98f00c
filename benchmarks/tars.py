"""Clips in tars, read in place, and the same clips as files: seconds to decode them, and to extract `mel` from them.

In turns, in CPU seconds of this process, on a local disk whose pages are in memory: what reading in place costs by
itself. Cold disks and stores favour tars, which are read from one end to the other.
"""

import argparse
import io
import json
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks.common import ROOT, Figure, durations, format_range, judged, median, results, speech_like
from coat.manifests.audio.file import decode
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.sources.importing import import_manifest
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract

RATE, CLIPS_A_TAR = 16000, 250


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


def decode_all(manifest: Path) -> float:
    utterances = list(Manifest.read(str(manifest)))
    start = time.process_time()
    for u in utterances:
        decode(u.audio, u.offset, u.duration)
    return time.process_time() - start


def extract_all(manifest: Path) -> float:
    store = ROOT / "store"
    shutil.rmtree(store, ignore_errors=True)
    start = time.process_time()
    (summary,) = extract(str(manifest), str(store), ["mel"], resources=Resources(workers=0))
    assert not summary.failed
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for each other spin, which is CPU time
    with results("tars") as found:
        manifests = corpora(options.clips)
        for what, run in (("Decoding", decode_all), ("`extract --expert mel`", extract_all)):
            for manifest in manifests:
                run(manifest)  # pages, imports
            files, tars = [], []
            for _ in range(options.repeats):
                files.append(run(manifests[0]))
                tars.append(run(manifests[1]))
            ratio = median(files) / median(tars)
            found.data[what] = {"files_s": files, "tars_s": tars}
            found.add(
                Figure(
                    f"{what} out of tars / out of files, speed",
                    format_range([a / b for a, b in zip(files, tars, strict=True)]),
                    ">= 1.0",
                    judged(ratio >= 1.0, files),
                    f"{options.clips:,} FLAC clips; {median(tars):.2f} and {median(files):.2f} CPU seconds",
                )
            )


if __name__ == "__main__":
    main()
