"""`coat compare`: parses, and calls one function."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from coat.cli.data.manifest import to_json
from coat.cli.options import Json
from coat.cli.output import table

if TYPE_CHECKING:
    from coat.trainer.evaluation.reports.comparing import Comparison
    from coat.trainer.evaluation.statistics.paired import Difference

SHOWN_GROUPS = 40


def compare(
    evaluations: Annotated[
        list[str],
        typer.Argument(
            metavar="E1 E2...", help="Folders of coat evaluate; seeds of one arm joined by commas: A1,A2,A3."
        ),
    ],
    rule: Annotated[
        Literal["strict", "official"], typer.Option(help="By which groups are listed; both are given for all rows.")
    ] = "strict",
    json_output: Json = False,
) -> None:
    """Compare evaluations row by row with the first: differences, 95 % intervals, McNemar's test, by group.

    An interval that holds 0 means that the difference is not one: the same would come of other rows of the same kind.
    With several seeds an arm, it holds for another training, too.

    Examples:

      coat compare evals/base evals/coat

      coat compare evals/base-1,evals/base-2,evals/base-3 evals/coat-1,evals/coat-2,evals/coat-3
    """
    from coat.trainer.evaluation.reports.comparing import Arm
    from coat.trainer.evaluation.reports.comparing import compare as run
    from coat.trainer.evaluation.reports.finished import read_finished

    names = [[part for part in one.split(",") if part] for one in evaluations]
    found = iter(read_finished([part for arm in names for part in arm]))
    arms = [[next(found) for _ in arm] for arm in names]
    compared = run([Arm(", ".join(one.name for one in seeds), seeds) for seeds in arms])
    if json_output:
        typer.echo(to_json({"comparisons": [as_dict(one) for one in compared]}))
        return
    for one in compared:
        show(one, rule)


def show(one: "Comparison", rule: str) -> None:
    from coat.trainer.evaluation.reports.comparing import sentence

    for difference in one.overall:
        typer.echo(sentence(one, difference))
        for arm in (one.first, one.second):
            if len(arm.seeds) > 1:
                values = arm.figures(one.benchmark, difference.rule, difference.metric)
                typer.echo(f"  seeds of {arm.name}: {', '.join(f'{100 * v:.1f}' for v in values)}")
    groups = [d for d in one.differences if d.rule == rule and d.metric == one.overall[0].metric]
    columns = ["group", "rows", "first", "second", "difference", "95 %", "only first", "only second", "McNemar p", ""]
    table(
        f"{one.benchmark}, {groups[0].metric} by the {rule} rule: second is {one.second.name}, first {one.first.name}",
        columns,
        [line(d) for d in groups[: SHOWN_GROUPS + 1]],
    )
    if len(groups) > SHOWN_GROUPS + 1:
        typer.echo(f"... and {len(groups) - SHOWN_GROUPS - 1} groups more; --json gives all")
    if len(groups) > 10:
        typer.echo(f"Of {len(groups) - 1} groups, about {(len(groups) - 1) / 20:.0f} differ by chance alone at 95 %.")
    if not one.same_data:
        typer.echo(f"{one.benchmark}: their data differ; a row of one id may ask something else in each.", err=True)
    if one.left_out:
        typer.echo(f"{one.left_out:,} rows that not all of them have are left out.", err=True)
    if one.clips < one.rows:
        typer.echo(
            f"{one.rows:,} rows share {one.clips:,} clips: intervals draw clips; McNemar's p takes rows as independent."
        )


def line(d: "Difference") -> list[str]:
    from coat.trainer.evaluation.reports.comparing import points, signed, verdict

    interval = f"{signed(d.interval[0])} to {signed(d.interval[1])}" if d.interval else "-"
    only = (
        [f"{d.discordant.only_first:,}", f"{d.discordant.only_second:,}", f"{d.discordant.p:.2g}"]
        if d.discordant
        else ["-"] * 3
    )
    name = f"{d.group[0]}: {d.group[1]}" if d.group[0] else "all rows"
    return [name, f"{d.rows:,}", points(d.first), points(d.second), signed(d.value), interval, *only, verdict(d)]


def as_dict(one: "Comparison") -> dict[str, Any]:
    from coat.trainer.evaluation.reports.comparing import verdict

    return {
        "benchmark": one.benchmark,
        "first": [str(seed.folder) for seed in one.first.seeds],
        "second": [str(seed.folder) for seed in one.second.seeds],
        "rows": one.rows,
        "left_out": one.left_out,
        "clips": one.clips,
        "same_data": one.same_data,
        "differences": [
            {
                "rule": d.rule,
                "metric": d.metric,
                "group": {d.group[0]: d.group[1]} if d.group[0] else {},
                "rows": d.rows,
                "first": d.first,
                "second": d.second,
                "difference": d.value,
                "interval": list(d.interval) if d.interval else None,
                "only_first": d.discordant.only_first if d.discordant else None,
                "only_second": d.discordant.only_second if d.discordant else None,
                "mcnemar_p": d.discordant.p if d.discordant else None,
                "verdict": verdict(d),
            }
            for d in one.differences
        ],
    }
