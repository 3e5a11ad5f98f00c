"""See what experts heard: one utterance, its sound, and every expert's target on one time axis.

    found = inspect("targets", "corpus.jsonl", "a1")
    files.write_bytes("a1.html", inspection_page.page(found))
    files.write_bytes("a1.png", inspection_drawing.picture(found))

Nothing is extracted: what a target set lacks is said in its place. N frames, D dim.
"""

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from coat.extractors import registry
from coat.manifests.audio.decoding import AudioError, AudioFile, Clip
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.inspect.panels import Panel
from coat.pipeline.inspect.sound import log_mel_panel, waveform
from coat.pipeline.inspect.targets import target_tracks
from coat.pipeline.store.outcomes import pc
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore

LONGEST_S = 60.0  # shown where no --end is given
USUAL_RATE = 16000  # Hz that experts hear at
NEAR_IDS = 3  # named where an id is not there
COMPARED_IDS = 2000  # with an unknown one, at most
SHORT = 6  # digits of a fingerprint that stand for it, at least
EPSILON = 1e-6  # of a frame: edges that meet do not overlap


@dataclass(frozen=True)
class Inspection:
    utterance: Utterance
    seconds: float  # of the utterance
    start_s: float  # of what is shown, from the utterance's start
    end_s: float
    clip: Clip | None  # its sound; None where it cannot be decoded
    sound: tuple[Panel, ...]
    experts: tuple[Panel, ...]

    @property
    def until_s(self) -> float:
        """Where the time axis ends: behind the sound, where frames are centred there (experts pad short clips)."""
        if self.end_s < self.seconds:
            return self.end_s
        last = [float(p.edges()[-1]) for p in self.experts if p.frames and p.edges()[-2:].mean() > self.end_s]
        return max([self.end_s, *last])

    @property
    def part(self) -> str:
        """What is left out; empty where all is shown."""
        if self.start_s == 0 and self.end_s >= self.seconds:
            return ""
        shown = f"{self.start_s:g} to {self.end_s:g} s of {self.seconds:.1f} s"
        return f"{shown} are shown: --start and --end show other parts"


@dataclass(frozen=True)
class Held:
    """A target set, under the name that is shown, and what it says of the utterance."""

    name: str
    targets: TargetSet
    row: Row | None


def inspect(
    store: str,
    manifest: Manifest | str,
    identity: str,
    experts: Sequence[str] = (),
    start_s: float | None = None,
    end_s: float | None = None,
) -> Inspection:
    """What the experts (all that the store has, or some: `name`, `name@fingerprint`) heard in one utterance.

    Of long audio the first LONGEST_S seconds are taken, or those from `start_s` to `end_s`. InputError: an id,
    expert or time that is not there.
    """
    manifest = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    utterance = find(manifest, identity)
    if utterance.text_only:
        raise InputError(f"{manifest.path}: {identity} is text alone; there is nothing to hear")
    held = [Held(name, targets, targets.rows.get(utterance.digest)) for name, targets in named_sets(store, experts)]
    span, silence = None, ""
    try:
        span = AudioFile(utterance.audio).span(utterance.offset, utterance.duration)
    except AudioError as e:
        silence = f"{e.reason}: {e}"
    heard = [h.row.seconds for h in held if h.row and h.row.status == "ok"]
    seconds = span.seconds if span else max([utterance.duration or 0.0, *heard]) or 1.0
    start, end = chosen_part(start_s, end_s, seconds)
    clip = None
    if span:
        first, last = round(start * span.rate), min(round(end * span.rate), span.samples)
        try:
            clip = replace(span, start=span.start + first, samples=max(1, last - first)).decode()
        except AudioError as e:
            silence = f"{e.reason}: {e}"
    whole = clip if clip and span and len(clip.samples_T) == span.samples else None
    return Inspection(
        utterance=utterance,
        seconds=seconds,
        start_s=start,
        end_s=end,
        clip=clip,
        sound=sound_panels(clip, start, [h.targets.spec for h in held], silence),
        experts=tuple(expert_panel(h, utterance, start, end, seconds, whole) for h in held),
    )


def find(manifest: Manifest, identity: str) -> Utterance:
    """The row of an id; InputError names ids that look like it."""
    at = pc.index(manifest.ids, pa.scalar(identity, manifest.ids.type)).as_py()
    if at >= 0:
        return manifest[at]
    near = difflib.get_close_matches(identity, alike(manifest.ids, identity), NEAR_IDS, cutoff=0.0)
    raise InputError(f"--id {identity}: {manifest.path} has no such id; near it are {', '.join(near)}")


def alike(ids: pa.Array, identity: str) -> list[str]:
    """Some ids that begin as this one does for longest, and the first ones: comparing millions takes minutes."""
    found = ids[:0]
    for length in range(len(identity), 0, -1):
        found = ids.filter(pc.starts_with(ids, identity[:length]))
        if len(found):
            break
    return list(dict.fromkeys(found[:COMPARED_IDS].to_pylist() + ids[:COMPARED_IDS].to_pylist()))


