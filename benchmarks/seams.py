"""What windows change: frames of long audio, heard in windows, against the same frames with more context.

    COAT_REAL_DIR=... [COAT_WHISPER_DIR=...] python benchmarks/seams.py

The speech of COAT_REAL_DIR is joined to two and a half minutes (twice, the second time backwards in order).
Models that hear no more than their context: against a single pass, largest difference of a channel relative to its
largest value, for several contexts (`vad` carries its state, so it has one; `mel` but for its clamp). Whisper: windows
of 30 s that begin 15 s apart, so that the same frame lies near an edge of one and in the middle of another; relative
error of a frame by its distance from the edge.
"""

import os

import numpy as np
import torch

from coat.extractors import Expert, Options, Waveform, create, extract_windows
from coat.manifests import Manifest, decode

CONTEXTS = {"pitch": (0.1, None), "yamnet": (None,), "vad": (None,), "mel": (None,)}  # None: its own
CONTEXTS["prosody"] = (0.2, 0.3, 0.5, 1, None)
EDGES_S = (0.0, 0.5, 1.0, 2.5, 5.0, 10.0)


def speech() -> Waveform:
    manifest = Manifest.read(os.path.join(os.environ["COAT_REAL_DIR"], "manifest.jsonl"))
    clips = [decode(u.audio, u.offset, u.duration).at(16000) for u in manifest if u.id.startswith("speech")]
    joined_T = np.concatenate([*clips, *clips[::-1]])
    return joined_T + np.random.default_rng(0).normal(scale=1e-4, size=len(joined_T)).astype(np.float32)


def loaded(name: str, **options: str) -> Expert:
    expert = create(name, Options(**options))  # pyright: ignore[reportArgumentType]
    expert.load("cpu")
    return expert


def bounded(x: Waveform) -> None:
    for name, contexts in CONTEXTS.items():
        expert = loaded(name)
        (whole,) = expert.extract([x])
        largest = np.maximum(np.abs(whole).max(axis=0), 1e-9)
        for context in contexts:
            expert.context_s = expert.spec.settings["context_s"] if context is None else context
            (found,) = extract_windows(expert, [x])
            if name == "mel":  # but for the clamp
                found = np.maximum(found, whole.max() - 2.0)
            error_N = (np.abs(found - whole) / largest).max(axis=1)
            windows, off = len(expert.windows(len(x))), int((error_N > 1e-4).sum())
            line = f"{name}: {windows} windows, context {expert.context_s:g} s: largest error {error_N.max():.1e}"
            print(f"{line}, {off} of {len(error_N)} frames off by 1e-4", flush=True)


def whisper(x: Waveform) -> None:
    expert = loaded("whisper", checkpoint=os.environ["COAT_WHISPER_DIR"])
    size, half = 30 * 16000, 750  # samples of a window, frames of half of one
    states_WND = np.stack([expert.extract([x[i : i + size]])[0] for i in range(0, len(x) - size, size // 2)])
    position_ND = states_WND.mean(axis=0)  # what the place in the window says, whatever is heard
    for name, base_ND in (("as they are", 0 * position_ND), ("less their mean at that place", position_ND)):
        centred_WND = states_WND - base_ND
        middle, edge = centred_WND[:-1, half:], centred_WND[1:, :half]
        error = np.linalg.norm(edge - middle, axis=2) / np.linalg.norm(middle, axis=2)
        for seconds in EDGES_S:
            at = error[:, round(seconds * 50) :][:, :25]
            line = f"whisper, states {name}: {seconds:g} to {seconds + 0.5:g} s from an edge, against 15 s from it"
            print(f"{line}: relative error median {np.median(at):.3f}, 90 % {np.quantile(at, 0.9):.3f}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    joined = speech()
    bounded(joined)
    if os.environ.get("COAT_WHISPER_DIR"):
        whisper(joined)
