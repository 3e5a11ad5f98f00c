"""States on disk, by the commit of units that the target store has: what a kill leaves is whole, and is not done again.

    CACHE/subject-<digest>.json                 dim and layers of what was loaded
    CACHE/states/<fingerprint>/units/u-...      states of up to UNIT_SAMPLES samples of one tar, see `StatesSet`

The fingerprint is of whose states they are, of which shards, layers and places. The folder is a target store, so
`coat verify CACHE` checks it. N rows, D dim.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from coat.analysis.probing.subject import Subject
from coat.manifests import ShardIndex, storage
from coat.manifests.errors import RunError
from coat.manifests.targets.spec import TargetSpec
from coat.pipeline.store.builds import remove_abandoned_builds
from coat.pipeline.store.frames_reader import read_frames
from coat.pipeline.store.layout import FRAMES
from coat.pipeline.store.rows import Row
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.unit_writer import UnitWriter, done_digest, write_spec

UNIT_SAMPLES = 256  # what a kill costs at most
BLOCK_BYTES = 256 * 2**20  # of states in memory, before they are written
STATES = "states"
BLOCKS, LEFT_OUT = "blocks", "left_out"  # in done.json


@dataclass(frozen=True)
class Unit:
    """Samples `first` to `stop` of a tar."""

    shard: str
    first: int
    stop: int

    @property
    def name(self) -> str:
        return f"u-{xxhash.xxh3_64_hexdigest(f'{self.shard} {self.first} {self.stop}'.encode())}"


def units_of(index: ShardIndex, limit: int | None) -> list[Unit]:
    """Of the first `limit` samples."""
    found, left = [], index.samples if limit is None else limit
    for shard in index.shards:
        count = min(shard.samples, left)
        left -= count
        found += [Unit(shard.name, n, min(n + UNIT_SAMPLES, count)) for n in range(0, count, UNIT_SAMPLES)]
    return found


@dataclass
class Block:
    """States of some samples, in their order: for each place and layer rows one behind the other."""

    keys: list[str] = field(default_factory=list)  # of the samples, see `key_of`
    groups: list[str] = field(default_factory=list)  # what lies in one fold
    seconds: list[float] = field(default_factory=list)
    rows: dict[str, list[int]] = field(default_factory=dict)  # by place: rows of each sample
    states: dict[tuple[str, int], list[NDArray[np.float32]]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for parts in self.states.values() for part in parts)

    def facts(self) -> dict[str, Any]:
        return {"keys": self.keys, "groups": self.groups, "seconds": self.seconds, "rows": self.rows}


def key_of(shard: str, number: int) -> str:
    return f"{shard}#{number}"


class StatesSet:
    """The states of one subject over one shard set. A unit is blocks; a block is rows `[N, D]` for each place and
    layer, in the order of both, which `done.json` counts.
    """

    def __init__(
        self, cache: str, subject: Subject, index: ShardIndex, dim: int, layers: Sequence[int],
        places: Sequence[str], by_position: Sequence[str],
    ) -> None:  # fmt: skip
        self.cache, self.dim, self.layers, self.places = cache, dim, tuple(layers), tuple(places)
        settings = {
            "shards": index.identity, "layers": list(layers), "places": list(places), "by_position": list(by_position),
        }  # fmt: skip
        spec = TargetSpec(
            expert=STATES, version=1, family="reconstruction", kind="representation", dim=dim, rate_hz=1.0, start_s=0.0,
            sample_rate=index.sample_rate, min_samples=1, weights=subject.digest, checkpoint=subject.name,
            layer=",".join(map(str, layers)), dtype="float32", settings=settings,
        )  # fmt: skip
        self.set = TargetSet(storage.join(cache, STATES, spec.fingerprint), spec)
        write_spec(self.set.url, spec)
        remove_abandoned_builds(self.set.url)
        self.facts: dict[str, list[dict[str, Any]]] = {}  # blocks by unit

    def has(self, unit: Unit) -> bool:
        """As it was when this was made."""
        return unit.name in self.set.stamps

    def lacking(self, units: Sequence[Unit]) -> list[Unit]:
        """Those that nobody has committed by now."""
        now = TargetSet.open(self.set.url).stamps
        return [unit for unit in units if unit.name not in now]

    def write(self, unit: Unit, blocks: Iterator[Block], skipped: Mapping[str, int]) -> None:
        """`skipped` is read at the end. RunError where the disk does not take it."""
        with UnitWriter(self.set.url, unit.name, self.dim, "float32") as writer:
            facts, rows, first = [], [], 0
            for block in blocks:
                for place in self.places:
                    for layer in self.layers:
                        parts = block.states.get((place, layer), [])
                        for part_ND in parts:
                            writer.append(part_ND)
                        count = sum(map(len, parts))
                        name = f"{len(facts)}/{place}/{layer}"
                        if count:
                            rows.append(Row(unit.name, name, name, None, 0.0, first, count, "ok", None))
                        first += count
                facts.append(block.facts())
            writer.commit(rows, {BLOCKS: facts, LEFT_OUT: dict(skipped)})

    def blocks(self, unit: Unit) -> list[dict[str, Any]]:
        """What `Block.facts` gives, of each block. RunError where the unit is not there, or damaged."""
        if unit.name not in self.facts:
            self.facts[unit.name] = self.done(unit)[BLOCKS]
        return self.facts[unit.name]

    def skipped(self, unit: Unit) -> dict[str, int]:
        return self.done(unit)[LEFT_OUT]

    def done(self, unit: Unit) -> dict[str, Any]:
        found = self.set.read_done(unit.name)
        if found is None or BLOCKS not in found or found["done_xxh3"] != done_digest(found):
            what = f"{self.set.unit_url(unit.name)}: gone, or damaged"
            raise RunError(f"{what}; `coat verify {self.cache} --repair`, and run the command again")
        return found

    def read(self, units: Sequence[Unit], place: str, layer: int) -> Iterator[NDArray[np.float32]]:
        """`[N, D]` of each block in turn. RunError where a unit was damaged after its commit."""
        for unit in units:
            first = 0
            for block in self.blocks(unit):
                counts = {name: sum(block["rows"].get(name, ())) for name in self.places}
                before = first
                for name in self.places[: self.places.index(place)]:
                    before += counts[name] * len(self.layers)
                before += counts[place] * self.layers.index(layer)
                first += sum(counts.values()) * len(self.layers)
                if counts[place]:
                    yield read_frames(self.set.unit_url(unit.name, FRAMES), before, counts[place], self.dim)


def subject_facts(cache: str, subject: Subject) -> dict[str, int] | None:
    """`dim` and `layers` of a subject that was loaded before; None where it was not."""
    url = storage.join(cache, f"subject-{subject.digest}.json")
    return storage.read_json(url) if storage.exists(url) else None


def keep_facts(cache: str, subject: Subject, dim: int, layers: int) -> None:
    url = storage.join(cache, f"subject-{subject.digest}.json")
    storage.write_bytes(url, storage.to_json({"dim": dim, "layers": layers}))
