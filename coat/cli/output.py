"""Tables and units for people; `--json` is for machines."""

from collections.abc import Sequence
from typing import Any

from coat.drawing.text import bytes_text, duration_text

__all__ = ["bytes_text", "duration_text", "table"]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout; numbers to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = all(is_number(row[i]) for row in rows)
        made.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width; a table that is wrapped cannot be read by grep
    console.print(made)


def is_number(cell: Any) -> bool:
    return str(cell).replace(",", "").rstrip("%").split(" ")[0].replace(".", "", 1).isdigit() or str(cell) == "-"
