"""`coat report`: what a page or a Markdown file of evaluations is made of, and written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coat.manifests import InputError, storage
from coat.trainer.evaluation.reports.comparing import Arm, Comparison, comparison
from coat.trainer.evaluation.reports.finished import Finished, read_finished
from coat.trainer.evaluation.reports.markdown import report_markdown
from coat.trainer.evaluation.reports.page import report_page
from coat.trainer.evaluation.reports.rows_data import by_interest, rows_data, rows_in_order
from coat.trainer.evaluation.reports.sounds import embedded, written

AudioMode = Literal["embed", "beside", "none"]


@dataclass(frozen=True)
class Written:
    """What was written. `silent`: clips that the page does not play."""

    path: str
    bytes: int
    rows: int
    clips: int = 0
    silent: int = 0


def write_report(
    folders: Sequence[str],
    out: str,
    audio: AudioMode,
    audio_bytes: int,
    advance: Callable[[int], None] = lambda n: None,
) -> Written:
    """The HTML page. InputError where a folder is no finished evaluation."""
    evaluations = read_finished(folders)
    if Path(out).is_dir():
        raise InputError(f"{out}: is a folder; expected the page to write, such as {out}/report.html")
    rows = rows_in_order(evaluations)
    sounds, silent = {}, 0
    if audio != "none":
        wanted = by_interest(evaluations, rows)
        sounds, silent = embedded(wanted, audio_bytes, advance) if audio == "embed" else written(wanted, out, advance)
    notes = []
    if silent:
        where = "--audio beside writes all of them to files" if audio == "embed" else "their audio cannot be read here"
        notes.append(f"{silent:,} clips are not in this page, {len(sounds):,} are; {where}.")
    page = report_page(
        evaluations, against_first(evaluations), rows_data(evaluations, rows, sounds), list(sounds.values()), notes
    )
    storage.write_bytes(out, page)
    return Written(out, len(page), len(rows), len(sounds), silent)


def write_markdown(folders: Sequence[str], out: str) -> Written:
    evaluations = read_finished(folders)
    text = report_markdown(evaluations, against_first(evaluations)).encode()
    storage.write_bytes(out, text)
    return Written(out, len(text), sum(found.rows for one in evaluations for found in one.results.benchmarks.values()))


def against_first(evaluations: Sequence[Finished]) -> list[Comparison]:
    """Of each other evaluation with the first, where they share rows."""
    first, *others = (Arm(one.name, [one]) for one in evaluations)
    found = []
    for other in others:
        for label in first.seeds[0].results.benchmarks:
            asked = [{s.id for s in arm.seeds[0].scores.get(label, [])} for arm in (first, other)]
            if asked[0] & asked[1]:
                found.append(comparison(label, first, other))
    return found
