"""The pages of the notebooks: scripts in jupytext's percent format, as Markdown. What they draw lies beside them."""

from pathlib import Path

import jupytext

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"


def scripts() -> list[Path]:
    return sorted(FOLDER.glob("*.py"))


def pages() -> dict[str, str]:
    return {f"notebooks/{path.stem}.md": page(path) for path in scripts()}


def page(path: Path) -> str:
    parts = []
    for cell in jupytext.read(path, fmt="py:percent").cells:
        parts.append(cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```")
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f"{title}\n\nSource: `docs/notebooks/{path.name}`.\n{rest}\n"
