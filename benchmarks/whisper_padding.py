"""What `--pad-margin` saves and what it costs, on real speech: whisper with 30 s of padding against less.

    COAT_WHISPER_DIR=... COAT_REAL_DIR=... python benchmarks/whisper_padding.py [--clips 40] [--margins 0.5 1 2 5]

Error: of each frame of the speech clips of COAT_REAL_DIR (ids that begin with `speech`), against 30 s. Speed: seconds
of forward passes over clips of log-normal length (0.5 to 30 s, median 4 s) cut from that speech, batched as the worker
batches them, one pass after another, fastest of three. The last line is what an exact saving could give.
Prints a table and, as its last line, JSON.
"""

import argparse
import json
import os
import time

import numpy as np
import torch

from coat.extractors import Expert, Options, Waveform, create, extract_windows
from coat.manifests import Manifest, decode


def speech() -> list[Waveform]:
    manifest = Manifest.read(os.path.join(os.environ["COAT_REAL_DIR"], "manifest.jsonl"))
    return [decode(u.audio, u.offset, u.duration).at(16000) for u in manifest if u.id.startswith("speech")]


def corpus(clips: list[Waveform], count: int) -> list[Waveform]:
    """Spans of the clips joined, sorted by length."""
    rng = np.random.default_rng(0)
    joined = np.concatenate(clips)
    seconds = np.sort(np.clip(rng.lognormal(np.log(4.0), 0.8, count), 0.5, 30.0))
    starts = rng.integers(0, len(joined) - 30 * 16000, count)
    return [joined[a : a + round(s * 16000)] for a, s in zip(starts, seconds, strict=True)]


def whisper(margin: float | None) -> Expert:
    expert = create("whisper", Options(checkpoint=os.environ["COAT_WHISPER_DIR"], pad_margin=margin))
    expert.load("cpu")
    return expert


def seconds_of(expert: Expert, clips: list[Waveform]) -> float:
    started = time.process_time()  # one thread; a busy machine changes it least
    extract_windows(expert, clips)
    return time.process_time() - started


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--clips", type=int, default=40)
    arguments.add_argument("--margins", type=float, nargs="+", default=[0.5, 1.0, 2.0, 5.0])
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    spoken = speech()
    timed = corpus(spoken, chosen.clips)
    experts = {None: whisper(None)} | {m: whisper(m) for m in chosen.margins}
    exact = np.concatenate(extract_windows(experts[None], spoken))
    norms = np.linalg.norm(exact, axis=1)
    best = {m: min(seconds_of(e, timed) for _ in range(3)) for m, e in experts.items()}
    results = []
    for margin in chosen.margins:
        found = np.concatenate(extract_windows(experts[margin], spoken))
        error = np.linalg.norm(found - exact, axis=1) / norms
        cosine = (found * exact).sum(axis=1) / norms / np.linalg.norm(found, axis=1)
        result = {"margin_s": margin, "frames": len(exact), "speedup": best[None] / best[margin]}
        result |= {f"error_{k}": float(np.quantile(error, q)) for k, q in (("median", 0.5), ("p99", 0.99), ("max", 1))}
        result |= {"cosine_median": float(np.median(cosine)), "cosine_p1": float(np.quantile(cosine, 0.01))}
        results.append(result | {"cosine_min": float(cosine.min())})
    print(f"{sum(map(len, spoken)) / 16000:.0f} s of speech; {sum(map(len, timed)) / 16000:.0f} s timed")
    print("margin, s  speed-up  relative error: median   p99    max   cosine: median  1 %   min")
    for r in results:
        line = f"{r['margin_s']:9g} {r['speedup']:8.2f}x {r['error_median']:23.3f} {r['error_p99']:6.3f}"
        line += f" {r['error_max']:6.3f} {r['cosine_median']:14.4f} {r['cosine_p1']:6.3f} {r['cosine_min']:6.3f}"
        print(line)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
