"""Four small experts on MP3s, one after the other and with --share-decode: decode seconds, requests, wall time.

In turns, in this process; audio on a disk, then on an S3 whose requests take 50 ms.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.common import ROOT, Figure, Results, durations, format_range, judged, median, results, speech_like
from benchmarks.slow_s3 import serve
from coat.manifests import storage
from coat.pipeline.cluster.resources import Resources
from coat.pipeline.extraction.extraction import extract
from coat.pipeline.extraction.summary import Summary

EXPERTS = ("pitch", "vad", "mel", "yamnet")
RATE, DELAY_S = 44100, 0.05


def mp3s(clips: int) -> Path:
    """The manifest of so many, made once."""
    folder = ROOT / f"mp3s-{clips}"
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(0), []
    for i, seconds in enumerate(durations(clips, rng)):
        samples_T = speech_like(rng, int(seconds * RATE), RATE)
        soundfile.write(folder / f"c{i}.mp3", samples_T, RATE, format="MP3")
        rows.append({"id": f"c{i}", "audio_filepath": f"c{i}.mp3", "duration": len(samples_T) / RATE})
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def run(manifest: str, share: bool) -> tuple[list[Summary], float]:
    """Into a store that is made anew; and the seconds from the first unit taken in hand to the last report."""
    store = ROOT / "store"
    shutil.rmtree(store, ignore_errors=True)
    summaries = extract(manifest, str(store), EXPERTS, resources=Resources(workers=0, share_decode=share))
    assert not any(s.failed for s in summaries)
    busy = [s.busy_seconds for s in summaries]
    return summaries, max(busy) if share else sum(busy)


def compare(found: Results, manifest: str, repeats: int, where: str) -> None:
    run(manifest, share=True)  # warms what is cached
    apart, together = [], []
    for _ in range(repeats):
        apart.append(run(manifest, share=False))
        together.append(run(manifest, share=True))
    decode = [[sum(s.decode_seconds for s in summaries) for summaries, _ in runs] for runs in (apart, together)]
    requests = [sum(s.audio_requests for s in runs[0][0]) for runs in (apart, together)]
    walls = [[seconds for _, seconds in runs] for runs in (apart, together)]
    saved = sum(s.saved_decode_seconds for s in together[-1][0])
    found.add(
        Figure(
            f"Audio requests of {len(EXPERTS)} experts with --share-decode / without, {where}",
            f"{requests[1] / requests[0]:.3f}",
            f"1 / {len(EXPERTS)}",
            requests[1] * len(EXPERTS) == requests[0],
            f"{requests[1]:,} and {requests[0]:,}",
        )
    )
    found.add(
        Figure(
            f"Decode seconds, the same, {where}",
            format_range([b / a for a, b in zip(*decode, strict=True)]),
            "< 0.4",
            judged(median(decode[1]) < 0.4 * median(decode[0]), decode[0]),
            f"{median(decode[1]):.1f} and {median(decode[0]):.1f} s; the summary says {saved:.1f} s saved",
        )
    )
    found.add(
        Figure(
            f"Wall time, the same, {where}",
            format_range([b / a for a, b in zip(*walls, strict=True)]),
            "< 1",
            judged(median(walls[1]) < median(walls[0]), walls[0]),
            f"{median(walls[1]):.1f} and {median(walls[0]):.1f} s, start-up left out; {', '.join(EXPERTS)}",
        )
    )
    found.data[where] = {"decode_seconds": decode, "requests": requests, "wall_seconds": walls}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    local = mp3s(given.clips)
    with results("share_decode") as found:
        compare(found, str(local), given.repeats, f"{given.clips} MP3s of 44.1 kHz on a disk")
        with serve(0.0) as s3:
            for path in local.parent.glob("*.mp3"):
                storage.write_bytes(f"s3://audio/{path.name}", path.read_bytes())
            remote = ROOT / "mp3s-remote.jsonl"
            remote.write_text(local.read_text().replace('"audio_filepath": "', '"audio_filepath": "s3://audio/'))
            s3.delay(DELAY_S)
            s3.requests()
            started = time.perf_counter()
            compare(found, str(remote), 1, f"on an S3 of {DELAY_S * 1000:.0f} ms a request")
            found.data["gets"] = s3.counts()
            found.data["remote_seconds"] = time.perf_counter() - started


if __name__ == "__main__":
    main()
