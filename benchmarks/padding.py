"""Padding: the share of what an expert is given that is no audio, by corpora of log-normal lengths.

It depends on lengths, plan and batches, not on values. So the models that pad are left out here (their frames are
zeros) and the clips are spans of one file; the batches are the worker's own.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.common import (
    LONGEST_S,
    ROOT,
    Figure,
    corpus,
    durations,
    random_wav2vec2,
    results,
    run,
    speech_like,
    whisper,
)
from coat.extractors.expert import Frames, Options, Waveform
from coat.extractors.experts.wav2vec2 import Wav2Vec2
from coat.extractors.experts.whisper import Whisper
from coat.extractors.registry import find, why_unusable

CLIPS = (400, 4000)
TARGET = 0.03
CHEAP, CHEAP_CLIPS = ("mel", "yamnet", "vad", "pitch", "prosody"), 48


class EmptyWav2Vec2(Wav2Vec2):
    """Its plan, its batches, no model."""

    def load(self, device: str) -> None:
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [np.zeros((self.frames_of(len(x)), self.spec.dim), np.float32) for x in waveforms]


class EmptyWhisper(Whisper):
    def load(self, device: str) -> None:
        self.device = device

    def extract(self, waveforms: Sequence[Waveform]) -> list[Frames]:
        return [np.zeros((-(-len(x) // self.hop), self.spec.dim), np.float32) for x in waveforms]


def spans(clips: int) -> Path:
    """Rows of log-normal length, all from the start of one file."""
    folder = ROOT / f"lengths-{clips}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(2)
    soundfile.write(folder / "one.flac", speech_like(rng, int(LONGEST_S * 16000), 16000), 16000)
    rows = [
        {"id": f"c{i}", "audio_filepath": "one.flac", "duration": round(seconds, 3)}
        for i, seconds in enumerate(durations(clips, rng).tolist())
    ]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def share(manifest: Path, expert: str, checkpoint: Path | None = None) -> float:
    options = Options(checkpoint=str(checkpoint) if checkpoint else None)
    return run(manifest, ROOT / "store", expert, options).summary.padding_share


def main() -> None:
    with results("padding") as found:
        shares: dict[str, float] = {}
        folder, _ = random_wav2vec2(hidden=64, layers=1, conv=16)
        for clips in CLIPS:
            value = shares[f"wav2vec2, {clips}"] = share(spans(clips), "benchmarks.padding:EmptyWav2Vec2", folder)
            claim = f"Padding of wav2vec2, {clips} clips of log-normal length"
            found.add(Figure(claim, f"{value:.2%}", f"< {TARGET:.0%}", value < TARGET, "of what the model is given"))
        value = shares["whisper"] = share(spans(CLIPS[0]), "benchmarks.padding:EmptyWhisper", whisper()[0])
        note = "every clip is encoded as 30 s, as the model was trained: the mean length decides"
        found.add(Figure("Padding of whisper", f"{value:.0%}", note=note))
        cheap = [name for name in CHEAP if why_unusable(find(name).card) is None]
        for name in cheap:
            shares[name] = share(corpus(CHEAP_CLIPS, seed=1), name)
        listed = ", ".join(f"{name} {shares[name]:.2%}" for name in cheap)
        found.add(Figure("Padding of experts that hear clips one by one, or pad to whole patches", listed))
        found.data = {"shares": shares}


if __name__ == "__main__":
    main()
