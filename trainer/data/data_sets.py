"""The shard sets of a run, opened and compared: what they have in common is what a student is trained on."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from coat.manifests import ExpertInfo, InputError, ShardIndex
from coat.trainer.config.sections import DataConfig, DataSetConfig
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.mixture import MixedStream, mixing_weights
from coat.trainer.data.order import Left
from coat.trainer.data.shard_reading import AHEAD_BYTES
from coat.trainer.data.stream import SHUFFLE_BYTES, ShardStream
from coat.trainer.model.experts import same_targets

SampleStream = ShardStream | MixedStream
ROUNDING = 1e-6  # of means of a dimension that never varies, relative


@dataclass(frozen=True)
class DataSet:
    config: DataSetConfig
    index: ShardIndex

    @property
    def name(self) -> str:
        return self.config.name

    def limits(self, data: DataConfig) -> DataConfig:
        """The settings of its samples: its own limits, where it has some."""
        own = {name: getattr(self.config, name) for name in ("max_seconds", "max_tokens")}
        return data.model_copy(update={name: value for name, value in own.items() if value is not None})


@dataclass(frozen=True)
class DataSets:
    """`index` is of all of them together: all shards, all experts, means and deviations over all frames."""

    config: DataConfig
    sets: tuple[DataSet, ...]
    index: ShardIndex

    @classmethod
    def of_run(cls, config: TrainConfig) -> "DataSets":
        """InputError where a set is none, or where two sets have other targets of an expert that is trained."""
        return cls.open(config.data, config.heads.experts if config.distils else ())

    @classmethod
    def open(cls, config: DataConfig, trained: Collection[str] | None = None) -> "DataSets":
        """`trained`: experts; None: all."""
        return cls.of(config, [ShardIndex.read(one.shards) for one in config.named_sets], trained)

    @classmethod
    def of(
        cls, config: DataConfig, indexes: Sequence[ShardIndex], trained: Collection[str] | None = None
    ) -> "DataSets":
        sets = tuple(DataSet(one, index) for one, index in zip(config.named_sets, indexes, strict=True))
        return cls(config, sets, common_index(sets, trained))

    @cached_property
    def by_name(self) -> dict[str, DataSet]:
        return {one.name: one for one in self.sets}

    @property
    def several(self) -> bool:
        """Whether they are mixed; one that stands in `data.sets` alone is, too."""
        return bool(self.config.sets)

    @cached_property
    def shares(self) -> list[float]:
        """Of the samples that are drawn, one of each set."""
        weights = [one.config.weight for one in self.sets]
        found = mixing_weights(weights, [one.index.samples for one in self.sets], self.config.temperature)
        return [weight / sum(found) for weight in found]

    def stream(
        self,
        rank: int = 0,
        ranks: int = 1,
        experts: Collection[str] | None = None,
        left: Mapping[str, Left] | None = None,
    ) -> SampleStream:
        """The samples of one rank. `left`: by set, epochs that were begun by other ranks, or with other shards.

        Windows, and what is read ahead, are divided by the shares: together they have the bytes of one set's.
        """
        config, several = self.config, self.several
        streams = {}
        for one, share in zip(self.sets, self.shares, strict=True):
            at_a_time = max(1, round(config.shards_ahead * share))
            window = round(share * (config.shuffle_bytes or SHUFFLE_BYTES)) if several else config.shuffle_bytes
            streams[one.name] = ShardStream(
                one.index,
                seed=config.seed,
                shuffle=config.shuffle,
                shuffle_bytes=window,
                rank=rank,
                ranks=ranks,
                experts=None if experts is None else [name for name in experts if name in one.index.experts],
                name=one.name,
                left=(left or {}).get(one.name),
                ahead=(at_a_time, round(config.shards_ahead * share * AHEAD_BYTES / at_a_time)),
            )
        if not several:
            return streams[self.sets[0].name]
        order = {"seed": config.seed, "shuffle": config.shuffle, "shuffle_bytes": config.shuffle_bytes, "rank": rank}
        return MixedStream(streams, self.shares, self.index, **order)

    def describe(self) -> list[str]:
        """A line for each of several sets: how much of it is drawn, and how often it comes."""
        if not self.several:
            return []
        rates = [share / one.index.samples for share, one in zip(self.shares, self.sets, strict=True)]
        return [
            f"{one.name}: {share:.1%} of the samples drawn, from {one.index.samples} samples "
            f"({one.index.seconds / 3600:.1f} h); {rate / min(rates):.3g} times as often as the rarest set's"
            for one, share, rate in zip(self.sets, self.shares, rates, strict=True)
        ]


def common_index(sets: Sequence[DataSet], trained: Collection[str] | None) -> ShardIndex:
    """Without experts that are not trained and differ from set to set."""
    if len(sets) == 1:
        return sets[0].index
    indexes = [one.index for one in sets]
    experts = {}
    for name in dict.fromkeys(name for index in indexes for name in index.experts):
        found = common_expert([one for one in sets if name in one.index.experts], name)
        if isinstance(found, InputError) and (trained is None or name in trained):
            raise found
        if isinstance(found, ExpertInfo):
            experts[name] = found
    return replace(
        indexes[0],
        path=", ".join(index.path for index in indexes),
        layout="joint",
        shards=tuple(shard for index in indexes for shard in index.shards),
        experts=experts,
        skipped=sum(index.skipped for index in indexes),
        samples_xxh3="",
        sidecars={},
    )


def common_expert(sets: Sequence[DataSet], name: str) -> ExpertInfo | InputError:
    """One expert over the sets that have it; an error that names two of them where its targets differ."""
    first, infos = sets[0], [one.index.experts[name] for one in sets]
    for other in sets[1:]:
        if why := difference(first.index.experts[name], other.index.experts[name]):
            return InputError(
                f"{first.index.path} and {other.index.path} (data.sets {first.name} and {other.name}): targets of "
                f"{name} differ ({why}); build both with the same expert and reduction, or leave it out (heads.experts)"
            )
    frames = np.array([info.frames for info in infos], float)
    if all((info.mean, info.std) == (infos[0].mean, infos[0].std) for info in infos) or not frames.sum():
        mean, std = infos[0].mean, infos[0].std
    else:
        share_S1 = (frames / frames.sum())[:, None]
        mean_SD, std_SD = np.array([info.mean for info in infos]), np.array([info.std for info in infos])
        mean_D = (share_S1 * mean_SD).sum(0)
        variance_D = (share_S1 * (std_SD**2 + (mean_SD - mean_D) ** 2)).sum(0)
        constant_D = (std_SD == 0).all(0) & (np.ptp(mean_SD, 0) <= ROUNDING * (1 + np.abs(mean_D)))
        mean, std = tuple(mean_D.tolist()), tuple(np.where(constant_D, 0.0, np.sqrt(variance_D)).tolist())
    samples, total = sum(info.samples for info in infos), sum(info.frames for info in infos)
    return replace(infos[0], samples=samples, frames=total, mean=mean, std=std)


def difference(a: ExpertInfo, b: ExpertInfo) -> str:
    """Why the targets of two sets cannot be learnt as one; "" where they can."""
    if same_targets(a, b):
        return ""
    fingerprints = f"{a.spec.fingerprint} and {b.spec.fingerprint}"
    return fingerprints if a.spec != b.spec else "their principal components are others"
