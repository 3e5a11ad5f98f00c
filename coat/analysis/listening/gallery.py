"""What a run heard in several clips: the student in this process, pages drawn by others, and an index of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from coat.analysis.listening.listened import Listened
from coat.analysis.listening.page import listening_page
from coat.drawing.galleries.gallery import INDEX, GalleryPage, gallery_folder, gallery_index, page_name
from coat.manifests import InputError
from coat.pipeline.cluster.ordered import run_ordered

Job = tuple[Path, Listened]


def listening_gallery(
    heard: Iterable[Listened],
    out: str,
    about: str,
    workers: int = 0,
    chosen_by: Mapping[str, Mapping[str, float | None]] = MappingProxyType({}),
    advance: Callable[[int], None] = lambda n: None,
) -> list[tuple[GalleryPage, Listened]]:
    """A page of each as it comes, and `out/index.html`. `chosen_by`: by id, what stands first in a clip's row.

    InputError where there is none, or `out` is there already; then nothing is written.
    """
    pages: list[tuple[GalleryPage, Listened]] = []
    waiting: list[Listened] = []  # being drawn

    def jobs() -> Iterator[Job]:
        for number, one in enumerate(heard, start=1):
            waiting.append(one)
            yield folder / page_name(number, one.name), one

    with gallery_folder(out) as folder:
        for page in run_ordered(write_page, jobs(), workers, None):
            one = waiting.pop(0)
            pages.append((replace(page, values={**chosen_by.get(one.name, {}), **page.values}), one))
            advance(1)
        if not pages:
            raise InputError("no clip could be heard: there is nothing to show")
        (folder / INDEX).write_bytes(gallery_index("What the student heard", about, [page for page, _ in pages]))
    return pages


def write_page(job: Job) -> GalleryPage:
    path, listened = job
    path.write_bytes(listening_page(listened))
    return index_row(path.name, listened)


def index_row(file: str, listened: Listened) -> GalleryPage:
    """With the agreement of each head, what was answered, and what that lost without audio and block."""
    values: dict[str, float | str | None] = {}
    for one in listened.heard:
        values |= {f"{one.expert}: {name}": value for name, value in one.agreement.items()}
    for n, answer in enumerate(listened.answers, start=1):
        of = f" {n}" if len(listened.answers) > 1 else ""
        values[f"answer{of}"] = answer.answer
        values |= {f"nats from {role}{of}": nats for role, nats in answer.effects().items()}
    if listened.truth is not None:
        values["truth"] = listened.truth
    problems = [one.expert for one in listened.heard if one.panel.problem]
    status = f"no target of {problems[0]}" if problems else "ok"
    return GalleryPage(file, listened.name, listened.seconds, status, values)
