"""What a model card says of evaluations: tables, and figures for the hub's front matter."""

from collections.abc import Sequence
from pathlib import Path

from coat.manifests import InputError
from coat.trainer.evaluation.reports.finished import Finished, read_finished
from coat.trainer.evaluation.reports.markdown import scores_table
from coat.trainer.export.model_card import CardFigure, CardResults


def card_results(folders: Sequence[str], run: str) -> CardResults | None:
    """None: no folder is given. InputError where one is no finished evaluation of this run."""
    evaluations = read_finished(folders)
    for one in evaluations:
        subject = one.results.subject
        if subject.kind != "run" or Path(subject.source).resolve() != Path(run).resolve():
            raise InputError(f"{one.folder}: is of the {subject.kind} {subject.source}, not of the run {run}")
    if not evaluations:
        return None
    parts = [part for one in evaluations for part in (section(one, label) for label in one.results.benchmarks)]
    figures = [figure for one in evaluations for label in one.results.benchmarks for figure in card_figures(one, label)]
    return CardResults("\n\n".join(parts), tuple(figures))


def section(one: Finished, label: str) -> str:
    found = one.results.benchmarks[label]
    step = f", step {one.results.subject.step}" if one.results.subject.step is not None else ""
    template = f"prompt template `{found.template.name}`, " if found.template else ""
    heard = one.results.hearing
    guard = "" if heard is None else (
        f" Asked again, {heard.changed_by_other_audio} of {heard.rows} answers changed with another row's audio, "
        f"{heard.changed_by_silence} with silence." + ("" if heard.hears else " **It does not hear.**")
    )  # fmt: skip
    named = Finished("this model", one.folder, one.results)
    return (
        f"{label} {found.version}{step}: {template}greedy.{guard}\n\n{scores_table(label, [named])}\n\n"
        "In %, with 95 % intervals. `official` is the benchmark's own rule; `strict` wants one choice, named without "
        "doubt. Missing and empty answers are wrong."
    )


def card_figures(one: Finished, label: str) -> list[CardFigure]:
    """Of all rows, by both rules; shares as they are."""
    found = one.results.benchmarks[label]
    return [
        CardFigure(label, found.version, found.source, metric, rule, round(value, 6))
        for rule in ("official", "strict")
        for metric in found.metrics
        if (value := getattr(found.scores, rule).get(metric)) is not None
    ]
