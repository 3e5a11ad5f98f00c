"""Shards of an id and a silent sound each, and loaders of them without a student: for the order alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
from webdataset.writer import TarWriter

from coat.manifests import ShardIndex, ShardInfo
from coat.trainer.config.sections import DataConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.data_sets import DataSets
from coat.trainer.data.loader import Loader, loader_of
from coat.trainer.data.samples import RawSample, Sample
from tests.trainer.helpers import members


def bare_shards(folder: str | Path, sizes: Sequence[int], prefix: str = "s") -> ShardIndex:
    """Samples of an id and a silent sound each, of 1 to 7 samples."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    infos = []
    for n, (last, size) in enumerate(zip(accumulate(sizes), sizes, strict=True)):
        path = Path(folder) / f"shard-{n:05d}.tar"
        with path.open("wb") as f, TarWriter(f, mtime=0, encoder=False) as tar:
            for i in range(last - size, last):
                sound = {"audio": np.zeros(1 + i % 7), "meta": {}, "targets": {}}
                tar.write(members({"key": f"{prefix}{i:03d}", **sound}))
        infos.append(
            ShardInfo(name=path.name, samples=size, bytes=path.stat().st_size, seconds=0.0, xxh3=f"{prefix}{n}")
        )
    index = ShardIndex(path=str(folder), layout="joint", sample_rate=16000, shards=tuple(infos), experts={})
    index.write(str(folder))
    return index


class Padded:
    """A collator for which a sample is as long as its sound; a batch is the ids, and the size when padded."""

    def __init__(self, index: ShardIndex) -> None:
        self.index, self.experts = index, list(index.experts)

    def sequence_length(self, raw: RawSample, _config: DataConfig) -> int:
        return round(json.loads(raw.members["json"])["duration"] * 16000)

    def encode(self, sample: Sample, _config: DataConfig) -> Any:
        return Encoded(sample)

    def collate(self, items: Sequence[Any]) -> tuple[list[str], int]:
        return [s.id for s in items], len(items) * max(len(s.ids) for s in items)


class Encoded:
    def __init__(self, sample: Sample) -> None:
        self.id, self.seconds, self.ids = sample.id, sample.seconds, [0] * len(sample.samples_S)


def data_of(folders: Mapping[str, str | Path], **settings: Any) -> DataSets:
    """One set without a name, or several."""
    sets = [{"name": name, "shards": str(path), **settings.get(name, {})} for name, path in folders.items() if name]
    where: dict[str, Any] = {"sets": sets} if sets else {"shards": str(folders[""])}
    rest = {name: value for name, value in settings.items() if name not in folders}
    return DataSets.open(DataConfig.model_validate({"workers": 1, "shuffle": 4, "batch_size": 2, **where, **rest}))


def bare_loader(data: DataSets, rank: int = 0, ranks: int = 1) -> Loader:
    return loader_of(data, cast(Collator, Padded(data.index)), rank, ranks)


def batches(loader: Loader) -> Iterator[tuple[list[str], int]]:
    return cast(Iterator[tuple[list[str], int]], iter(loader))
