"""What a run and a server are asked: of a manifest, of the run's held-out shards, or made here.

S samples at the student's rate.
"""

import base64
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import soundfile

from coat.manifests import Clip, InputError, Manifest, decode
from coat.manifests.audio.clip import AudioError
from coat.trainer.data.collator import prompt_and_response, render_prompt
from coat.trainer.data.shard_reading import iterate_shards
from coat.trainer.evaluation.asking.server import wav_of
from coat.trainer.generation.generate import Trained
from coat.trainer.students.base import Student
from coat.trainer.students.chat import Turns
from coat.trainer.students.unusable import UnusableInput

MADE_PROMPTS = ("What is heard?", "Is it high or low?", "Describe the sound.", "Does it change?")
MADE_SECONDS = (1.0, 6.0)  # shortest and longest of the sounds made here


@dataclass(frozen=True)
class Served:
    """One question. `clip` is what a server reads of `wav`: 16 bits at the student's rate. None: text alone."""

    id: str
    prompt: str  # as sent, choices and all
    turns: Turns
    clip: Clip | None
    wav: dict[str, str] | None  # as OpenAI's `input_audio`


@dataclass(frozen=True)
class Questions:
    rows: list[Served]
    source: str  # where they are from
    left_out: dict[str, int]  # by reason: what the student cannot take whole


def questions_of(trained: Trained, manifest: str | None, rows: int) -> Questions:
    """The first `rows` that the student can take. InputError: no such manifest, audio that can't be decoded, or none
    is left.
    """
    config = trained.config
    if manifest is not None:
        source, found = manifest, of_manifest(trained, manifest)
    elif config.evaluation.shards is not None:
        source, found = "the run's held-out shards", of_shards(trained, config.evaluation.shards)
    else:
        source, found = "sounds made here", made_here(trained.student, rows)
    left_out: Counter[str] = Counter()
    kept = list(islice(usable(trained.student, found, left_out), rows))
    if not kept:
        raise InputError(f"{source}: nothing to ask; left out: {dict(left_out) or 'no row'}")
    return Questions(kept, source, dict(left_out))


def usable(student: Student, found: Iterator[Served], left_out: Counter[str]) -> Iterator[Served]:
    for one in found:
        try:
            for text in (one.prompt, *(text for turn in one.turns for text in turn)):
                student.chat.check_text(text)
            if one.clip is not None:
                student.check_audio(one.clip.samples_T, one.id)
        except UnusableInput as e:
            left_out[e.reason] += 1
            continue
        yield one


def of_manifest(trained: Trained, manifest: str) -> Iterator[Served]:
    for row in Manifest.read(manifest):
        prompt = trained.config.data.transcribe_prompt if row.prompt is None else row.prompt
        try:
            clip = None if row.text_only else decode(row.audio, row.offset, row.duration)
        except AudioError as e:
            raise InputError(f"{manifest}, row {row.row}: {e}") from e
        text = render_prompt(prompt, row.choices, trained.config.data.choices)
        yield served(trained.student, row.id, text, row.turns, clip)


def of_shards(trained: Trained, shards: str) -> Iterator[Served]:
    for sample in iterate_shards(shards):
        prompt, _ = prompt_and_response(sample, trained.config.data)
        clip = None if sample.text_only else Clip(sample.samples_S, sample.sample_rate)
        yield served(trained.student, sample.id, prompt, sample.turns, clip)


def made_here(student: Student, rows: int, seconds: tuple[float, float] = MADE_SECONDS) -> Iterator[Served]:
    """Sweeps with noise, of lengths between these or as long as the student hears, the same each time."""
    rate = student.sample_rate
    shortest, longest = (min(s, student.max_seconds) for s in seconds)
    for i in range(rows):
        rng = np.random.default_rng([2606, i])
        time_S = np.arange(round(rng.uniform(shortest, longest) * rate)) / rate
        start, end = rng.uniform(100.0, 3000.0, 2)  # Hz
        phase_S = 2 * np.pi * (start * time_S + (end - start) * time_S**2 / (2 * time_S[-1]))
        sound_S = 0.3 * np.sin(phase_S) + rng.normal(0.0, 0.05, len(time_S))
        prompt = MADE_PROMPTS[i % len(MADE_PROMPTS)]
        yield served(student, f"made-{i}", prompt, (), Clip(sound_S.astype(np.float32), rate))


def served(student: Student, name: str, prompt: str, turns: Turns, clip: Clip | None) -> Served:
    """At the student's rate and in 16 bits, so that nobody resamples and both hear the same."""
    if clip is None:
        return Served(name, prompt, turns, None, None)
    wav = wav_of(Clip(clip.at(student.sample_rate), student.sample_rate))
    return Served(name, prompt, turns, heard_of(wav), wav)


def heard_of(wav: dict[str, str]) -> Clip:
    """What whoever reads the file has."""
    samples_S, rate = soundfile.read(io.BytesIO(base64.b64decode(wav["data"])), dtype="float32")
    return Clip(np.asarray(samples_S, np.float32), rate)