def named_sets(store: str, experts: Sequence[str]) -> Iterator[tuple[str, TargetSet]]:
    """Target sets by the names under which they are shown; several of one expert with their fingerprints."""
    every = list(TargetStore(store).target_sets())
    if not every:
        raise InputError(f"{store}: no target sets (<expert>/<fingerprint>/spec.json) in it; is this a store?")
    chosen: dict[str, TargetSet] = {}
    for wanted in experts or dict.fromkeys(s.spec.expert for s in every):
        name, _, fingerprint = wanted.partition("@")
        found = [s for s in every if s.spec.expert == name and s.spec.fingerprint.startswith(fingerprint)]
        for targets in found or [TargetStore(store).target_set(name, fingerprint or None)]:  # which says what there is
            chosen.setdefault(targets.url, targets)
    for targets in chosen.values():
        spec = targets.spec
        others = [s.spec.fingerprint for s in every if s.spec.expert == spec.expert and s.url != targets.url]
        digits = SHORT
        while any(o.startswith(spec.fingerprint[:digits]) for o in others):
            digits += 1
        yield f"{spec.expert}@{spec.fingerprint[:digits]}" if others else spec.expert, targets


def chosen_part(start_s: float | None, end_s: float | None, seconds: float) -> tuple[float, float]:
    """InputError where nothing of the utterance lies there."""
    start = start_s or 0.0
    end = min(seconds, start + LONGEST_S if end_s is None else end_s)
    if not (0 <= start < end):  # NaN too
        asked = f"--start {start:g}" + ("" if end_s is None else f" --end {end_s:g}")
        raise InputError(f"{asked}: expected seconds within the utterance, which lasts {seconds:.3f} s")
    return start, end


def sound_panels(clip: Clip | None, start: float, specs: Sequence[TargetSpec], silence: str) -> tuple[Panel, ...]:
    if clip is None:
        return (Panel(title="waveform", problem=f"there is no sound to show. {silence}"),)
    rate = max([USUAL_RATE, *(spec.sample_rate for spec in specs)])
    return waveform(clip.samples_T, clip.rate, start), log_mel_panel(clip.at(rate), rate, start)


def expert_panel(
    held: Held, utterance: Utterance, start: float, end: float, seconds: float, whole: Clip | None
) -> Panel:
    """The target, or why there is none. `whole`: the sound now, where all of it was decoded."""
    spec, row = held.targets.spec, held.row
    panel = Panel(title=held.name, what=described(spec), spec=spec)
    if row is None:
        return replace(panel, problem=why_missing(held.targets, utterance))
    if row.status != "ok":
        return replace(panel, problem=f"{row.status}: {row.error}")
    first, stop = frames_between(spec, start, math.inf if end >= seconds else end, row.frames)
    if first >= stop:
        lie = f"from {spec.start_s:.3f} to {spec.times(row.frames)[-1]:.3f} s" if row.frames else "nowhere"
        return replace(panel, problem=f"none of its {row.frames} frames is in what is shown; they lie {lie}")
    frames_ND = held.targets.read_row(replace(row, first=row.first + first, frames=stop - first)).frames
    tracks, drawn, reading = target_tracks(np.asarray(frames_ND, np.float32), spec)
    changed = whole is not None and row.source is not None and row.source != whole.digest
    return replace(
        panel,
        what=f"{panel.what}; {drawn}",
        reading=reading,
        first_s=spec.start_s + first / spec.rate_hz,
        rate_hz=spec.rate_hz,
        tracks=tracks,
        problem="the sound has changed since; `coat extract --refresh` makes this target anew" if changed else "",
    )


def described(spec: TargetSpec) -> str:
    """What a frame is, where the expert is one of ours; others are not imported to be asked."""
    if spec.expert in registry.EXPERTS:
        return registry.find(spec.expert).card.what
    return f"{spec.family}: {spec.kind}"


def why_missing(targets: TargetSet, utterance: Utterance) -> str:
    if targets.rows.by_id(utterance.id):
        return "missing: its manifest row had another path or span when it was extracted; extract it again"
    command = f"`coat extract --expert {targets.spec.expert}`"
    return f"missing: not extracted yet; run {command} (as for this set) over this manifest"


def frames_between(spec: TargetSpec, start: float, end: float, frames: int) -> tuple[int, int]:
    """First frame, and the one after the last, of those that lie in part between two times."""
    before, after = ((t - spec.start_s) * spec.rate_hz for t in (start, end))
    first = max(0, math.floor(before - 0.5 + EPSILON) + 1)
    return first, frames if math.isinf(after) else min(frames, math.ceil(after + 0.5 - EPSILON))
