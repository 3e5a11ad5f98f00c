"""A small listening corpus with known truth, made by synthesis: what `coat quickstart` trains on.

Seven questions over clips of 2 to 3 s, 16 kHz, 16-bit FLAC, answers balanced. Beside coat's own keys a
row has `task` and the truth: `events` [{label, on_s, off_s}]; `f0` [[time_s, Hz], ...] where the sound
has a pitch (see `sounds.f0_at`; it counts inside events); `gain_db` [[time_s, dB], ...] where loudness
changes; `level_dbfs` (peak) and `noise_dbfs` (RMS of the background).
"""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soundfile

from coat.manifests import storage
from coat.manifests.corpus import sounds
from coat.manifests.corpus.sounds import SAMPLE_RATE, Signal
from coat.manifests.corpus.writing import write_rows
from coat.manifests.errors import InputError

LONGEST_S = 3.0  # the quickstart's student hears no more
MARGIN_S = 0.1  # of background before the first sound and after the last
THREADS = 2
Rng = np.random.Generator


@dataclass
class Scene:
    """A clip in the making: silence of T samples into which sounds are put, and the truth about it."""

    rng: Rng
    signal_T: Signal
    truth: dict[str, Any] = field(default_factory=lambda: {"events": []})

    @property
    def seconds(self) -> float:
        return len(self.signal_T) / SAMPLE_RATE

    def put(self, label: str, on_s: float, sound_T: Signal, peak: float | None = None) -> None:
        """Add a sound (scaled to a peak, where one is given) and note when it is heard."""
        start = round(on_s * SAMPLE_RATE)
        stop = start + len(sound_T)
        assert 0 <= start < stop <= len(self.signal_T), (label, on_s)
        self.signal_T[start:stop] += sound_T if peak is None else sound_T * (peak / np.abs(sound_T).max())
        self.truth["events"].append({"label": label, "on_s": start / SAMPLE_RATE, "off_s": stop / SAMPLE_RATE})

    def body_T(self) -> Signal:
        """Times in seconds of a sound that fills the clip but for its margins."""
        return sounds.times(len(self.signal_T) - 2 * round(MARGIN_S * SAMPLE_RATE)) + MARGIN_S

    def slots(self, count: int, seconds: float) -> list[float]:
        """Random onsets of `count` sounds of a length, in order, at least 0.12 s apart."""
        gap = 0.12
        free = self.seconds - 2 * MARGIN_S - count * seconds - (count - 1) * gap
        assert free >= 0, (count, seconds)
        starts = np.sort(self.rng.uniform(0.0, free, count))
        return [float(MARGIN_S + start + i * (seconds + gap)) for i, start in enumerate(starts)]


def breakpoints(*points: tuple[float, float]) -> list[list[float]]:
    return [[round(float(t), 6), round(float(value), 4)] for t, value in points]


def timbre(rng: Rng) -> tuple[float, int]:
    """Tilt and number of harmonics of a tone."""
    return rng.uniform(0.8, 1.6), int(rng.integers(4, 13))


def glide(scene: Scene, answer: str) -> None:
    """One tone that rises or falls by 5 to 14 semitones around a middle of 160 to 440 Hz."""
    rng, time_T = scene.rng, scene.body_T()
    middle, half = 160.0 * 2.0 ** rng.uniform(0.0, 1.46), rng.uniform(5.0, 14.0) / 24.0  # Hz, octaves
    sign = 1.0 if answer == "rising" else -1.0
    f0 = breakpoints((time_T[0], middle * 2.0 ** (-sign * half)), (time_T[-1], middle * 2.0 ** (sign * half)))
    scene.put("tone", MARGIN_S, sounds.tone(sounds.f0_at(f0, time_T), *timbre(rng)))
    scene.truth["f0"] = f0


def melody(scene: Scene, answer: str) -> None:
    """Three to five notes on a semitone scale; the last lies 3 to 9 semitones above or below the first."""
    rng, count, gap = scene.rng, int(scene.rng.integers(3, 6)), 0.06
    step = float(rng.integers(3, 10)) * (1.0 if answer == "higher" else -1.0)
    pitches = [-step / 2, *rng.integers(-7, 8, count - 2), step / 2]  # semitones around the middle
    middle, tone = 180.0 * 2.0 ** rng.uniform(0.0, 1.2), timbre(rng)
    length = (scene.seconds - 2 * MARGIN_S - (count - 1) * gap) / count
    points = []
    for i, pitch in enumerate(pitches):
        hz, on_s = middle * 2.0 ** (pitch / 12.0), MARGIN_S + i * (length + gap)
        points += [(on_s, hz), (on_s + length, hz)]
        scene.put("note", on_s, sounds.tone(np.full(int(length * SAMPLE_RATE), hz), *tone))
    scene.truth["f0"] = breakpoints(*points)


