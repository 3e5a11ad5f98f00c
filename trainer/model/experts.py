"""Which experts of the shards a run distils."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.train_config import TrainConfig


def experts_of(config: TrainConfig, index: ShardIndex) -> dict[str, ExpertInfo]:
    """What is distilled."""
    names = chosen_experts(index, config.heads.experts, config.losses.weights)
    return {name: index.experts[name] for name in names} if config.distils else {}


def same_experts(config: TrainConfig, begun: ShardIndex, now: ShardIndex) -> ShardIndex:
    """The index of the shards now, with the experts that a run was begun with: a sidecar added since is not for it.

    Where the shards lost or gained samples, means and deviations stay those that the run was begun with. InputError
    where an expert that it trains is gone, or has other targets.
    """
    changed = begun.identity != now.identity
    for name, expert in experts_of(config, begun).items():
        found = now.experts.get(name)
        if found is None or not same_targets(expert, found, changed):
            what = f"are other ones now ({found.spec.fingerprint})" if found else "are gone"
            raise InputError(
                f"{now.path}: the targets of {name} that this run was begun with ({expert.spec.fingerprint}) {what}; "
                "put them back, or use another --out"
            )
    kept = {name: expert for name, expert in now.experts.items() if name in begun.experts}
    if changed:
        kept = {n: replace(e, mean=begun.experts[n].mean, std=begun.experts[n].std) for n, e in kept.items()}
    return replace(now, experts=kept, sidecars={n: s for n, s in now.sidecars.items() if n in kept})


def same_targets(begun: ExpertInfo, now: ExpertInfo, changed: bool) -> bool:
    """`changed`: of other samples, which have other means."""
    if changed:
        bases = [e.reduction.basis if e.reduction else None for e in (begun, now)]
        return begun.spec.fingerprint == now.spec.fingerprint and bases[0] == bases[1]
    return (begun.spec.fingerprint, begun.mean, begun.std) == (now.spec.fingerprint, now.mean, now.std)


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
