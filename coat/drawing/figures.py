"""What figures have in common."""

import io
import warnings

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

INK, LINE, AREA, PALE = "#1f2937", "#0072b2", "#8fc1de", "#e5e7eb"  # blue: told apart in every kind of colour vision
COMPARED = "#e69f00"  # orange: what something is compared with


def to_png(figure: Figure, palette: bool) -> bytes:
    """As PNG; with a palette half as large, and as good where colours are few."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # scripts that matplotlib's own font lacks: boxes
        canvas.draw()
    image, out = Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3]), io.BytesIO()
    dots = figure.dpi
    (image.quantize(256) if palette else image).save(out, format="PNG", dpi=(dots, dots))
    return out.getvalue()
