"""`coat intervene`: a run, what is asked, what is done to it; and what comes out, as figures."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coat.analysis.interventions.figures import Line, key_of, lines_of
from coat.analysis.interventions.kinds import UNTOUCHED, Intervention, parse_layers, usual
from coat.analysis.interventions.measuring import SKIPPED, Limits, measure
from coat.analysis.interventions.pairs import PAIR, pair_pools, tasks_of
from coat.analysis.interventions.places import check_place, places_of
from coat.analysis.interventions.rows import Encoder, Pool, shard_pools
from coat.analysis.interventions.rows_file import Record, RowsFile
from coat.analysis.interventions.student import Intervener
from coat.analysis.layers import decoder_layers
from coat.manifests import InputError, ShardIndex
from coat.trainer.data.collator import Collator
from coat.trainer.evaluation.asking.who import digest_of
from coat.trainer.evaluation.evaluation import Ranks
from coat.trainer.generation.run_student import find_student, load_model
from coat.trainer.records.checkpoint_files import Step
from coat.trainer.run_folder import RunFolder

POOL = 256  # rows
AGAINST = ".against"  # of the file with the rows of the other run


@dataclass(frozen=True)
class Pairs:
    """Minimal pairs in place of shards. `prompt` None: the question of the synthetic corpus."""

    count: int  # of each task that asks about the factor
    factor: str
    seed: int = 0
    prompt: str | None = None


@dataclass(frozen=True)
class Settings:
    """What is asked and done; `interventions` empty: the usual ones of what the run has."""

    shards: tuple[str, ...] = ()
    pairs: Pairs | None = None
    interventions: tuple[Intervention, ...] = ()
    layers: str | None = None  # None: all
    samples: int | None = None  # the first so many rows of each shard set; None: all
    pool: int = POOL
    donor_key: str | None = None
    max_new_tokens: int | None = None  # of generated answers; None: nothing is generated
    by: str | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Results:
    head: Mapping[str, Any]  # what was measured
    against: Mapping[str, Any] | None  # the same of the other run
    by: str | None
    rows: int
    clips: int
    skipped: Mapping[str, int]
    lines: Sequence[Line]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "lines": [line.to_json() for line in self.lines]}


@dataclass(frozen=True)
class Progress:
    """`rows(n, total)`: n more are done."""

    rows: Callable[[int, int], None] = lambda n, total: None
    log: Callable[[str], None] = lambda line: None


ALONE, SILENT = Ranks(), Progress()


def intervene(
    run: Path,
    settings: Settings,
    *,
    step: Step = None,
    against: Path | None = None,
    rows_path: Path | None = None,
    ranks: Ranks = ALONE,
    device: str | None = None,
    progress: Progress = SILENT,
) -> Results | None:
    """Goes on where `rows_path` ends. None on all ranks but the main one.

    InputError: no such run, shards, place or layer, or a file of something else. RunError: out of memory, or disk.
    """
    check(settings, rows_path, ranks)
    file = measured(run, step, settings, rows_path, ranks, device, progress)
    other = None
    if against is not None:
        named = tuple(Intervention.parse(name) for name in file.head["interventions"])
        path = rows_path and rows_path.with_suffix(f"{AGAINST}.jsonl")
        other = measured(against, None, settings, path, ranks, device, progress, only=named)
    ranks.wait()
    if not ranks.is_main:
        return None
    for one in (file, other):
        if one is not None:
            one.join()
    return results_of(file, other, settings.by)


def check(settings: Settings, rows_path: Path | None, ranks: Ranks) -> None:
    if bool(settings.shards) == (settings.pairs is not None):
        raise InputError("expected either --shards or --pairs with --factor")
    if settings.pairs is not None:
        tasks_of(settings.pairs.factor)
    if ranks.count > 1 and rows_path is None:
        raise InputError("several ranks share their rows by files; give --out")


def measured(
    run: Path,
    step: Step,
    settings: Settings,
    path: Path | None,
    ranks: Ranks,
    device: str | None,
    progress: Progress,
    only: tuple[Intervention, ...] | None = None,
) -> RowsFile:
    """All rows of this rank. `only`: of these, those that the run can have."""
    indices = [ShardIndex.read(shards) for shards in settings.shards]
    saved, folder = find_student(run, step), RunFolder(run)
    model, config = load_model(run, device, step), folder.config
    positions = config.heads.positions
    places = places_of(model, positions)
    if only is not None:
        interventions = [one for one in only if one.place in places]
    else:
        interventions = list(settings.interventions) or usual(places)
        for one in interventions:
            check_place(model, one.place, positions)
        if not settings.interventions and not model.block.ids_K:
            progress.log(f"{run}: this run has no thinking block: its audio alone is replaced")
    head = {
        "run": str(run),
        "step": saved.step,
        "weights": digest_of(saved.path, model.student.digest),
        "shards": [{"path": one.path, "samples": one.samples, "tars": [s.xxh3 for s in one.shards]} for one in indices],
        "pairs": settings.pairs and asdict(settings.pairs),
        "interventions": [one.name for one in interventions],
        "layers": parse_layers(settings.layers, len(decoder_layers(model.student))),
        "samples": settings.samples,
        "pool": settings.pool,
        "donor": settings.donor_key,
        "max_new_tokens": settings.max_new_tokens,
    }
    file = RowsFile(path, head, ranks.rank)
    encoder = Encoder(Collator(model.student, model.block, folder.index, ()), config)
    counts = [min(one.samples, settings.samples or one.samples) for one in indices]
    total = sum(counts)
    if settings.pairs is not None:
        total = 2 * settings.pairs.count * len(tasks_of(settings.pairs.factor))
    measure(
        model,
        pools_of(settings, indices, encoder),
        encoder,
        Intervener(model, interventions, head["layers"], settings.max_new_tokens),
        file,
        limits=settings.limits,
        donor_key=PAIR if settings.pairs is not None else settings.donor_key,
        rank=ranks.rank,
        ranks=ranks.count,
        on_rows=lambda n: progress.rows(n, total),
    )
    return file


def pools_of(settings: Settings, indices: Sequence[ShardIndex], encoder: Encoder) -> Iterator[Pool]:
    """Of all sets, one behind the other; no pool is of two."""
    if (pairs := settings.pairs) is not None:
        yield from pair_pools(pairs.count, pairs.factor, pairs.seed, settings.pool, pairs.prompt)
        return
    rows = pools = 0
    for index in indices:
        for pool in shard_pools(index, encoder.config, settings.pool, settings.samples, rows):
            yield Pool(pool.number + pools, pool.rows)
        rows += min(index.samples, settings.samples or index.samples)
        pools += -(-min(index.samples, settings.samples or index.samples) // settings.pool)


def results_of(file: RowsFile, other: RowsFile | None, by: str | None) -> Results:
    """InputError where there is no row to say anything of."""
    records, skipped = usable(file)
    if not records:
        why = ", ".join(f"{n} {reason}" for reason, n in skipped.items()) or "there are none"
        raise InputError(f"no row could be asked ({why}); expected rows with audio and a response")
    others = None if other is None else usable(other)[0]
    if others is not None:
        known = {(one["number"], one["id"]) for one in others}
        if not any((one["number"], one["id"]) in known for one in records):
            raise InputError("the two runs share no row that both could be asked")
    lines = lines_of(records, file.head["interventions"], by, others)
    against = None if other is None else other.head
    clips = len({record["clip"] for record in records})
    return Results(file.head, against, key_of(records, by), len(records), clips, skipped, lines)


def usable(file: RowsFile) -> tuple[list[Record], dict[str, int]]:
    """Rows that were asked, and how many were not, by reason."""
    records = [record for record in file.records.values() if UNTOUCHED in record]
    return records, dict(Counter(r[SKIPPED] for r in file.records.values() if SKIPPED in r))
