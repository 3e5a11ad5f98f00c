"""Minimal pairs: two clips that differ in one thing, each the other's donor.

What an answer follows then, when the block is swapped, is that thing: all else is the same in both.
"""

import io
from collections.abc import Iterator
from dataclasses import replace

import soundfile

from coat.analysis.interventions.rows import NO_AUDIO, Pool, Row
from coat.manifests import InputError
from coat.manifests.corpus.synthesis import FACTORS, TASKS, make_pair
from coat.trainer.data.samples import Sample

PAIR = "pair"  # key of the partner's id


def tasks_of(factor: str) -> tuple[str, ...]:
    if factor not in FACTORS:
        raise InputError(f"--factor {factor}: expected one of {', '.join(FACTORS)}")
    return FACTORS[factor]


def pair_pools(pairs: int, factor: str, seed: int, size: int, prompt: str | None = None) -> Iterator[Pool]:
    """`pairs` of each task that asks about the factor, in its own words or those of `prompt`; partners in one pool."""
    rows = (row for name in tasks_of(factor) for i in range(pairs) for row in pair_rows(seed, i, name, prompt))
    numbered = (replace(row, number=number) for number, row in enumerate(rows))
    per_pool = max(1, size // 2) * 2
    for number in range(1 << 62):
        if not (pool := [row for _, row in zip(range(per_pool), numbered, strict=False)]):
            return
        yield Pool(number, list(pool))


def pair_rows(seed: int, i: int, name: str, prompt: str | None) -> list[Row]:
    """Nothing of the sound is kept: it is made anew when it is heard."""
    task, ids = TASKS[name], [f"{name}-{i:05d}-{side}" for side in "ab"]

    def load(side: int, texts: Sample) -> Sample:
        flac, _, _ = make_pair(seed, i, name)[side]
        samples_S, rate = soundfile.read(io.BytesIO(flac), dtype="float32")
        return replace(texts, samples_S=samples_S, sample_rate=rate)

    rows = []
    for side, (_, answer, _) in enumerate(make_pair(seed, i, name)):
        texts = Sample(
            id=ids[side], key=ids[side], samples_S=NO_AUDIO, sample_rate=1, text=None, prompt=prompt or task.question,
            response=answer, choices=task.answers, extra={"task": name, PAIR: ids[1 - side]},
        )  # fmt: skip
        rows.append(Row(0, texts, f"{name}-{i}", lambda side=side, texts=texts: load(side, texts)))
    return rows
