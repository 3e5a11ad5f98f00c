"""What experts heard in one utterance, as an HTML page or as a picture. Texts that come from strangers are escaped."""

from html import escape

from coat.drawing.html import definition_list
from coat.drawing.tracks_figure import tracks_figure
from coat.drawing.tracks_page import links_html, tracks_page
from coat.pipeline.inspect.inspection import Inspection

FOOTER = """Made by <code>coat inspect</code>. Frame i of a target is centred at start + i / rate and drawn
1 / rate wide; the values at a time are those of the frame that lies there."""


def inspection_page(inspection: Inspection) -> bytes:
    title = f"{inspection.utterance.id} – what the experts heard"
    return tracks_page(title, head_html(inspection), inspection.panels, inspection.axis, inspection.clip, FOOTER)


def inspection_figure(inspection: Inspection) -> bytes:
    """All panels in one figure, as PNG."""
    u = inspection.utterance
    texts = [u.text, " → ".join(t for t in (u.prompt, u.response) if t), inspection.excerpt_note]
    title = f"{u.id} ({inspection.seconds:.2f} s)"
    return tracks_figure(title, "  ·  ".join(filter(None, texts)), inspection.panels, inspection.axis)


def head_html(inspection: Inspection) -> str:
    u = inspection.utterance
    texts = {"text": u.text, "prompt": u.prompt, "response": u.response, "choices": " | ".join(u.choices)}
    span = f", from {u.offset:g} s" if u.offset else ""
    return f"""<header>
<h1>{escape(u.id)}</h1>
<p class="facts">{inspection.seconds:.3f} s of {escape(u.audio_filepath)}{span}</p>
{definition_list("said", {key: value for key, value in texts.items() if value})}
{f'<p class="part">{escape(inspection.excerpt_note)}</p>' if inspection.excerpt_note else ""}
{links_html(inspection.panels)}
</header>"""
