"""The loop: pools of rows, batches under a budget of positions, records appended as they are made.

A pool is a rank's or another's as a whole, and a row that is there already is never measured again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from coat.analysis.interventions.packing import Prompt
from coat.analysis.interventions.records import Item, item_of, records_of
from coat.analysis.interventions.rows import Encoder, Pool, Skipped, donors_of
from coat.analysis.interventions.rows_file import RowsFile
from coat.analysis.interventions.student import Intervener
from coat.manifests import RunError
from coat.trainer.data.usable import within_budget
from coat.trainer.model.coat_model import CoatModel

SKIPPED = "skipped"


@dataclass(frozen=True)
class Limits:
    """Of a batch: rows, and positions when all are padded to the longest."""

    rows: int = 16
    positions: int | None = 16384


def measure(
    model: CoatModel,
    pools: Iterator[Pool],
    encoder: Encoder,
    intervener: Intervener,
    file: RowsFile,
    *,
    limits: Limits = Limits(),
    donor_key: str | None = None,
    rank: int = 0,
    ranks: int = 1,
    on_rows: Callable[[int], None] = lambda n: None,
) -> None:
    """All rows that `file` has not yet; those that cannot be asked are written down with why."""
    for pool in islice(pools, rank, None, ranks):
        open_rows = [row for row in pool.rows if row.number not in file.records]
        on_rows(len(pool.rows) - len(open_rows))
        if open_rows:
            measure_pool(model, encoder.checked(pool), encoder, intervener, file, limits, donor_key, on_rows)


def measure_pool(
    model: CoatModel,
    pool: Pool,
    encoder: Encoder,
    intervener: Intervener,
    file: RowsFile,
    limits: Limits,
    donor_key: str | None,
    on_rows: Callable[[int], None],
) -> None:
    skipped = [row for row in pool.rows if isinstance(row, Skipped) and row.number not in file.records]
    if skipped:
        file.add([{"number": row.number, "id": row.id, SKIPPED: row.reason} for row in skipped])
        on_rows(len(skipped))
    rows = pool.usable
    donors = donors_of(rows, encoder, donor_key)

    def items(numbers: Sequence[int]) -> Iterator[Item]:
        for i in numbers:
            row, donor = rows[i], donors[i]
            same = donor is not None and encoder.asked(donor) == encoder.asked(row)
            own, theirs = encoder.of(row, row), encoder.of(donor or row, row)
            yield item_of(model.student, row, donor, own, theirs, same)

    def prompts() -> Iterator[list[Prompt]]:
        encoded = (encoder.of(row, row) for row in rows)
        made = (Prompt(one.ids[: one.response], one.features) for one in encoded)
        return within_budget(made, limits.rows, limits.positions, lambda prompt: prompt.positions)

    # Batches are those of the whole pool, also where some of it was measured before a kill: the same numbers come out.
    new_tokens = intervener.max_new_tokens or 0
    every = items(range(len(rows)))
    batches = within_budget(every, limits.rows, limits.positions, lambda item: positions_of(item) + new_tokens)
    learnt = False
    for batch in batches:
        if all(item.row.number in file.records for item in batch):
            continue
        if not learnt:
            intervener.learn_means(prompts)
            learnt = True
        records = measured(model, intervener, batch)
        new = [record for record in records if record["number"] not in file.records]
        file.add(new)
        on_rows(len(new))


def positions_of(item: Item) -> int:
    return max(item.question.own.positions, item.question.donor.positions)


def measured(model: CoatModel, intervener: Intervener, batch: Sequence[Item]) -> list[dict[str, Any]]:
    try:
        found = intervener.measure([item.question for item in batch])
    except torch.OutOfMemoryError as e:
        torch.cuda.empty_cache()
        raise RunError(
            f"out of memory with {len(batch)} rows of up to {max(map(positions_of, batch))} positions; "
            "the same command with a smaller --batch-tokens goes on"
        ) from e
    return records_of(model.student, batch, found)
