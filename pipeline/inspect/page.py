"""One HTML page of what experts heard: it needs no network, and runs no script but its own.

Ids, texts and names of channels come from strangers: as text they are escaped, in JSON no `<` is left, and the
page's policy names the digest of the one script that may run, so that nothing else does.
"""

import io
import json
from html import escape

import soundfile

from coat.drawing.html import data_url, definition_list, html_document, read_asset, script_policy
from coat.drawing.text import short_number
from coat.manifests.audio.clip import Clip
from coat.pipeline.inspect.inspection import Inspection
from coat.pipeline.inspect.panels import Panel, Track
from coat.pipeline.inspect.plots import css_gradient, time_ticks, track_png

HIGHEST_RATE = 48000  # Hz of the sound in the page; browsers play no more
EDGE = 0.08  # of a track's height: a tick that near to its border is written inside


def inspection_page(inspection: Inspection) -> bytes:
    script = read_asset("coat.pipeline.inspect", "page.js")
    panels = [*inspection.sound, *inspection.experts]
    sections = "\n".join(panel_html(i, panel, inspection) for i, panel in enumerate(panels))
    body = f"""{head_html(inspection, panels)}
{bar_html(inspection)}
<main>
{sections}
</main>
<footer><p>Made by <code>coat inspect</code>. Frame i of a target is centred at start + i / rate and drawn
1 / rate wide; the values at a time are those of the frame that lies there.</p></footer>
<script type="application/json" id="data">{data_json(inspection, panels)}</script>
<script>{script}</script>"""
    style = read_asset("coat.pipeline.inspect", "page.css")
    return html_document(f"{inspection.utterance.id} – what the experts heard", script_policy(script), style, body)


def head_html(inspection: Inspection, panels: list[Panel]) -> str:
    u = inspection.utterance
    texts = {"text": u.text, "prompt": u.prompt, "response": u.response, "choices": " | ".join(u.choices)}
    span = f", from {u.offset:g} s" if u.offset else ""
    links = "".join(
        f'<a href="#panel-{i}"{" class=bad" if p.problem else ""}>{escape(p.title)}</a>' for i, p in enumerate(panels)
    )
    return f"""<header>
<h1>{escape(u.id)}</h1>
<p class="facts">{inspection.seconds:.3f} s of {escape(u.audio_filepath)}{span}</p>
{definition_list("said", {key: value for key, value in texts.items() if value})}
{f'<p class="part">{escape(inspection.excerpt_note)}</p>' if inspection.excerpt_note else ""}
<nav>{links}</nav>
</header>"""


def bar_html(inspection: Inspection) -> str:
    """The player and the time axis, which stay in sight."""
    sound = f'<audio controls preload="auto" src="{sound_url(inspection.clip)}"></audio>' if inspection.clip else ""
    ticks = time_ticks(inspection.start_s, inspection.axis_end_s)
    marks = "".join(f'<span style="left:{position(t, inspection):.4f}%">{t:g}</span>' for t in ticks)
    return f"""<div class="bar"><header>
<div class="player">{sound}<span class="clock" id="clock"></span>
<span class="keys">click a panel to go there; <kbd>space</kbd> plays, <kbd>←</kbd> <kbd>→</kbd> step 0.1 s</span></div>
<div class="row ruler"><span></span><span></span><div class="plot">{marks}</div><span class="unit">seconds</span></div>
</header></div>"""


def panel_html(number: int, panel: Panel, inspection: Inspection) -> str:
    about = "; ".join(filter(None, [panel.description, panel.value_meaning]))
    problem = f'<p class="problem">{escape(panel.problem)}</p>' if panel.problem else ""
    tracks = "\n".join(track_html(track, panel, inspection) for track in panel.tracks)
    return f"""<section id="panel-{number}" data-panel="{number}">
<div class="title"><h2>{escape(panel.title)}</h2><span class="what">{escape(about)}</span>{legend_html(panel)}</div>
{problem}{tracks}{spec_html(panel)}
</section>"""


def track_html(track: Track, panel: Panel, inspection: Inspection) -> str:
    picture = data_url("image/png", track_png(track, panel, inspection))
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


def data_json(inspection: Inspection, panels: list[Panel]) -> str:
    data = {
        "start": inspection.start_s,
        "end": inspection.end_s,
        "until": inspection.axis_end_s,
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


def position(time: float, inspection: Inspection) -> float:
    """Percent of the way from the left edge to the right one."""
    return 100 * (time - inspection.start_s) / (inspection.axis_end_s - inspection.start_s)


def sound_url(clip: Clip) -> str:
    """FLAC: exact in time, where MP3 and Opus begin with some milliseconds of silence."""
    rate = min(clip.rate, HIGHEST_RATE)
    out = io.BytesIO()
    soundfile.write(out, clip.at(rate), rate, format="FLAC", subtype="PCM_16")
    return data_url("audio/flac", out.getvalue())
