"""A few shapes of SVG, in the colours of the drawings. Coordinates are in pixels, from the top left."""

from dataclasses import dataclass, field
from html import escape

INK, GREY, PALE = "#22313a", "#7b8a93", "#eef2f3"
TEAL, ORANGE, BLUE, RED = "#00897b", "#e08214", "#3a6fb0", "#b5403a"
LIGHT = {TEAL: "#d6efec", ORANGE: "#fbe6cc", BLUE: "#dbe7f5", RED: "#f6dcda", GREY: PALE, INK: "#ffffff"}
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


@dataclass
class Drawing:
    """Shapes in the order in which they are drawn; `title` is read out where pictures cannot be seen."""

    width: int
    height: int
    title: str
    shapes: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, w: float, h: float, text: str = "", colour: str = GREY, size: int = 14) -> None:
        """A rounded box with lines of text in its middle."""
        self.shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="5" fill="{LIGHT[colour]}" '
            f'stroke="{colour}" stroke-width="1.5"/>'
        )
        lines = text.split("\n") if text else []
        for i, line in enumerate(lines):
            self.text(x + w / 2, y + h / 2 + (i - (len(lines) - 1) / 2) * size * 1.25 + size * 0.36, line, size)

    def text(
        self, x: float, y: float, text: str, size: int = 14, colour: str = INK, at: str = "middle", bold: bool = False
    ) -> None:
        weight = ' font-weight="bold"' if bold else ""
        self.shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" text-anchor="{at}"{weight}>'
            f"{escape(text)}</text>"
        )

    def line(
        self, points: list[tuple[float, float]], colour: str = GREY, width: float = 1.5, dashed: bool = False
    ) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}/>')

    def arrow(self, x1: float, y1: float, x2: float, y2: float, colour: str = INK, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.shapes.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" stroke-width="1.8"{dash} '
            f'marker-end="url(#{colour[1:]})"/>'
        )

    def svg(self) -> str:
        markers = "".join(
            f'<marker id="{c[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto">'
            f'<path d="M0,0 L10,5 L0,10 z" fill="{c}"/></marker>'
            for c in (INK, GREY, TEAL, ORANGE, BLUE, RED)
        )
        inside = "\n".join(self.shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" font-family="{FONT}" role="img">\n<title>{escape(self.title)}</title>\n'
            f'<rect width="100%" height="100%" fill="#ffffff"/>\n<defs>{markers}</defs>\n{inside}\n</svg>\n'
        )
