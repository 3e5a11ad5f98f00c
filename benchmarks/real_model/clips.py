"""Clips of up to 3 s with known truth, and what is asked of them.

    music   four notes of an instrument, that go up or down, get louder or softer, faster or slower
    voice   two phrases of one synthetic voice; the second is higher or lower, louder or softer, faster or slower
    digits  two spoken digits, of one speaker or of two; the second is louder or softer
    event   two sounds, of which the first is asked for; the second is louder or softer

All answers are drawn independently of each other and of the source. A level, a rate and a pitch of its own for each
clip leave the relation alone to tell.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.real_model.sources import EVENTS, FAMILIES, KEYS, RATE, VOICES, Signal, Sources
from coat.manifests.corpus.writing import write_rows

CLIP_S = 3.0
NOTES = ("C", "C sharp", "D", "D sharp", "E", "F", "F sharp", "G", "G sharp", "A", "A sharp", "B")
WORDS = (
    *("apple", "bridge", "candle", "doctor", "engine", "forest", "garden", "hammer", "island", "jacket", "kitchen"),
    *("ladder", "market", "number", "ocean", "pencil", "river", "summer", "table", "window", "yellow", "basket"),
    *("circle", "dinner", "father", "butter", "corner", "letter", "mother", "orange", "paper", "rabbit"),
)
LOUDER_DB = 10.0
PHRASE_WORDS = 2
Rng = np.random.Generator
Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    prompt: str
    answers: tuple[str, ...]


LOUDNESS = Question("Does it get louder or softer?", ("louder", "softer"))
TEMPO = Question("Does it get faster or slower?", ("faster", "slower"))
QUESTIONS: Mapping[str, Mapping[str, Question]] = {  # by kind of clip
    "music": {
        "note": Question("Which note is first?", NOTES),
        "melody": Question("Does the melody go up or down?", ("up", "down")),
        "loudness": LOUDNESS,
        "tempo": TEMPO,
        "family": Question("Which kind of instrument plays?", tuple(FAMILIES)),
    },
    "voice": {
        "voice": Question("Does the voice get higher or lower?", ("higher", "lower")),
        "loudness": LOUDNESS,
        "tempo": TEMPO,
    },
    "digits": {"speaker": Question("How many people speak?", ("one", "two")), "loudness": LOUDNESS},
    "event": {"event": Question("Which sound is first?", tuple(EVENTS)), "loudness": LOUDNESS},
}
TASKS = tuple(dict.fromkeys(task for of_kind in QUESTIONS.values() for task in of_kind))
NAMING = "What is heard?"  # of the alignment: what a text says of sound
NAMES = {"music": "music", "voice": "speech", "digits": "digits", "event": "a sound"}
TRANSCRIBE = {"voice": "Write down the words.", "digits": "Write down the digits."}


@dataclass(frozen=True)
class Clip:
    sound_T: Signal
    source: str  # what it is of: instrument, voice, speakers, or sample
    answers: Mapping[str, str]
    text: str | None = None  # what is said


@dataclass(frozen=True)
class Half:
    """Of a minimal pair, whose two differ in the answer to one task alone; `other`: the one not answered as drawn."""

    task: str
    other: bool


def music(sources: Sources, rng: Rng, split: str, half: Half | None) -> Clip:
    answers = drawn(rng, "music", half)
    programs = FAMILIES[answers["family"]]["test" if split == "test" else "train"]
    program = int(rng.choice(programs))
    steps = np.concatenate([[0], np.cumsum(rng.integers(1, 4, 3))]) * (1 if answers["melody"] == "up" else -1)
    low, high = KEYS[program]
    first, down, up = NOTES.index(answers["note"]), int(steps.min()), int(steps.max())
    if half is not None:  # the same first key in both
        down, up = min(down, -up), max(up, -down)
    fitting = [k for k in range(low, high + 1) if k % 12 == first and low <= k + down and k + up <= high]
    key = int(rng.choice(fitting))
    gaps = np.array([0.78, 0.60, 0.44]) * rng.uniform(0.9, 1.05)
    gaps = gaps if answers["tempo"] == "faster" else gaps[::-1]
    sound_T, at = np.zeros(round(CLIP_S * RATE), np.float32), 0.08
    for step, seconds, gain in zip(steps, [*gaps, 0.6], gains(answers, 4), strict=True):
        note_T = sources.note(program, key + int(step), float(seconds))
        note_T = note_T / max(1e-6, float(np.abs(note_T).max())) * gain
        start = round(at * RATE)
        sound_T[start : start + len(note_T)] += note_T[: len(sound_T) - start]
        at += float(seconds)
    return Clip(sound_T[: round((at + 0.05) * RATE)], f"program {program}", answers)


def voice(sources: Sources, rng: Rng, split: str, half: Half | None) -> Clip:
    answers, name = drawn(rng, "voice", half), str(rng.choice(VOICES[split]))
    pitch, rate = int(rng.integers(35, 66)), int(rng.integers(190, 231))
    sign = {"higher": 1, "faster": 1, "lower": -1, "slower": -1}
    phrases = [" ".join(rng.choice(WORDS, PHRASE_WORDS, replace=False)) for _ in range(2)]
    parts = []
    for text, turn, gain in zip(phrases, (-0.5, 0.5), gains(answers, 2), strict=True):
        speed = round(rate * 1.5 ** (turn * sign[answers["tempo"]]))
        part_T = sources.speech(text, name, speed, round(pitch + 50 * turn * sign[answers["voice"]]))
        parts.append(part_T * gain)
    return Clip(joined(parts), f"voice {name}", answers, " ".join(phrases))


def digits(sources: Sources, rng: Rng, split: str, half: Half | None) -> Clip:
    answers, of_split = drawn(rng, "digits", half), sources.digits[split]
    speakers = (
        rng.permutation(sorted(of_split))[:2] if answers["speaker"] == "two" else [rng.choice(sorted(of_split))] * 2
    )
    said = []
    for speaker in speakers:
        takes = of_split[str(speaker)]
        said.append(takes[int(rng.integers(len(takes)))])
    parts = [trim(s.sound_T) * gain for (_, s), gain in zip(said, gains(answers, 2), strict=True)]
    return Clip(
        joined(parts), " and ".join(sorted({f"speaker {s}" for s in speakers})), answers, " ".join(d for d, _ in said)
    )


def event(sources: Sources, rng: Rng, split: str, half: Half | None) -> Clip:
    answers, of_split = drawn(rng, "event", half), sources.events[split]
    second = str(rng.choice(sorted(of_split)))
    chosen = [of_split[name][int(rng.integers(len(of_split[name])))] for name in (answers["event"], second)]
    parts = []
    for sample, gain in zip(chosen, gains(answers, 2), strict=True):
        part_T = sample.sound_T[: round(1.2 * RATE)].copy()
        fade = min(len(part_T), round(0.02 * RATE))
        part_T[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        parts.append(part_T / max(1e-6, float(np.abs(part_T).max())) * gain)
    return Clip(joined(parts), f"sample {chosen[0].name}", answers)


KINDS: Mapping[str, Callable[[Sources, Rng, str, Half | None], Clip]] = {
    "music": music, "voice": voice, "digits": digits, "event": event,
}  # fmt: skip


def drawn(rng: Rng, kind: str, half: Half | None) -> dict[str, str]:
    answers = {task: str(rng.choice(question.answers)) for task, question in QUESTIONS[kind].items()}
    if half is not None and half.other:
        one, two = QUESTIONS[kind][half.task].answers
        answers[half.task] = two if answers[half.task] == one else one
    return answers


def gains(answers: Mapping[str, str], parts: int) -> list[float]:
    """Of parts that get louder or softer, 10 dB in all, even in decibels; the loudest is 1."""
    down = 10.0 ** (-LOUDER_DB / 20 * np.linspace(0, 1, parts))
    return [float(g) for g in (down if answers["loudness"] == "softer" else down[::-1])]


def trim(sound_T: Signal) -> Signal:
    return sound_T[: round(1.3 * RATE)]


def joined(parts: list[Signal], gap_s: float = 0.12) -> Signal:
    """Behind each other, of at most 3 s: what is longer is cut at its end."""
    gap_T = np.zeros(round(gap_s * RATE), np.float32)
    pieces = [gap_T, *(piece for part in parts for piece in (part, gap_T))]
    return np.concatenate(pieces)[: round(CLIP_S * RATE)].astype(np.float32)


def finished(sound_T: Signal, rng: Rng) -> Signal:
    """At a level of its own, over a faint noise: digital silence is in no recording."""
    level, noise = 10.0 ** (-rng.uniform(2.0, 10.0) / 20), 10.0 ** (-rng.uniform(55.0, 65.0) / 20)
    return np.clip(sound_T * level + rng.normal(0.0, noise, len(sound_T)), -1, 1).astype(np.float32)


def write_clips(sources: Sources, folder: Path, split: str, counts: Mapping[str, int], seed: int) -> None:
    """FOLDER/<split>.jsonl and audio/ beside it, `counts` clips of each kind, in random order; a row has its truth.

    Deterministic: a clip depends on seed, split and number alone.
    """
    every = [(kind, n) for kind, count in counts.items() for n in range(count)]
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    key = {"train": 0, "validation": 1, "test": 2, "align": 3}[split]
    rows: list[Row] = []
    for kind, n in every:
        rng = np.random.default_rng([seed, key, list(KINDS).index(kind), n])
        clip = KINDS[kind](sources, rng, "train" if split == "align" else split, None)
        rows.append(written(clip, rng, folder, f"{split}-{kind}-{n:05d}", kind))
    order = np.random.default_rng([seed, key]).permutation(len(rows))
    write_rows(str(folder / f"{split}.jsonl"), (rows[i] for i in order))


def write_pairs(sources: Sources, folder: Path, file: Path, counts: Mapping[str, Mapping[str, int]], seed: int) -> None:
    """Minimal pairs of the test's sources, a question each; `counts` by kind and task. `donor` is the id of the other.

    Level, noise and all that the answer leaves free are equal in both.
    """
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for kind, of_kind in counts.items():
        for number, task in enumerate(task for task, count in of_kind.items() for _ in range(count)):
            names = [f"pair-{kind}-{number:05d}-{part}" for part in "ab"]
            for name, other in zip(names, reversed(names), strict=True):
                rng = np.random.default_rng([seed, 4, list(KINDS).index(kind), number])
                clip = KINDS[kind](sources, rng, "test", Half(task, other=name == names[1]))
                asked = question_rows([written(clip, rng, folder, name, kind)])
                rows += [row | {"donor": f"{other}-{task}"} for row in asked if row["task"] == task]
    write_rows(str(file), rows)


def written(clip: Clip, rng: Rng, folder: Path, name: str, kind: str) -> Row:
    """Its audio in FOLDER/audio, and its row."""
    soundfile.write(folder / "audio" / f"{name}.flac", finished(clip.sound_T, rng), RATE, subtype="PCM_16")
    row: Row = {"id": name, "audio_filepath": f"audio/{name}.flac", "duration": len(clip.sound_T) / RATE}
    row |= {"kind": kind, "source": clip.source, "truth": dict(clip.answers)}
    return row | ({"said": clip.text} if clip.text else {})


def training_row(row: Row, rng: Rng) -> Row:
    """Everything that is asked of a clip, in random order: the last is the prompt, the others are turns before it."""
    asked = [(QUESTIONS[row["kind"]][task].prompt, answer) for task, answer in row["truth"].items()]
    return conversation(row, [asked[i] for i in rng.permutation(len(asked))])


def alignment_row(row: Row, rng: Rng) -> Row:
    """What it is, and what is said."""
    asked = [(NAMING, NAMES[row["kind"]])]
    if "said" in row:
        asked.append((TRANSCRIBE[row["kind"]], row["said"]))
    return conversation(row, [asked[i] for i in rng.permutation(len(asked))])


def conversation(row: Row, asked: list[tuple[str, str]]) -> Row:
    kept = {key: value for key, value in row.items() if key not in ("truth", "said")}
    return kept | {"turns": [list(pair) for pair in asked[:-1]], "prompt": asked[-1][0], "response": asked[-1][1]}


def question_rows(rows: Iterable[Row]) -> Iterator[Row]:
    """A row a question, as a student is tested."""
    for row in rows:
        for task, answer in row["truth"].items():
            kept = {key: value for key, value in row.items() if key not in ("truth", "said")}
            prompt = QUESTIONS[row["kind"]][task].prompt
            yield kept | {
                "id": f"{row['id']}-{task}",
                "clip": row["id"],
                "task": task,
                "prompt": prompt,
                "response": answer,
            }


def aligned_rows(rows: list[Row]) -> Iterator[Row]:
    """The alignment's questions, a row each: whether what it was taught first is still there."""
    for row in rows:
        kept = {key: value for key, value in row.items() if key not in ("truth", "said")}
        yield kept | {
            "id": f"{row['id']}-naming",
            "clip": row["id"],
            "task": "naming",
            "prompt": NAMING,
            "response": NAMES[row["kind"]],
        }
        if row["kind"] == "digits":
            yield kept | {
                "id": f"{row['id']}-digits",
                "clip": row["id"],
                "task": "digits",
                "prompt": TRANSCRIBE["digits"],
                "response": row["said"],
            }
