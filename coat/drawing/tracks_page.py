"""The page of panels on one time axis, with a player and one cursor. It needs no network and runs its own script alone.

Ids, texts and names of channels come from strangers: as text they are escaped, in JSON no `<` is left, and the
page's policy names the digest of the one script that may run, so that nothing else does.
"""

import io
import json
from collections.abc import Sequence
from html import escape

import soundfile

from coat.drawing.html import data_url, definition_list, html_document, read_asset, script_policy
from coat.drawing.panels import Panel, TimeAxis, Track
from coat.drawing.text import short_number
from coat.drawing.tracks import css_gradient, time_ticks, track_png
from coat.manifests.audio.clip import Clip

HIGHEST_RATE = 48000  # Hz of the sound in the page; browsers play no more
EDGE = 0.08  # of a track's height: a tick that near to its border is written inside


def tracks_page(
    title: str,
    head: str,
    panels: Sequence[Panel],
    axis: TimeAxis,
    clip: Clip | None,
    footer: str,
    below: str = "",
    style: str = "",
) -> bytes:
    """A whole page. `head`, `below` (behind the panels) and `footer` are HTML of ours; `style` is CSS for them."""
    script = read_asset("coat.drawing", "tracks.js")
    sections = "\n".join(panel_html(i, panel, axis) for i, panel in enumerate(panels))
    body = f"""{head}
{bar_html(axis, clip)}
<main>
{sections}
{below}</main>
<footer><p>{footer}</p></footer>
<script type="application/json" id="data">{data_json(axis, panels)}</script>
<script>{script}</script>"""
    return html_document(title, script_policy(script), read_asset("coat.drawing", "tracks.css") + style, body)


def links_html(panels: Sequence[Panel]) -> str:
    """A link to each panel; those that have a problem stand out."""
    links = "".join(
        f'<a href="#panel-{i}"{" class=bad" if p.problem else ""}>{escape(p.title)}</a>' for i, p in enumerate(panels)
    )
    return f"<nav>{links}</nav>"


def bar_html(axis: TimeAxis, clip: Clip | None) -> str:
    """The player and the time axis, which stay in sight."""
    sound = f'<audio controls preload="auto" src="{sound_url(clip)}"></audio>' if clip else ""
    ticks = time_ticks(axis.start_s, axis.until_s)
    marks = "".join(f'<span style="left:{axis.percent(t):.4f}%">{t:g}</span>' for t in ticks)
    return f"""<div class="bar"><header>
<div class="player">{sound}<span class="clock" id="clock"></span>
<span class="keys">click a panel to go there; <kbd>space</kbd> plays, <kbd>←</kbd> <kbd>→</kbd> step 0.1 s</span></div>
<div class="row ruler"><span></span><span></span><div class="plot">{marks}</div><span class="unit">seconds</span></div>
</header></div>"""


def panel_html(number: int, panel: Panel, axis: TimeAxis) -> str:
    about = "; ".join(filter(None, [panel.description, panel.value_meaning]))
    what = f'<span class="what">{escape(about)}</span>'
    problem = f'<p class="problem">{escape(panel.problem)}</p>' if panel.problem else ""
    measured = f'<span class="measured">{escape(panel.measured)}</span>' if panel.measured else ""
    tracks = "\n".join(track_html(track, panel, axis) for track in panel.tracks)
    return f"""<section id="panel-{number}" data-panel="{number}">
<div class="title"><h2>{escape(panel.title)}</h2>{measured}{what}{legend_html(panel)}</div>
{problem}{tracks}{spec_html(panel)}
</section>"""


def track_html(track: Track, panel: Panel, axis: TimeAxis) -> str:
    picture = data_url("image/png", track_png(track, panel, axis))
    unit = f" <small>{escape(track.unit)}</small>" if track.unit else ""
    name = escape(track.name)
    return f"""<div class="row track" style="height:{track.height}px">
<span class="name" title="{name}">{name}{unit}</span>
<span class="scale">{"".join(tick_html(y, text) for y, text in track.ticks)}</span>
<div class="plot"><img alt="{name} over time" src="{picture}"></div><span class="value">–</span></div>"""


def tick_html(y: float, text: str) -> str:
    kind = ' class="low"' if y < EDGE else ' class="high"' if y > 1 - EDGE else ""
    return f'<span{kind} style="bottom:{100 * y:.2f}%">{escape(text)}</span>'


def legend_html(panel: Panel) -> str:
    """What the colours mean: one scale for all tracks of a panel."""
    if not panel.tracks or panel.tracks[0].style not in ("band", "image"):
        return ""
    track = panel.tracks[0]
    unit = f" {escape(track.unit)}" if track.unit else ""
    bar = f'<i style="background:{css_gradient(track.colour_map)}"></i>'
    return f'<span class="legend">{short_number(track.low)}{unit} {bar} {short_number(track.high)}{unit}</span>'


def spec_html(panel: Panel) -> str:
    """The spec: what a reader needs first in one line, all of it below."""
    if panel.spec is None:
        return ""
    spec = panel.spec.to_dict()
    first = f"{spec['dim']} × {panel.spec.rate_hz:.5g} frames/s, frame 0 at {panel.spec.start_s:.4g} s"
    names = spec.pop("channels")
    shown = {"fingerprint": panel.spec.fingerprint, **spec, "settings": json.dumps(spec["settings"])}
    if names:
        shown["channels"] = ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "")
    layer = "" if spec["layer"] == "last" else f", layer {spec['layer']}"
    summary = f"{first}; fingerprint {shown['fingerprint']}, weights {spec['weights']} from {spec['checkpoint']}{layer}"
    return f"<details><summary>{escape(summary)}</summary>{definition_list('', shown)}</details>"


def data_json(axis: TimeAxis, panels: Sequence[Panel]) -> str:
    data = {
        "start": axis.start_s,
        "end": axis.end_s,
        "until": axis.until_s,
        "panels": [
            {
                "first": p.first_s,
                "rate": p.rate_hz,
                "units": [t.unit if t.style != "image" else "" for t in p.tracks],
                "reads": [list(t.readouts) for t in p.tracks],
            }
            for p in panels
        ],
    }
    text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # neither </script> nor <!-- can stand in it


def sound_url(clip: Clip) -> str:
    """FLAC: exact in time, where MP3 and Opus begin with some milliseconds of silence."""
    rate = min(clip.rate, HIGHEST_RATE)
    out = io.BytesIO()
    soundfile.write(out, clip.at(rate), rate, format="FLAC", subtype="PCM_16")
    return data_url("audio/flac", out.getvalue())
