"""Which experts of the shards a run distils."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.model.batch import at_audio


def experts_of(config: TrainConfig, index: ShardIndex) -> dict[str, ExpertInfo]:
    """What is distilled."""
    names = chosen_experts(index, config.heads.experts, config.losses.weights)
    return {name: index.experts[name] for name in names} if config.distils else {}


def with_audio_losses(config: TrainConfig, experts: Mapping[str, ExpertInfo]) -> dict[str, ExpertInfo]:
    """By loss: experts at the states that are distilled and, where these are the block's and the audio's, at both."""
    at_both = config.thinking.states == "both"
    return {**experts, **({at_audio(name): expert for name, expert in experts.items()} if at_both else {})}


def same_experts(config: TrainConfig, begun: ShardIndex, now: ShardIndex) -> ShardIndex:
    """The index of the shards now, with the experts that a run was begun with: a sidecar added since is not for it.

    Means and deviations are those that the run was begun with, though the shards may have lost or gained samples.
    InputError where an expert that it trains is gone, or has other targets.
    """
    for name, expert in experts_of(config, begun).items():
        found = now.experts.get(name)
        if found is None or not same_targets(expert, found):
            what = f"are other ones now ({found.spec.fingerprint})" if found else "are gone"
            raise InputError(
                f"{now.path}: the targets of {name} that this run was begun with ({expert.spec.fingerprint}) {what}; "
                "put them back, or use another --out"
            )
    kept = {
        name: replace(expert, mean=begun.experts[name].mean, std=begun.experts[name].std)
        for name, expert in now.experts.items()
        if name in begun.experts
    }
    return replace(now, experts=kept, sidecars={n: s for n, s in now.sidecars.items() if n in kept})


def same_targets(begun: ExpertInfo, now: ExpertInfo) -> bool:
    """Whether a frame of one means what a frame of the other does; how they are stored is no matter."""
    bases = [e.reduction.basis if e.reduction else None for e in (begun, now)]
    return begun.spec.fingerprint == now.spec.fingerprint and bases[0] == bases[1]


def chosen_experts(index: ShardIndex, wanted: Sequence[str] | None, weights: Mapping[str, float]) -> list[str]:
    """Names of the experts to distil, in the index's order. InputError names those that the shards lack."""
    unknown = sorted({*(wanted or ()), *weights} - set(index.experts))
    if unknown:
        raise InputError(
            f"{index.path}: no targets of {', '.join(unknown)}; the shards have {', '.join(index.experts) or 'none'}"
        )
    if empty := [name for name in wanted or () if not index.experts[name].frames]:
        raise InputError(
            f"{index.path}: has no frame of {', '.join(empty)}; extract it for these rows, or leave it out"
        )
    return [name for name in index.experts if wanted is None or name in wanted]