def sung_vowel(scene: Scene, answer: str) -> None:
    """One vowel at 95 to 230 Hz whose pitch drifts by up to two semitones."""
    rng, time_T = scene.rng, scene.body_T()
    start = 95.0 * 2.0 ** rng.uniform(0.0, 1.1)
    f0 = breakpoints((time_T[0], start), (time_T[-1], start * 2.0 ** (rng.uniform(-2.0, 2.0) / 12.0)))
    scene.put("vowel", MARGIN_S, sounds.vowel(sounds.f0_at(f0, time_T), answer, rng.uniform(0.92, 1.12)))
    scene.truth["f0"] = f0


SOUNDS: dict[str, Callable[[Rng, int], Signal]] = {
    "noise": sounds.burst,
    "beep": sounds.beep,
    "clicks": sounds.clicks,
    "chirp": sounds.chirp,
    "bell": sounds.bell,
}


def sound_event(scene: Scene, answer: str) -> None:
    """One or two sounds of one kind, 0.35 to 0.7 s each."""
    count = int(scene.rng.integers(1, 3))
    longest = (scene.seconds - 2 * MARGIN_S) / count - 0.12
    seconds = scene.rng.uniform(0.35, min(0.7, longest))
    for on_s in scene.slots(count, seconds):
        scene.put(answer, on_s, SOUNDS[answer](scene.rng, round(seconds * SAMPLE_RATE)), peak=1.0)


def loudness(scene: Scene, answer: str) -> None:
    """A tone, a vowel or noise that swells or fades steadily by 16 to 24 dB."""
    rng, time_T = scene.rng, scene.body_T()
    ends = (-rng.uniform(16.0, 24.0), 0.0)
    gain = breakpoints(*zip((time_T[0], time_T[-1]), ends if answer == "louder" else ends[::-1], strict=True))
    carrier = ("tone", "vowel", "noise")[rng.integers(3)]
    if carrier == "noise":
        sound_T = sounds.burst(rng, len(time_T))
    else:
        hz = 110.0 * 2.0 ** rng.uniform(0.0, 1.2)
        f0_T, name = np.full(len(time_T), hz), str(rng.choice(list(sounds.FORMANTS_HZ)))
        sound_T = sounds.vowel(f0_T, name) if carrier == "vowel" else sounds.tone(f0_T, *timbre(rng))
        scene.truth["f0"] = breakpoints((time_T[0], hz), (time_T[-1], hz))
    scene.put(carrier, MARGIN_S, sound_T * 10.0 ** (np.interp(time_T, *np.transpose(gain)) / 20.0))
    scene.truth["gain_db"] = gain


def tempo(scene: Scene, answer: str) -> None:
    """Seven to eleven pulses whose intervals shrink or grow steadily, by a factor of 2.5 to 4 in all."""
    rng, count = scene.rng, int(scene.rng.integers(7, 12))
    intervals = np.geomspace(1.0, rng.uniform(2.5, 4.0), count - 1)
    intervals = intervals[::-1] if answer == "faster" else intervals
    pitched, hz, length = rng.random() < 0.5, rng.uniform(400.0, 1200.0), round(0.03 * SAMPLE_RATE)
    one_T = sounds.tone(np.full(length, hz), 1.0, 1) if pitched else sounds.click(rng)
    span = scene.seconds - 2 * MARGIN_S - len(one_T) / SAMPLE_RATE
    for on_s in MARGIN_S + span * np.concatenate([[0.0], np.cumsum(intervals)]) / intervals.sum():
        scene.put("pulse", float(on_s), one_T)


def count_beeps(scene: Scene, answer: str) -> None:
    """One to three equal beeps at random places, 0.12 to 0.4 s each."""
    count, seconds = ("one", "two", "three").index(answer) + 1, scene.rng.uniform(0.12, 0.4)
    beep_T = sounds.beep(scene.rng, round(seconds * SAMPLE_RATE))
    for on_s in scene.slots(count, seconds):
        scene.put("beep", on_s, beep_T)


@dataclass(frozen=True)
class ListeningTask:
    question: str
    answers: tuple[str, ...]
    fill: Callable[[Scene, str], None]


TASKS = {
    "glide": ListeningTask("Does the pitch rise or fall?", ("rising", "falling"), glide),
    "melody": ListeningTask("Is the last note higher or lower than the first?", ("higher", "lower"), melody),
    "vowel": ListeningTask("Which vowel is sung?", tuple(sounds.FORMANTS_HZ), sung_vowel),
    "sound": ListeningTask("What sound is it?", tuple(SOUNDS), sound_event),
    "loudness": ListeningTask("Does it get louder or softer?", ("louder", "softer"), loudness),
    "tempo": ListeningTask("Does the tempo get faster or slower?", ("faster", "slower"), tempo),
    "count": ListeningTask("How many beeps are there?", ("one", "two", "three"), count_beeps),
}


