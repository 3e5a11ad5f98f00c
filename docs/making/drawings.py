"""The drawings of docs/concepts: `python -m docs.making.drawings` writes them again.

What they show follows from constants of the code where there are some: rates and starts of frames are those of the
experts, weights are those of the default stages.
"""

import math
from pathlib import Path

from coat.extractors import Options, create
from coat.trainer.config.sections import DEFAULT_STAGES
from docs.making.svg import BLUE, GREY, INK, ORANGE, RED, TEAL, Drawing

FOLDER = Path(__file__).resolve().parents[1] / "concepts"


def pipeline() -> Drawing:
    d = Drawing(960, 250, "The main job, from recordings to a model that is served")
    d.box(20, 40, 120, 56, "recordings,\ntexts", GREY)
    d.box(20, 150, 120, 56, "experts,\nfrozen", ORANGE)
    d.box(200, 40, 120, 56, "manifest", GREY)
    d.box(200, 150, 120, 56, "targets,\nframe by frame", ORANGE)
    d.box(390, 95, 120, 56, "shards", TEAL)
    d.box(580, 95, 150, 56, "student\nwith its block", BLUE)
    d.box(800, 40, 140, 56, "a model to\nserve", BLUE)
    d.box(800, 150, 140, 56, "reports: answers,\nwhat was heard", INK)
    d.arrow(140, 68, 200, 68)
    d.arrow(140, 178, 200, 178)
    d.arrow(245, 96, 245, 150)
    d.arrow(320, 68, 390, 110)
    d.arrow(320, 178, 390, 138)
    d.arrow(510, 123, 580, 123)
    d.arrow(730, 112, 800, 72)
    d.arrow(730, 134, 800, 174)
    for x, y, text in (
        (170, 30, "coat manifest import"), (260, 228, "coat extract"), (450, 178, "coat build-shards"),
        (655, 178, "coat train"), (870, 30, "coat export"), (870, 228, "coat evaluate, listen, ..."),
    ):  # fmt: skip
        d.text(x, y, text, 12, GREY)
    return d


def thinking_block() -> Drawing:
    d = Drawing(960, 400, "The positions of a sequence, and what reads the states at the thinking block")
    y, h = 270, 44
    parts = [("audio", 8, BLUE), ("block", 6, TEAL), ("question", 5, GREY), ("answer", 3, ORANGE)]
    x = 40.0
    middles: dict[str, float] = {}
    for name, count, colour in parts:
        start = x
        for _ in range(count):
            d.box(x, y, 34, h, "", colour)
            x += 38
        middles[name] = (start + x - 4) / 2
        d.text(middles[name], y + h + 22, name, 15, colour if colour != GREY else INK, bold=True)
        x += 10
    d.text(middles["audio"], y + h + 42, "what the tower gives, 25 a second", 12, GREY)
    d.text(middles["block"], y + h + 42, "K tokens, always the same", 12, GREY)
    d.text(middles["answer"], y + h + 42, "cross-entropy", 12, GREY)
    d.text(24, 385, "One pass reads audio, block and question. Nothing of the block is decoded.", 13, INK, at="start")
    left = 40 + 8 * 38 + 10
    for i, (expert, colour) in enumerate((("pitch", ORANGE), ("sound events", RED), ("hidden states", BLUE))):
        hx = 190 + i * 230
        d.box(hx, 130, 150, 40, f"head: {expert}", TEAL)
        d.box(hx, 40, 150, 44, f"target: {expert}", colour)
        d.arrow(hx + 75, 130, hx + 75, 86, GREY)
        for k in range(6):
            d.line([(left + k * 38 + 17, y - 2), (hx + 75, 172)], TEAL, 0.8)
    d.text(118, 66, "experts heard", 13, GREY)
    d.text(118, 155, "the block says", 13, GREY)
    d.text(765, 112, "compared, frame by frame", 12, GREY, at="start")
    d.line([(20, 215), (940, 215)], GREY, 1, dashed=True)
    d.text(935, 207, "in training alone", 12, GREY, at="end")
    d.text(935, 232, "always", 12, GREY, at="end")
    return d


