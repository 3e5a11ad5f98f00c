"""The panel of an expert: its target for the utterance, or why there is none. N frames, D dim."""

import math
from dataclasses import dataclass, replace

import numpy as np

from coat.drawing.panels import Panel
from coat.drawing.target_tracks import target_tracks
from coat.extractors import registry
from coat.manifests.audio.clip import Clip
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet

EPSILON = 1e-6  # of a frame: edges that meet do not overlap


@dataclass(frozen=True)
class NamedTarget:
    """A target set, under the name that is shown, and what it says of the utterance."""

    name: str
    target_set: TargetSet
    row: Row | None
    missing: str = ""  # why there is no row

    @classmethod
    def find(cls, name: str, targets: TargetSet, utterance: Utterance) -> "NamedTarget":
        """It holds nothing of the set's index, so that it is small for another process."""
        row = targets.rows.get(utterance.digest)
        missing = why_missing(targets, utterance) if row is None else ""
        return cls(name, TargetSet(targets.url, targets.spec), row, missing)


def expert_panel(target: NamedTarget, start: float, end: float, seconds: float, whole: Clip | None) -> Panel:
    """The target, or why there is none. `whole`: the sound now, where all of it was decoded."""
    spec, row = target.target_set.spec, target.row
    panel = Panel(title=target.name, description=describe_expert(spec), spec=spec)
    if row is None:
        return replace(panel, problem=target.missing)
    if row.status != "ok":
        return replace(panel, problem=f"{row.status}: {row.error}")
    first, stop = frames_between(spec, start, math.inf if end >= seconds else end, row.frames)
    if first >= stop:
        location = f"from {spec.start_s:.3f} to {spec.times(row.frames)[-1]:.3f} s" if row.frames else "nowhere"
        return replace(panel, problem=f"none of its {row.frames} frames is in what is shown; they lie {location}")
    frames_ND = target.target_set.read_row(replace(row, first=row.first + first, frames=stop - first)).frames
    tracks, drawn, value_meaning = target_tracks(np.asarray(frames_ND, np.float32), spec)
    is_changed = whole is not None and row.source is not None and row.source != whole.digest
    return replace(
        panel,
        description=f"{panel.description}; {drawn}",
        value_meaning=value_meaning,
        first_s=spec.start_s + first / spec.rate_hz,
        rate_hz=spec.rate_hz,
        tracks=tracks,
        problem="the sound has changed since; `coat extract --refresh` makes this target anew" if is_changed else "",
    )


def describe_expert(spec: TargetSpec) -> str:
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
