"""Pages of several clips, made in parallel, with an index of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from coat.drawing.galleries.gallery import INDEX, GalleryPage, gallery_folder, gallery_index, page_name
from coat.drawing.text import shorten
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError
from coat.pipeline.cluster.ordered import run_ordered
from coat.pipeline.inspect.choosing import Chosen
from coat.pipeline.inspect.expert_panels import NamedTarget
from coat.pipeline.inspect.inspection import Inspection, inspect_utterance
from coat.pipeline.inspect.page import inspection_page
from coat.pipeline.store.target_set import TargetSet

STATUS_LETTERS = 40


@dataclass(frozen=True)
class PageJob:
    """All that a page is made of; small, for another process."""

    path: Path
    utterance: Utterance
    targets: tuple[NamedTarget, ...]
    start_s: float | None
    end_s: float | None


def inspection_gallery(
    manifest: Manifest,
    chosen: Sequence[Chosen],
    targets: Sequence[tuple[str, TargetSet]],
    out: str,
    *,
    measure: str = "",
    start_s: float | None = None,
    end_s: float | None = None,
    workers: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> list[GalleryPage]:
    """A page of each, and `out/index.html`. `measure`: what the value is that they were chosen by.

    InputError: nothing was chosen, or `out` is there already; then nothing is written.
    """
    if not chosen:
        raise InputError("no clip was chosen: there is nothing to show")
    pages: list[GalleryPage] = []
    with gallery_folder(out) as folder:

        def jobs() -> list[PageJob]:
            return [
                PageJob(
                    folder / page_name(number, u.id), u,
                    tuple(NamedTarget.find(name, found, u) for name, found in targets), start_s, end_s,
                )
                for number, u in enumerate((manifest[one.position] for one in chosen), start=1)
            ]  # fmt: skip

        for one, page in zip(chosen, run_ordered(write_page, jobs(), workers, None), strict=True):
            value = {measure: one.value} if measure else {}
            pages.append(GalleryPage(page.file, page.id, page.seconds, page.status, {**value, **page.values}))
            advance(1)
        about = f"{len(pages)} clips of {manifest.path}"
        (folder / INDEX).write_bytes(gallery_index("What the experts heard", about, pages))
    return pages


def write_page(job: PageJob) -> GalleryPage:
    inspection = inspect_utterance(job.utterance, job.targets, job.start_s, job.end_s)
    job.path.write_bytes(inspection_page(inspection))
    values = {f"{p.title}: frames": float(p.frames) for p in inspection.experts if p.frames}
    text = inspection.utterance.response or inspection.utterance.text
    return GalleryPage(
        job.path.name, inspection.utterance.id, inspection.seconds, status_of(inspection), {"said": text, **values}
    )


def status_of(inspection: Inspection) -> str:
    """The first thing that is wrong, in a word or two."""
    if inspection.clip is None:
        return "no sound"
    problems = [f"{p.title}: {p.problem.split(':', 1)[0]}" for p in inspection.experts if p.problem]
    return shorten(problems[0], STATUS_LETTERS) if problems else "ok"
