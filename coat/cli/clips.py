"""Options of commands that show clips of a corpus: one, or some of them as a gallery."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coat.cli.options import comma_separated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coat.manifests.corpus.manifest import Manifest
    from coat.pipeline.inspect.choosing import Chosen
    from coat.pipeline.store.target_set import TargetSet

PANEL = "Several clips, as a gallery (--out is a folder)"
MOST_WORKERS = 8
FEW_PAGES = 4  # that are drawn sooner than another process has started

Sample = Annotated[
    int | None,
    typer.Option(help="So many by chance, of those that a filter leaves.", min=1, rich_help_panel=PANEL),
]
Seed = Annotated[int, typer.Option(help="Of --sample.", rich_help_panel=PANEL)]
Ids = Annotated[str | None, typer.Option(help="These ids: a,b,c or a file of one a line.", rich_help_panel=PANEL)]
Failed = Annotated[bool, typer.Option("--failed", help="Those that an expert failed on.", rich_help_panel=PANEL)]
Longest = Annotated[int | None, typer.Option(help="The N longest.", min=1, rich_help_panel=PANEL)]
Disagree = Annotated[
    str | None,
    typer.Option(help="Those first where two experts of pitch disagree most: pitch,crepe.", rich_help_panel=PANEL),
]
Wrong = Annotated[
    str | None,
    typer.Option(
        help="Those whose answers are wrong in this folder of coat evaluate (strict rule).", rich_help_panel=PANEL
    ),
]
Limit = Annotated[int, typer.Option(help="Pages at most.", min=1, rich_help_panel=PANEL)]
PageWorkers = Annotated[
    int | None,
    typer.Option(
        help="Processes that draw pages. Default: one a CPU, up to 8; 0 draws in this one.",
        min=0,
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True)
class ClipOptions:
    sample: int | None
    seed: int
    ids: str | None
    failed: bool
    longest: int | None
    disagree: str | None
    wrong: str | None
    limit: int

    @property
    def filters(self) -> list[str]:
        found = {
            "--ids": self.ids is not None, "--failed": self.failed, "--longest": self.longest is not None,
            "--disagree": self.disagree is not None, "--wrong": self.wrong is not None,
        }  # fmt: skip
        return [name for name, is_given in found.items() if is_given]

    @property
    def is_gallery(self) -> bool:
        return bool(self.filters) or self.sample is not None

    def choose(
        self,
        manifest: "Manifest",
        targets: "Sequence[tuple[str, TargetSet]]",
        store: str | None,
        advance: "Callable[[int], None]" = lambda n: None,
    ) -> "tuple[list[Chosen], str, int]":
        """The clips, what the value is that they were chosen by, and how many `limit` leaves out.

        InputError where two filters are given, or one that needs what is not there.
        """
        from coat.manifests.errors import InputError
        from coat.pipeline.inspect import choosing

        if len(self.filters) > 1:
            raise InputError(f"{' and '.join(self.filters)}: give one of them")
        measure = ""
        if self.ids is not None:
            chosen = choosing.by_ids(manifest, read_ids(self.ids))
        elif self.failed:
            chosen = choosing.failed(manifest, [found for _, found in targets])
        elif self.longest is not None:
            chosen = choosing.longest(manifest, [found for _, found in targets], self.longest)
        elif self.disagree is not None:
            a, b = pitch_pair(self.disagree, store)
            chosen, measure = choosing.disagreeing(manifest, a, b, self.seed, advance), f"{self.disagree} disagree"
        elif self.wrong is not None:
            chosen = wrong_answers(manifest, self.wrong)
        else:
            chosen = [choosing.Chosen(int(position)) for position in choosing.with_audio(manifest)]
        if not chosen:
            what = self.filters[0] if self.filters else "the manifest"
            raise InputError(f"{manifest.path}: {what} leaves no clip to show")
        if self.sample is not None:
            chosen = choosing.sampled(chosen, self.sample, self.seed)
        return chosen[: self.limit], measure, max(0, len(chosen) - self.limit)


def read_ids(text: str) -> list[str]:
    """Of a file, one a line, or as they stand there with commas."""
    from coat.manifests.errors import InputError

    path = Path(text)
    try:
        is_file = path.is_file()
    except OSError:  # too long for the name of a file
        is_file = False
    found = path.read_text(encoding="utf-8").splitlines() if is_file else text.split(",")
    ids = [one.strip() for one in found if one.strip()]
    if not ids:
        raise InputError(f"--ids {text}: names no id")
    return ids


def pitch_pair(text: str, store: str | None) -> "tuple[TargetSet, TargetSet]":
    from coat.manifests.errors import InputError
    from coat.pipeline.inspect.selection import select_target_sets

    names = comma_separated(text)
    if len(names) != 2 or store is None:
        raise InputError(f"--disagree {text}: expected two experts of pitch in --store, such as pitch,crepe")
    found = [targets for _, targets in select_target_sets(store, names)]
    if len(found) != 2:
        raise InputError(f"--disagree {text}: {len(found)} target sets are meant; name them as expert@fingerprint")
    return found[0], found[1]


def wrong_answers(manifest: "Manifest", folder: str) -> "list[Chosen]":
    """Rows of the manifest that were answered wrongly, or not at all. InputError where it is another corpus's."""
    from coat.manifests.errors import InputError
    from coat.pipeline.inspect import choosing
    from coat.trainer.evaluation.predictions import read_scores

    scores = read_scores(Path(folder))
    wrong = list(dict.fromkeys(score.id for score in scores if not score.strict))
    known = set(manifest.ids.to_pylist())
    ids = [identity for identity in wrong if identity in known]
    if wrong and not ids:
        raise InputError(f"--wrong {folder}: none of its {len(wrong)} wrong answers is about a row of {manifest.path}")
    return choosing.by_ids(manifest, ids) if ids else []


def page_workers(workers: int | None, pages: int) -> int:
    if workers is not None:
        return workers
    return 0 if pages < FEW_PAGES else min(len(os.sched_getaffinity(0)), pages, MOST_WORKERS)