def frames() -> Drawing:
    d = Drawing(960, 330, "Frames of three experts on one time axis")
    left, scale, seconds = 150.0, 780.0, 1.0
    d.text(20, 55, "sound", 14, INK, at="start", bold=True)
    wave = [
        (
            left + scale * t / 400,
            50 - 24 * math.sin(t * 0.9) * math.sin(math.pi * t / 400) ** 2 * (0.6 + 0.4 * math.sin(t / 17)),
        )
        for t in range(401)
    ]
    d.line(wave, GREY, 1)
    for i, (name, colour) in enumerate((("mel", BLUE), ("pitch", ORANGE), ("vad", TEAL))):
        spec = create(name, Options()).spec
        y = 105 + i * 65
        d.text(20, y + 12, name, 14, INK, at="start", bold=True)
        d.text(20, y + 29, f"{spec.rate_hz:g} Hz", 12, GREY, at="start")
        n = 0
        while (centre := spec.start_s + n / spec.rate_hz) < seconds:
            width = scale / spec.rate_hz
            x = left + scale * centre
            x0, x1 = max(left, x - width / 2), min(left + scale, x + width / 2)
            d.box(x0 + 0.6, y, x1 - x0 - 1.2, 34, "", colour)
            d.line([(x, y + 12), (x, y + 22)], INK, 1)
            n += 1
        numbers = f"{spec.dim} numbers" if spec.dim > 1 else "1 number"
        clock = f"frame i is centred at {spec.start_s:g} + i / {spec.rate_hz:g} s, {numbers}"
        d.text(left + scale, y - 6, clock, 12, GREY, at="end")
    y = 292
    d.line([(left, y), (left + scale, y)], INK)
    for tenth in range(0, 11, 2):
        x = left + scale * tenth / 10
        d.line([(x, y), (x, y + 6)], INK)
        d.text(x, y + 22, f"{tenth / 10:g} s", 12)
    return d


def commit() -> Drawing:
    d = Drawing(960, 350, "From rows to committed units, and what a kill leaves")
    for i in range(9):
        d.box(20, 30 + i * 24, 90, 20, f"row {i + 1}", GREY, 11)
    d.text(65, 20, "manifest", 14, INK, bold=True)
    for i, (name, rows) in enumerate((("unit a", 3), ("unit b", 3), ("unit c", 3))):
        y = 30 + i * 72
        d.box(165, y, 80, 68, name, TEAL)
        d.arrow(112, y + 34, 163, y + 34, GREY)
        assert rows == 3
    d.text(205, 20, "plan", 14, INK, bold=True)
    d.box(310, 30, 190, 212, "", ORANGE)
    d.text(405, 20, "building/", 14, INK, bold=True)
    d.box(330, 50, 150, 44, "decode, hear", GREY, 13)
    d.box(330, 108, 150, 44, "frames, rows", GREY, 13)
    d.box(330, 166, 150, 56, "digests,\ndone.json", GREY, 13)
    d.arrow(405, 94, 405, 108, GREY)
    d.arrow(405, 152, 405, 166, GREY)
    d.arrow(245, 64, 308, 64)
    d.box(640, 30, 190, 212, "", TEAL)
    d.text(735, 20, "units/", 14, INK, bold=True)
    d.box(660, 50, 150, 44, "unit a, whole", TEAL, 13)
    d.box(660, 108, 150, 44, "unit b, whole", TEAL, 13)
    d.arrow(502, 136, 638, 136)
    d.text(570, 126, "one rename", 13, INK, bold=True)
    d.text(570, 158, "before: nothing", 12, GREY)
    d.text(570, 175, "after: all of it", 12, GREY)
    d.text(735, 200, "never changed again", 12, GREY)
    d.box(310, 272, 190, 46, "killed here: the build\nis thrown away", RED, 13)
    d.arrow(405, 244, 405, 270, RED)
    d.box(640, 272, 300, 46, "the same command does unit c,\nand no other", TEAL, 13)
    d.arrow(502, 295, 638, 295, GREY)
    return d


def shards() -> Drawing:
    d = Drawing(960, 330, "What a shard holds, and where it comes from")
    d.box(20, 40, 130, 50, "manifest:\naudio, texts", GREY)
    d.box(20, 140, 130, 50, "store:\ntargets", ORANGE)
    d.text(85, 222, "audio and digests", 12, GREY)
    d.text(85, 238, "must agree", 12, GREY)
    d.arrow(152, 65, 250, 100)
    d.arrow(152, 165, 250, 130)
    for i in range(2):
        x = 255 + i * 190
        d.box(x, 30, 170, 190, "", TEAL)
        d.text(x + 85, 22, f"shard-00000{i}.tar", 13, INK, bold=True)
        for k in range(2):
            y = 40 + k * 90
            key = f"clip-{i * 2 + k + 1}"
            for j, suffix in enumerate(("flac", "json", "pitch.npy", "vad.npy")):
                d.box(x + 12, y + j * 20, 146, 18, f"{key}.{suffix}", GREY if j < 2 else ORANGE, 11)
    d.box(640, 30, 140, 90, "index.json\nspecs, means,\ndigests: last", INK, 13)
    d.arrow(618, 75, 638, 75, GREY)
    d.box(820, 30, 120, 90, "training,\nwebdataset,\nEnergon", BLUE, 13)
    d.arrow(780, 75, 818, 75)
    d.box(255, 252, 170, 44, "sidecars/mel/\nshard-000000.tar", ORANGE, 12)
    d.box(445, 252, 170, 44, "sidecars/mel/\nshard-000001.tar", ORANGE, 12)
    d.text(640, 270, "an expert that came later:", 13, INK, at="start")
    d.text(640, 288, "the tars above are not touched", 13, GREY, at="start")
    return d