# What a pair of clips can differ in, and the tasks that ask about it.
FACTORS: dict[str, tuple[str, ...]] = {
    "pitch": ("glide", "melody"),
    "vowel": ("vowel",),
    "event": ("sound",),
    "prosody": ("loudness", "tempo"),
    "count": ("count",),
}
Draws = Callable[[str], Rng]  # which generator a part of a clip is drawn by: its length, its scene, how it is recorded


def make_clip(rng: Rng, task: ListeningTask, answer: str, seconds: float) -> tuple[bytes, dict[str, Any]]:
    """The FLAC of one clip and the truth about it; the same generator state gives the same bytes."""
    return drawn_clip(lambda _: rng, task, answer, seconds)


def make_pair(seed: int, number: int, name: str, seconds: float = LONGEST_S) -> list[tuple[bytes, str, dict[str, Any]]]:
    """Two clips that differ in the answer to one task alone: FLAC, answer and truth of each.

    Both are drawn by equal generators, part by part: length, timbre, middle pitch, timing, level and background are the
    same wherever the answer leaves them free. Which answers they have follows from `number`.
    """
    task, key = TASKS[name], [seed, list(TASKS).index(name), number]
    count = len(task.answers)
    first, second = divmod(number % (count * (count - 1)), count - 1)
    answers = (task.answers[first], task.answers[second + (second >= first)])  # every ordered pair in turn

    def draws() -> Draws:
        parts = {part: np.random.default_rng([*key, i]) for i, part in enumerate(("length", "scene", "recording"))}
        return parts.__getitem__

    made = [(*drawn_clip(draws(), task, answer, seconds), answer) for answer in answers]
    return [(flac, answer, truth) for flac, truth, answer in made]


def drawn_clip(draws: Draws, task: ListeningTask, answer: str, seconds: float) -> tuple[bytes, dict[str, Any]]:
    samples = round(draws("length").uniform(2.0 / 3.0, 1.0) * seconds * SAMPLE_RATE)
    scene = Scene(draws("scene"), np.zeros(samples))
    task.fill(scene, answer)
    rng = draws("recording")
    level_db, noise_db = rng.uniform(-12.0, -3.0), rng.uniform(-66.0, -52.0)
    scene.signal_T *= 10.0 ** (level_db / 20.0) / np.abs(scene.signal_T).max()
    scene.signal_T += 10.0 ** (noise_db / 20.0) * sounds.noise(rng, samples, rng.uniform(0.0, 0.5))
    flac = io.BytesIO()
    soundfile.write(flac, scene.signal_T, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
    truth = {**scene.truth, "level_dbfs": round(level_db, 2), "noise_dbfs": round(noise_db, 2)}
    return flac.getvalue(), {"duration": samples / SAMPLE_RATE, **truth}


def make_corpus(out_dir: str, seed: int = 0, clips: int = 600, seconds: float = LONGEST_S, heldout: float = 0.2) -> str:
    """Write `audio/*.flac`, `train.jsonl`, `heldout.jsonl` and, last, `manifest.jsonl` (both); its path.

    Clips last from two thirds of `seconds` to `seconds`. Equal arguments give equal bytes. Held-out clips
    are drawn independently: no fundamental, level or timing of theirs is one of the training clips'.
    """
    if clips < len(TASKS) or not 2.7 <= seconds <= LONGEST_S or not 0 <= heldout < 1:
        raise InputError(
            f"{clips} clips of up to {seconds} s, {heldout} held out; expected at least {len(TASKS)} clips, "
            f"2.7 to {LONGEST_S} s and a share from 0 to under 1"
        )
    counts = {"heldout": round(clips * heldout)}
    counts["train"] = clips - counts["heldout"]

    def make(part: str, i: int) -> dict[str, Any]:
        name = list(TASKS)[i % len(TASKS)]
        task = TASKS[name]
        answer = task.answers[i // len(TASKS) % len(task.answers)]
        rng = np.random.default_rng([seed, part == "heldout", i])
        flac, truth = make_clip(rng, task, answer, seconds)
        identity = f"{part}-{i:05d}"
        path = f"audio/{identity}.flac"
        storage.write_bytes(storage.join(out_dir, path), flac)
        row = {"id": identity, "audio_filepath": path, "duration": truth.pop("duration")}
        row |= {"prompt": task.question, "response": answer, "choices": list(task.answers), "task": name}
        return row | truth

    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for part in ("train", "heldout"):
            made = list(pool.map(lambda i, part=part: make(part, i), range(counts[part])))
            write_rows(storage.join(out_dir, f"{part}.jsonl"), made)
            rows += made
    path = storage.join(out_dir, "manifest.jsonl")
    write_rows(path, rows)
    return path
