"""The panel of a head: what it says of the block, over the expert's target where there is one. N frames, D dim."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.analysis.listening.agreement import agreement, agreement_text
from coat.drawing.compared_tracks import compared_tracks
from coat.drawing.panels import Panel
from coat.drawing.target_tracks import target_tracks
from coat.manifests import ExpertInfo


@dataclass(frozen=True)
class Target:
    """An expert's target of a clip as the run's shards would have it, or why there is none ("": none was asked for)."""

    frames_ND: NDArray[np.float32] | None = None
    problem: str = ""


@dataclass(frozen=True)
class HeardPanel:
    """A panel with its expert, frames and what was measured: `None` where the clip has nothing to measure it by."""

    expert: str
    panel: Panel
    agreement: dict[str, float | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "expert": self.expert, "frames": self.panel.frames, "agreement": self.agreement,
            "problem": self.panel.problem or None,
        }  # fmt: skip


def heard_panel(name: str, expert: ExpertInfo, heard_ND: NDArray[np.float32] | None, target: Target) -> HeardPanel:
    spec = expert.spec
    words = [f"{spec.family}: {spec.kind}"]
    if expert.reduction:
        words.append(f"as the shards have it: {expert.reduction.summary()}")
    if heard_ND is None:
        return HeardPanel(name, Panel(title=name, description=words[0], spec=spec, problem="it has no frame here"))
    base = {"title": name, "first_s": spec.start_s, "rate_hz": spec.rate_hz, "spec": spec, "problem": target.problem}
    if target.frames_ND is None:
        tracks, drawn, meaning = target_tracks(heard_ND, spec)
        description = "; ".join([*words, "as the head decodes it", drawn])
        return HeardPanel(name, Panel(tracks=tracks, description=description, value_meaning=meaning, **base))
    tracks, drawn = compared_tracks(heard_ND, target.frames_ND, spec)
    found = agreement(heard_ND, target.frames_ND, expert)
    panel = Panel(
        tracks=tracks,
        description="; ".join([*words, drawn]),
        value_meaning="heard / the expert's" if any(t.reference is not None for t in tracks) else "",
        measured=agreement_text(found),
        **base,
    )
    return HeardPanel(name, panel, found)
