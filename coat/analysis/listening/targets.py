"""The experts' targets of one utterance as a run's shards have them: found in a store, and reduced as there.

N frames, D dim.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coat.analysis.listening.panels import Target
from coat.manifests import ExpertInfo, Utterance
from coat.manifests.targets.coding import decode_frames, encode_frames
from coat.pipeline.inspect.expert_panels import why_missing
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore


class StoredTargets:
    """Of the experts of a run. What a store lacks is said in the target's place."""

    def __init__(self, store: str, experts: Mapping[str, ExpertInfo]) -> None:
        self.store, self.experts = store, experts
        self.sets = list(TargetStore(store).target_sets())

    def find(self, utterance: Utterance) -> dict[str, Target]:
        return {name: self.target(name, expert, utterance) for name, expert in self.experts.items()}

    def target(self, name: str, expert: ExpertInfo, utterance: Utterance) -> Target:
        found = self.set_of(expert)
        if isinstance(found, str):
            return Target(problem=found)
        row = found.rows.get(utterance.digest)
        if row is None:
            return Target(problem=why_missing(found, utterance))
        if row.status != "ok":
            return Target(problem=f"{row.status}: {row.error}")
        if not row.frames:
            return Target(problem="the expert gave no frame")
        return Target(as_in_shards(np.asarray(found.read_row(row).frames, np.float32), expert))

    def set_of(self, expert: ExpertInfo) -> TargetSet | str:
        """The set that the shards were made of, or why there is none."""
        wanted = expert.extracted or expert.spec.fingerprint
        sets = [s for s in self.sets if s.spec.expert == expert.spec.expert]
        others = ", ".join(s.spec.fingerprint for s in sets) or "none"
        return next(
            (s for s in sets if s.spec.fingerprint == wanted),
            f"no target to compare with: the run was trained on {expert.spec.expert}@{wanted}; the store has {others}",
        )


def as_in_shards(frames_ND: NDArray[np.float32], expert: ExpertInfo) -> NDArray[np.float32]:
    """At the shards' rate, with what their components, kept classes and integers leave of it."""
    if expert.reduction is None:
        return frames_ND
    return decode_frames(encode_frames(frames_ND, expert.reduction), expert.reduction)
