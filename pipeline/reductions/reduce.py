"""How each expert's targets are made smaller, and what the index of a shard set says of it.

A reduction is fitted to the statistics of the target set, and measured on utterances held out of it, before anything
is written. D dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coat.manifests.errors import InputError
from coat.manifests.shards.info import ExpertInfo
from coat.manifests.targets.reduction import Reduction
from coat.pipeline.reductions.evaluation_sample import take_evaluation_sample
from coat.pipeline.reductions.fidelity import Fidelity, measure_fidelity
from coat.pipeline.reductions.fit import fit_reduction
from coat.pipeline.reductions.options import ReductionOptions
from coat.pipeline.statistics.compute import compute_statistics, target_moments
from coat.pipeline.statistics.saved_sums import MakeSums, sums_here
from coat.pipeline.store.target_set import TargetSet


@dataclass(frozen=True)
class FittedReduction:
    """What is done to one expert's targets, and how close the outcome is."""

    reduction: Reduction
    fidelity: Fidelity


def fit_reductions(
    sets: Mapping[str, TargetSet], options: ReductionOptions, make_sums: MakeSums = sums_here
) -> dict[str, FittedReduction]:
    """For the sets that are made smaller. InputError where an option does not suit an expert's kind.

    `make_sums`: who reads a set whose statistics are not current.
    """
    options.check_names(list(sets))
    reductions = {}
    for name, targets in sets.items():
        arguments = options.arguments_for(name, targets.spec)
        if not arguments:
            continue
        sample = take_evaluation_sample(targets)
        try:
            statistics = compute_statistics(targets, "pca" in arguments, make_sums=make_sums, may_sample=True)
            reduction = fit_reduction(statistics, sample, **arguments)
        except InputError as e:
            raise InputError(f"{name}: {e}") from e
        reductions[name] = FittedReduction(reduction, measure_fidelity(sample, reduction, targets.spec))
    return reductions


def expert_info(
    targets: TargetSet, fitted: FittedReduction | None, samples: int, frames: int, make_sums: MakeSums = sums_here
) -> ExpertInfo:
    """What the index of a shard set says of one expert's targets."""
    moments, spec = target_moments(targets, make_sums), targets.spec
    std_D = moments.std_D * (np.array(fitted.fidelity.std_ratio_D) if fitted else 1.0)
    return ExpertInfo(
        spec=fitted.reduction.decoded_spec(spec) if fitted else spec,
        samples=samples,
        frames=frames,
        mean=tuple(moments.mean_D.tolist()),
        std=tuple(std_D.tolist()),
        reduction=fitted.reduction if fitted else None,
        extracted=spec.fingerprint if fitted else "",
        fidelity=fitted.fidelity.to_dict() if fitted else None,
    )
