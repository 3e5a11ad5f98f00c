"""Asks of all rows, and their batches: the same whatever was answered before, and however many ranks there are.

So an evaluation that was killed asks each row in the same company as one that was not, and gets the same answer.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import permutations

import xxhash

from coat.manifests import Utterance
from coat.trainer.evaluation.asking.ask import Ask
from coat.trainer.evaluation.templates import Template

OTHER_AUDIO, SILENCE, ORDER = "other-audio", "silence", "order-"


def plain_asks(
    benchmark: str, rows: Iterable[Utterance], template: Template, max_new_tokens: int, transcribe: str
) -> list[Ask]:
    """A row as it is. One with text alone is transcribed."""
    return [
        Ask(
            benchmark=benchmark,
            row=row,
            prompt=template.render(transcribe if row.prompt is None else row.prompt, row.choices),
            choices=row.choices,
            max_new_tokens=max_new_tokens,
        )
        for row in rows
    ]


def guard_asks(asks: Sequence[Ask], rows: int, seed: int) -> list[Ask]:
    """Some of the asks again, with another row's audio and with silence. Rows without audio are not among them."""
    heard = [ask for ask in asks if not ask.row.text_only]
    chosen = sorted(heard, key=lambda ask: draw(seed, ask))[:rows]
    made = []
    for i, ask in enumerate(chosen):
        made.append(replace(ask, variant=SILENCE, silent=True))
        others = (one.row for one in [*chosen[i + 1 :], *chosen[:i], *heard])
        if other := next((row for row in others if sound(row) != sound(ask.row)), None):
            made.append(replace(ask, variant=OTHER_AUDIO, heard=other))
    return made


def order_asks(asks: Sequence[Ask], orders: int, seed: int, template: Template, transcribe: str) -> list[Ask]:
    """Each ask with choices again, its choices in `orders - 1` other orders, or as many as there are.

    The first orders turn them round, so that each choice stands at each place; what is beyond these is drawn.
    """
    made = []
    for ask in asks:
        for number, order in enumerate(orders_of(len(ask.choices), orders, draw(seed, ask)), start=1):
            choices = tuple(ask.choices[i] for i in order)
            prompt = template.render(transcribe if ask.row.prompt is None else ask.row.prompt, choices)
            made.append(replace(ask, variant=f"{ORDER}{number}", choices=choices, prompt=prompt))
    return made


def orders_of(count: int, wanted: int, seed: int) -> list[tuple[int, ...]]:
    """At most `wanted - 1` orders of so many choices, all different and none the first."""
    turned = [tuple(range(k, count)) + tuple(range(k)) for k in range(1, count)]
    found = turned[: wanted - 1]
    if len(found) == wanted - 1 or count < 3:
        return found
    first, rng = tuple(range(count)), random.Random(seed)
    if count <= 5:  # all of them can be listed
        rest = [order for order in permutations(first) if order != first and order not in set(turned)]
        rng.shuffle(rest)
        return found + rest[: wanted - 1 - len(found)]
    seen = {first, *found}
    while len(found) < wanted - 1:
        order = tuple(rng.sample(first, count))
        if order not in seen:
            seen.add(order)
            found.append(order)
    return found


def subset(rows: Sequence[Utterance], count: int | None, seed: int) -> list[Utterance]:
    """So many of the rows, drawn by their ids, in their order; None: all."""
    if count is None or count >= len(rows):
        return list(rows)
    drawn = sorted(range(len(rows)), key=lambda i: xxhash.xxh3_64_intdigest(rows[i].id.encode(), seed))[:count]
    return [rows[i] for i in sorted(drawn)]


def draw(seed: int, ask: Ask) -> int:
    return xxhash.xxh3_64_intdigest(f"{ask.benchmark}\n{ask.row.id}".encode(), seed)


def sound(row: Utterance) -> tuple[str, float, float | None]:
    return row.audio, row.offset, row.duration


def batches(lengths: Sequence[int], max_new_tokens: Sequence[int], size: int, budget: int | None) -> list[list[int]]:
    """Indices in groups of like length, the longest first: each of at most `size`, and of `budget` when padded.

    What is longer than the budget is alone. Within a group the limit of new tokens is one and the same.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-max_new_tokens[i], -lengths[i], i))
    groups: list[list[int]] = []
    for i in order:
        first = groups[-1][0] if groups else i
        fits = budget is None or lengths[first] * (len(groups[-1]) + 1 if groups else 1) <= budget
        if groups and fits and len(groups[-1]) < size and max_new_tokens[first] == max_new_tokens[i]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
