"""`coat build-shards --rate --pca --whiten --dtype --scale --topk`: how each expert's targets are made smaller.

An option's value is for all experts that it suits (`12.5`, `int8`), or for one (`whisper=12.5`); with commas, both.
The reduction is fitted to the target set's statistics and measured on utterances held out of it before anything is
written. D dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coat.manifests.errors import InputError
from coat.manifests.shards.info import ExpertInfo
from coat.manifests.targets.reduction import Reduction
from coat.pipeline.reductions.evaluation_sample import held_out
from coat.pipeline.reductions.fidelity import Fidelity, measure
from coat.pipeline.reductions.fit import fit
from coat.pipeline.reductions.options import Wishes
from coat.pipeline.statistics.compute import moments, statistics
from coat.pipeline.store.target_set import TargetSet


@dataclass(frozen=True)
class Reduced:
    """What is done to one expert's targets, and what is known of the outcome."""

    how: Reduction
    fidelity: Fidelity


def reduce_sets(sets: Mapping[str, TargetSet], wishes: Wishes) -> dict[str, Reduced]:
    """Of those that something is asked for. InputError where it does not go with an expert's kind."""
    wishes.check(list(sets))
    found = {}
    for name, targets in sets.items():
        how = wishes.of(name, targets.spec)
        if not how:
            continue
        sample = held_out(targets)
        try:
            reduction = fit(statistics(targets, covariance="pca" in how), sample, **how)
        except InputError as e:
            raise InputError(f"{name}: {e}") from e
        found[name] = Reduced(reduction, measure(sample, reduction, targets.spec))
    return found


def expert_info(targets: TargetSet, reduced: Reduced | None, samples: int, frames: int) -> ExpertInfo:
    found, spec = moments(targets), targets.spec
    std_D = found.std_D * (np.array(reduced.fidelity.std_ratio_D) if reduced else 1.0)
    return ExpertInfo(
        spec=reduced.how.decoded_spec(spec) if reduced else spec,
        samples=samples,
        frames=frames,
        mean=tuple(found.mean_D.tolist()),
        std=tuple(std_D.tolist()),
        reduction=reduced.how if reduced else None,
        extracted=spec.fingerprint if reduced else "",
        fidelity=reduced.fidelity.to_dict() if reduced else None,
    )
