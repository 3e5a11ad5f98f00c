"""The listening corpus of this benchmark: clips of 2 s with a voice and some sounds, six questions with known truth.

Made of the sounds of `coat.manifests.corpus.sounds`, as the quickstart's corpus is, but with everything at once, so
that every clip can be asked, and probed for, everything. All answers are independent of each other, and balanced.

    vowel    which vowel is sung
    note     on which of twelve notes, C3 to B3 (s for sharp): it is held for 1.1 s
    contour  what the pitch does then: rises or falls by 2 to 5 semitones, or stays
    mood     calm (dark), tense (bright, rough) or trembling (vibrato): stands for affect
    event    which sound is heard beside the voice
    count    how many times, at random moments
"""

import io
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from coat.manifests import storage
from coat.manifests.corpus import sounds
from coat.manifests.corpus.sounds import SAMPLE_RATE, Signal
from coat.manifests.corpus.synthesis import MARGIN_S, SOUNDS, THREADS, Rng, Scene
from coat.manifests.corpus.writing import write_rows

EXPERTS = ("pitch", "vad", "mel", "yamnet", "prosody")  # whose weights come inside packages
CLIP_S = 2.0
HELD_S, TURN_S = 1.1, 1.3  # of the voice: the note is held until the first; the contour is done by the second
LOWEST_HZ = 130.81  # C3
NOTES = ("C", "Cs", "D", "Ds", "E", "F", "Fs", "G", "Gs", "A", "As", "B")


@dataclass(frozen=True)
class Question:
    prompt: str  # {}: the answer itself
    answers: tuple[str, ...]

    def asked(self, answer: str) -> str:
        return self.prompt.format(answer)


QUESTIONS: Mapping[str, Question] = {
    "vowel": Question("Which vowel is sung?", tuple(sounds.FORMANTS_HZ)),
    "note": Question("On which note?", NOTES),
    "contour": Question("Where does the pitch go?", ("up", "down", "nowhere")),
    "mood": Question("How does the voice sound?", ("calm", "tense", "trembling")),
    "event": Question("Which other sound is there?", tuple(SOUNDS)),
    "count": Question("How many times?", ("one", "two", "three")),
}
# To say a word again: what a student learns of language before it hears; the words are those of all answers.
WORD = Question("{}?", tuple(answer for q in QUESTIONS.values() for answer in q.answers))
ASKABLE: Mapping[str, Question] = {**QUESTIONS, "word": WORD}
Truth = dict[str, Any]  # the answer by question, and f0_log2: the mean of log2 Hz over the held note


def draw(rng: Rng) -> dict[str, str]:
    return {name: str(rng.choice(q.answers)) for name, q in QUESTIONS.items()}


def word_of(clip: str) -> str:
    """That a clip's listener is asked to say again: it depends on the clip's name alone."""
    return WORD.answers[zlib.crc32(clip.encode()) % len(WORD.answers)]


def voice_f0(rng: Rng, answers: Mapping[str, str], time_T: Signal) -> Signal:
    """Hz: the held note, up to 15 cents off, then the contour; with the vibrato or the roughness of the mood."""
    cents = 100.0 * NOTES.index(answers["note"]) + rng.uniform(-15.0, 15.0)
    turn = {"up": 1.0, "down": -1.0, "nowhere": 0.0}[answers["contour"]] * rng.uniform(200.0, 500.0)
    cents_T = cents + np.interp(time_T, [HELD_S, TURN_S], [0.0, turn])
    if answers["mood"] == "trembling":
        cents_T += rng.uniform(30.0, 60.0) * np.sin(2 * np.pi * (rng.uniform(5.0, 7.0) * time_T + rng.random()))
    elif answers["mood"] == "tense":
        knots = np.arange(time_T[0], time_T[-1] + 0.01, 0.01)  # s: jitter from one period or two to the next
        cents_T += np.interp(time_T, knots, rng.normal(0.0, 15.0, len(knots)))
    return LOWEST_HZ * 2.0 ** (cents_T / 1200.0)


def voice(rng: Rng, answers: Mapping[str, str], f0_T: Signal) -> Signal:
    sound_T = sounds.vowel(f0_T, answers["vowel"], rng.uniform(0.92, 1.12))
    if answers["mood"] == "tense":  # brighter: about 6 dB an octave more
        sound_T = np.diff(sound_T, prepend=0.0)
    elif answers["mood"] == "trembling":
        sound_T = sound_T * (1.0 + 0.3 * np.sin(2 * np.pi * rng.uniform(5.0, 7.0) * sounds.times(len(sound_T))))
    return sound_T / np.abs(sound_T).max()


def make_clip(rng: Rng) -> tuple[bytes, Truth]:
    """The FLAC of one clip and the truth about it; the same generator state gives the same bytes."""
    answers = draw(rng)
    scene = Scene(rng, np.zeros(round(CLIP_S * SAMPLE_RATE)))
    time_T = scene.body_T()
    f0_T = voice_f0(rng, answers, time_T)
    scene.put("voice", MARGIN_S, voice(rng, answers, f0_T))
    count, seconds = QUESTIONS["count"].answers.index(answers["count"]) + 1, rng.uniform(0.15, 0.3)
    sound_T = SOUNDS[answers["event"]](rng, round(seconds * SAMPLE_RATE))
    level = 10.0 ** (rng.uniform(-9.0, 0.0) / 20.0)  # beside the voice
    for on_s in scene.slots(count, seconds):
        scene.put(answers["event"], on_s, sound_T, peak=level)
    peak, noise = 10.0 ** (rng.uniform(-12.0, -3.0) / 20.0), 10.0 ** (rng.uniform(-66.0, -52.0) / 20.0)
    scene.signal_T *= peak / np.abs(scene.signal_T).max()
    scene.signal_T += noise * sounds.noise(rng, len(scene.signal_T), rng.uniform(0.0, 0.5))
    flac = io.BytesIO()
    soundfile.write(flac, scene.signal_T, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    return flac.getvalue(), {**answers, "f0_log2": round(float(np.log2(f0_T[time_T < HELD_S]).mean()), 5)}


def make_corpus(folder: Path, clips: Mapping[str, int], seed: int = 0) -> Path:
    """Write audio/*.flac and, last, manifest.jsonl, a row a clip with `split` and `truth`; its path.

    Splits are drawn independently: a clip depends on (seed, split, number) alone.
    """
    splits = list(clips)

    def make(split: str, i: int) -> dict[str, Any]:
        flac, truth = make_clip(np.random.default_rng([seed, splits.index(split), i]))
        identity = f"{split}-{i:05d}"
        storage.write_bytes(str(folder / "audio" / f"{identity}.flac"), flac)
        row = {"id": identity, "audio_filepath": f"audio/{identity}.flac", "duration": CLIP_S}
        return row | {"split": split, "truth": truth}

    with ThreadPoolExecutor(THREADS) as pool:
        rows = [row for split, count in clips.items() for row in pool.map(lambda i, s=split: make(s, i), range(count))]
    write_rows(str(folder / "manifest.jsonl"), rows)
    return folder / "manifest.jsonl"