def losses() -> Drawing:
    d = Drawing(960, 360, "Weights of the losses over the two stages, and how they are summed")
    first, second = DEFAULT_STAGES
    total = first.steps + second.steps
    left, width, base, height = 70.0, 500.0, 270.0, 200.0

    def at(step: float, weight: float) -> tuple[float, float]:
        return left + width * step / total, base - height * weight

    d.line([at(0, 1.1), at(0, 0), at(total, 0)], INK)
    ce = [at(0, first.ce), at(first.steps, first.ce), at(first.steps, second.ce), at(total, second.ce)]
    end = second.distill if second.distill_end is None else second.distill_end
    fade = [at(0, first.distill), at(first.steps, first.distill), at(first.steps, second.distill), at(total, end)]
    d.line(ce, BLUE, 3)
    d.line(fade, TEAL, 3)
    d.line([at(first.steps, 1.1), at(first.steps, 0)], GREY, 1, dashed=True)
    for weight in (0, 0.5, 1):
        d.text(left - 12, at(0, weight)[1] + 5, f"{weight:g}", 12, GREY, at="end")
    d.text(at(first.steps / 2, 0)[0], base + 24, f"stage 1: {first.name}", 14)
    d.text(at(first.steps / 2, 0)[0], base + 42, f"{first.steps} steps", 12, GREY)
    d.text(at(first.steps + second.steps / 2, 0)[0], base + 24, f"stage 2: {second.name}", 14)
    d.text(at(first.steps + second.steps / 2, 0)[0], base + 42, f"{second.steps} steps", 12, GREY)
    d.text(at(total, second.ce)[0] - 8, at(0, second.ce)[1] - 8, "ce: the answer", 14, BLUE, at="end", bold=True)
    d.text(at(total, 0)[0] - 8, at(0, second.distill)[1] - 12, "distill: all experts", 14, TEAL, at="end", bold=True)
    d.text(left + 4, 36, "weight (the defaults)", 12, GREY, at="start")
    for i, name in enumerate(("pitch", "sound events", "hidden states")):
        d.box(620, 50 + i * 62, 130, 44, name, TEAL, 13)
        d.arrow(750, 72 + i * 62, 808, 150, GREY)
        d.text(756, 62 + i * 62, "weight", 11, GREY, at="start")
    d.box(620, 250, 130, 44, "answer", BLUE, 13)
    d.arrow(750, 272, 808, 170, GREY)
    d.box(810, 135, 120, 50, "sum: one\nstep", INK)
    d.text(685, 322, "per frame, and per token: masks where there is none", 12, GREY)
    return d


def measures() -> Drawing:
    d = Drawing(960, 300, "The way from sound to answer, and which command looks at which part")
    for x, w, text, colour in (
        (20, 130, "sound", GREY), (215, 150, "audio states", BLUE), (430, 150, "block states", TEAL),
        (645, 130, "answer", ORANGE), (830, 110, "right?", INK),
    ):  # fmt: skip
        d.box(x, 120, w, 54, text, colour)
    for x1, x2 in ((150, 213), (365, 428), (580, 643), (775, 828)):
        d.arrow(x1, 147, x2, 147)
    d.line([(290, 174), (290, 214), (710, 214)], BLUE)
    d.arrow(710, 214, 710, 176, BLUE)
    d.text(500, 208, "the answer may also go past the block", 12, GREY)
    d.text(505, 58, "coat fidelity, coat listen", 13, TEAL, bold=True)
    d.text(505, 76, "what is in here, said by the heads", 12, GREY)
    d.arrow(505, 84, 505, 118, GREY)
    d.text(240, 58, "coat probe", 13, BLUE, bold=True)
    d.text(240, 76, "what is linear in any layer", 12, GREY)
    d.arrow(290, 84, 290, 118, GREY)
    d.text(720, 28, "coat intervene", 13, RED, bold=True)
    d.text(720, 46, "put another clip's states there:", 12, GREY)
    d.text(720, 62, "does the answer follow?", 12, GREY)
    d.arrow(640, 68, 585, 118, RED)
    d.text(885, 92, "coat evaluate", 13, INK, bold=True)
    d.text(885, 108, "and compare", 12, GREY)
    d.text(85, 214, "the guard of coat evaluate:", 12, GREY)
    d.text(85, 230, "another sound, or silence", 12, GREY)
    d.arrow(85, 200, 85, 176, GREY)
    d.text(
        20,
        280,
        "Each measure can be high while the next is low: heard and not held, held and not used.",
        13,
        INK,
        at="start",
    )
    return d


DRAWINGS = {
    "pipeline": pipeline,
    "thinking-block": thinking_block,
    "frames": frames,
    "commit": commit,
    "shards": shards,
    "losses": losses,
    "measures": measures,
}


def main() -> None:
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
