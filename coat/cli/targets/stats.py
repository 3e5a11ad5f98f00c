"""`coat stats`."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coat.cli.options import Json, RayAddress
from coat.cli.output import bytes_text, table
from coat.cli.progress import progress

if TYPE_CHECKING:
    from coat.pipeline.statistics.statistics import Statistics
    from coat.pipeline.store.target_set import TargetSet

MOST_ROWS = 20  # dimensions of one expert that are printed


def stats(
    store: Annotated[str, typer.Argument(help="Target store: folder or URL.")],
    expert: Annotated[
        list[str] | None,
        typer.Option("--expert", help="Name, or name@fingerprint; repeat for several. Default: all of the store."),
    ] = None,
    report: Annotated[str | None, typer.Option(help="HTML page to write: histograms, explained variance.")] = None,
    pca: Annotated[
        bool, typer.Option(help="Covariance and principal components too; most of the work of wide targets.")
    ] = True,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample", help="Read some 4 million frames of each large set in place of all, as build-shards does."
        ),
    ] = False,
    ray_address: RayAddress = None,
    json_output: Json = False,
) -> None:
    """Describe stored targets: mean, deviation, quantiles, dead dimensions, principal components.

    Sums are kept beside the units, so that only units that are new are read. See docs/statistics.md.

    Examples:

      coat stats targets

      coat stats s3://bucket/targets --sample

      coat stats s3://bucket/targets --expert whisper --report whisper.html --ray-address auto
    """
    from coat.pipeline.statistics.compute import compute_statistics, on_workers
    from coat.pipeline.statistics.saved_sums import dask_scheduler, sums_here

    sets = chosen(store, expert or [])
    units = sum(len(targets.done) for targets in sets)
    found = []
    with dask_scheduler(ray_address) as scheduler, progress(units, "units", "stats", quiet=json_output) as advance:
        for targets in sets:
            how = on_workers(0, ray_address) if sample else sums_here
            found.append(
                compute_statistics(targets, pca, scheduler, on_units=advance, make_sums=how, may_sample=sample)
            )
    for s in found:
        for why in s.dropped_files:
            typer.echo(f"{s.spec.expert}: {why}; what it was of was read again", err=True)
    if report:
        size = write_report(report, store, found)
        typer.echo(f"{report}: {bytes_text(size)}", err=json_output)
    if json_output:
        typer.echo(json.dumps([{"expert": s.spec.expert, **s.to_dict()} for s in found], indent=2))
        return
    show(store, found, bool(expert))


def write_report(path: str, store: str, found: "list[Statistics]") -> int:
    """Gives its bytes. Drawing is imported only here."""
    from coat.manifests import storage
    from coat.pipeline.statistics.page import statistics_page

    document = statistics_page(store, found)
    storage.write_bytes(path, document)
    return len(document)


def chosen(store: str, names: list[str]) -> "list[TargetSet]":
    from coat.manifests.errors import InputError
    from coat.pipeline.store.target_store import TargetStore

    held = TargetStore(store)
    if names:
        parted = [name.partition("@") for name in names]
        return [held.target_set(name, fingerprint or None) for name, _, fingerprint in parted]
    sets = list(held.target_sets())
    if not sets:
        raise InputError(f"{store}: no target sets (<expert>/<fingerprint>/spec.json) in it; is this a store?")
    return sets


def show(store: str, found: "list[Statistics]", by_dimension: bool) -> None:
    from coat.pipeline.statistics.text import dimension_table, list_facts, list_problems

    columns = ["expert", "fingerprint", "units", "read", "hours", "frames", "dim", "dead", "NaN", "Inf", "min", "max"]
    table(f"Statistics of {store}", [*columns, "95 % of variance in", "what is there"], [line_of(s) for s in found])
    for s in found:
        if s.sample is not None:
            typer.echo(f"{s.spec.expert}: {list_facts(s)['sampled']}")
        for problem in list_problems(s):
            typer.echo(f"{s.spec.expert}: {problem}")
    for s in found if by_dimension else ():
        if s.sums.frames:
            rest = f", {MOST_ROWS} of {s.spec.dim} dimensions (--json has all)" if s.spec.dim > MOST_ROWS else ""
            table(f"{s.spec.expert}{rest}", *dimension_table(s, MOST_ROWS))


def line_of(s: "Statistics") -> list[Any]:
    """`read`: units whose frames had to be read now."""
    from coat.pipeline.statistics.text import PCA_FROM_DIM, event_summary

    spec, sums = s.spec, s.sums
    line = [
        spec.expert,
        spec.fingerprint,
        s.units,
        len(s.units_read),
        f"{s.seconds / 3600:.3f}",
        f"{sums.frames:,}",
        spec.dim,
    ]
    if not sums.frames:
        return [*line, *["-"] * 7]
    line += [int(s.dead_D.sum()), int(sums.nan_D.sum()), int(sums.inf_D.sum())]
    line += [f"{sums.low_D.min():.4g}", f"{sums.high_D.max():.4g}"]
    line.append("-" if s.pca is None or spec.dim < PCA_FROM_DIM else f"{s.pca.components_for(0.95)} of {spec.dim}")
    return [*line, event_summary(s)]
