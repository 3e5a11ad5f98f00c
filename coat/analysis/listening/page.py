"""What a student heard, as one HTML page: panels on the inspect page's time axis, and the evidence of its answers.

Ids, prompts and answers come from strangers: they are escaped. The page needs no network.
"""

import math
from html import escape

from coat.analysis.listening.effects import REPLACED
from coat.analysis.listening.listened import Evidence, Listened, Token
from coat.drawing.figures import COMPARED, LINE
from coat.drawing.html import definition_list, read_asset
from coat.drawing.tracks_figure import tracks_figure
from coat.drawing.tracks_page import links_html, tracks_page

COLOURS = {"audio": "#0072b2", "block": "#cc79a7", "question": "#56b4e9", "answer": "#009e73", "rest": "#c7cbd3"}
MEANINGS = {"answer": "earlier tokens of the answer", "rest": "the chat's own tokens, earlier turns"}
SMALLEST_SCALE = 0.1  # nats that a whole bar stands for, at least: noise must not fill the page
ZERO_AT = 25.0  # percent of a bar's width: gains of probability go to the left
WARNING = (
    "Attention alone misleads: it shows where an answer could look, not what it used, and gives much to what every "
    "token looks at. What the answer needed is said by the right column alone: there the states are replaced, and the "
    "same answer is read again."
)
FOOTER = """Made by <code>coat listen</code>. What was heard is decoded from the student's states by the run's heads, at
each expert's frame times; the figures beside a panel are of this clip alone. See docs/analysis.md."""


def listening_page(listened: Listened) -> bytes:
    answers = "\n".join(answer_html(answer, listened) for answer in listened.answers)
    return tracks_page(
        f"{listened.name} – what the student heard",
        head_html(listened),
        listened.panels,
        listened.axis,
        listened.clip,
        FOOTER,
        below=answers,
        style=read_asset("coat.analysis.listening", "page.css"),
    )


def listening_figure(listened: Listened) -> bytes:
    """The panels in one figure, as PNG; answers are its second line."""
    said = "  ·  ".join(f"{a.prompt} → {a.answer or '(nothing)'}" for a in listened.answers)
    said += f"  ·  truth: {listened.truth}" if listened.truth and listened.answers else ""
    return tracks_figure(f"{listened.name} ({listened.seconds:.2f} s)", said, listened.panels, listened.axis)


def head_html(listened: Listened) -> str:
    step = "" if listened.step is None else f", step {listened.step}"
    key = ""
    if any(t.reference is not None for p in listened.panels for t in p.tracks):
        key = f'<p class="key">{swatch(LINE, "heard: decoded from the block")}{swatch(COMPARED, "the expert")}</p>'
    before = "What was heard may depend on the prompt that stands before it"
    depends = f"{before}: {listened.prompt}" if listened.prompt else ""
    notes = "".join(f'<p class="part">{escape(text)}</p>' for text in (listened.note, depends) if text)
    answers = {f"answer to: {a.prompt}": a.answer or "(nothing)" for a in listened.answers}
    truth = {"in the manifest": listened.truth} if listened.truth else {}
    return f"""<header>
<h1>{escape(listened.name)}</h1>
<p class="facts">{listened.seconds:.3f} s, heard by {escape(listened.run)}{step}</p>
{definition_list("said", {**answers, **truth})}
{notes}{key}
{links_html(listened.panels)}
</header>"""


def answer_html(answer: Evidence, listened: Listened) -> str:
    cut = " (cut at --max-new-tokens)" if answer.cut else ""
    text = escape(answer.answer) or "<em>nothing: the answer is empty</em>"
    what = f"greedy, as `coat generate` answers{cut}"
    return f"""<section class="asked">
<div class="title"><h2>{escape(answer.prompt)}</h2><span class="what">{what}</span></div>
<p class="answer">{text}</p>
{evidence_html(answer) if answer.tokens else ""}
</section>"""


def evidence_html(answer: Evidence) -> str:
    tokens = answer.tokens
    scale = max([SMALLEST_SCALE, *(abs(fall) for token in tokens for fall in token.effect.values())])
    rows = "\n".join(token_html(token, scale) for token in tokens)
    attended = list(dict.fromkeys(role for token in tokens for role in token.attention))
    rollout = "Attention rollout: shares of what can flow to it" if attended else "No attention rollout"
    why = f'<p class="problem">No rollout: {escape(answer.why_no_rollout)}</p>' if answer.why_no_rollout else ""
    roles = [role for role in COLOURS if role in attended or any(role in t.effect for t in tokens)]
    key = "".join(swatch(COLOURS[role], MEANINGS.get(role, role)) for role in roles)
    absent = [role for role in REPLACED if not any(role in t.effect for t in tokens)]
    missing = f" There is no {' and no '.join(absent)} here." if absent else ""
    return f"""{why}<p class="warning">{WARNING}</p>
<p class="key">{key}</p>
<table class="evidence"><thead><tr><th class="token">token</th><th class="sure" title="its probability">p</th>
<th>{rollout}</th>
<th>Log-probability lost (nats) when states are replaced by {escape(answer.replaced_by)}; full bar: {scale:.2g}</th>
</tr></thead><tbody>
{rows}
</tbody></table>
<p class="explained">States are replaced at the input of every layer. Audio: all that comes from the sound, also what
the block made of it. Block: what went through the block. To the left of the grey line the token became likelier.
{missing}{sums_text(answer)}</p>"""


def sums_text(answer: Evidence) -> str:
    sums = ", ".join(f"{role} {nats:+.2f}" for role, nats in answer.effects().items())
    return f" The whole answer loses, in nats: {sums}." if sums else ""


def token_html(token: Token, scale: float) -> str:
    shares = "".join(
        f'<i style="width:{100 * share:.2f}%;background:{COLOURS[role]}" title="{role} {share:.0%}"></i>'
        for role, share in sorted(token.attention.items(), key=lambda item: list(COLOURS).index(item[0]))
    )
    falls = "".join(fall_html(role, fall, scale) for role, fall in token.effect.items())
    attended = f'<div class="shares">{shares}</div>' if shares else "–"
    return (
        f'<tr><td class="token">{escape(visible(token.text))}</td><td class="sure">{probability(token):.0%}</td>'
        f'<td>{attended}</td><td><div class="falls">{falls}</div></td></tr>'
    )


def fall_html(role: str, fall: float, scale: float) -> str:
    share = fall / scale
    width = abs(share) * (100 - ZERO_AT if fall >= 0 else ZERO_AT)
    left = ZERO_AT if fall >= 0 else ZERO_AT - width
    bar = f'<i style="left:{left:.2f}%;width:{width:.2f}%;background:{COLOURS[role]}"></i>'
    number = f"{fall:+.2f}" if abs(fall) >= 0.005 else "0"
    return f'<div class="fall" title="{role}: {fall:+.3f} nats">{bar}<b>{number}</b></div>'


def probability(token: Token) -> float:
    return math.exp(token.log_probability)


def visible(text: str) -> str:
    """Spaces at its ends, and line breaks, are seen."""
    shown = text.replace("\n", "⏎").replace("\t", "⇥")
    return shown if text.strip() else shown.replace(" ", "␣") or "∅"


def swatch(colour: str, text: str) -> str:
    return f'<span><i style="background:{colour}"></i>{escape(text)}</span>'
