"""Numbers and texts made short enough for a figure or a table."""


def shorten(text: str, letters: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= letters else line[: letters - 1] + "…"


def short_number(value: float) -> str:
    """For scales: `0.0123`, `12.3`, `1234`."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def rounded_number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"
