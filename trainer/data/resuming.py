"""A loader put back to where a run stopped: exactly, or with what is left of its epochs dealt anew."""

from collections.abc import Mapping, Sequence
from typing import Any

from coat.manifests import InputError, ShardIndex
from coat.trainer.data.cursor import LoaderCursor, MixtureCursor, StreamCursor, cursors_of
from coat.trainer.data.data_sets import DataSet, DataSets, SampleStream
from coat.trainer.data.loader import Loader
from coat.trainer.data.mixture import MixedStream
from coat.trainer.data.order import Left
from coat.trainer.data.redeal import Remainder, begin_at, carry_over, remainder, set_cursors, sum_counts
from coat.trainer.data.sample_record import RunData
from coat.trainer.data.stream import ShardStream


class Resuming:
    """Of one rank. `states` are what the loaders of all ranks had when the checkpoint was written, by rank."""

    def __init__(
        self, data: DataSets, run_data: RunData, states: Sequence[Mapping[str, Any]], rank: int, ranks: int
    ) -> None:
        self.data, self.run_data, self.states, self.rank, self.ranks = data, run_data, states, rank, ranks
        self.cursors = [LoaderCursor.from_dict(state) for state in states]

    def go_on(self, loader: Loader) -> list[str]:
        """Lines that say what could not go on exactly. InputError where the shards are not those that the run knows."""
        experts = list(loader.collator.experts)
        if self.same_deal():
            left = {name: self.left_of(name, cursor) for name, cursor in cursors_of(self.own.stream).items()}
            loader.stream = self.data.stream(self.rank, self.ranks, experts, left)
            loader.load_state_dict(self.states[self.rank])
            return []
        known = cursors_of(self.cursors[0].stream)
        found = {one.name: self.remainder(one) for one in self.data.sets if one.name in known}
        loader.stream = self.deal_anew({name: rest for name, (rest, _) in found.items()}, experts)
        first = self.rank == 0  # sums over ranks stay what they were
        skipped = sum_counts([cursor.skipped for cursor in self.cursors]) if first else {}
        given = sum_counts([cursor.given for cursor in self.cursors]) if first else {}
        loader.go_on(LoaderCursor(loader.stream.cursor, None, skipped, given))
        return self.lines(found)

    def deal_anew(self, rests: Mapping[str, Remainder], experts: list[str]) -> SampleStream:
        """This rank's stream of what is left. The main rank keeps with the run what that is."""
        left = {name: rest.left for name, rest in rests.items()}
        for mask in (mask for masks in left.values() for mask in masks.values()):
            if self.rank == 0:
                self.run_data.keep_left(mask)
        stream = self.data.stream(self.rank, self.ranks, experts, left)
        streams = stream.streams if isinstance(stream, MixedStream) else {stream.name: stream}
        for name, rest in rests.items():
            begin_at(streams[name], rest.epoch)
        if isinstance(stream, MixedStream):
            drawn = [c.stream.drawn for c in self.cursors if isinstance(c.stream, MixtureCursor)]
            stream.drawn = sum(drawn) // self.ranks
        return stream

    @property
    def own(self) -> LoaderCursor:
        return self.cursors[self.rank]

    def same_deal(self) -> bool:
        """Whether the ranks, the sets and their shards are those of then."""
        if len(self.states) != self.ranks:
            return False
        cursors = cursors_of(self.own.stream)
        one = isinstance(self.own.stream, StreamCursor)
        if one == self.data.several or set(cursors) != set(self.data.by_name):
            return False
        return all(self.data.by_name[n].index.identity == (c.data or self.identity_then(n)) for n, c in cursors.items())

    def identity_then(self, name: str) -> str:
        """Of the shards of a set when the checkpoint was written."""
        known = self.run_data.read() or {"sets": {}}
        return cursors_of(self.cursors[0].stream)[name].data or known["sets"].get(name, "")

    def remainder(self, one: DataSet) -> tuple[Remainder, dict[str, int]]:
        """What is left of a set, and how its shards have changed: counts, see `carry_over`; empty where not at all."""
        identity = self.identity_then(one.name)
        changed = identity != one.index.identity
        then = self.run_data.record(identity).index if changed else one.index
        streams = []
        if any(cursor.window and not cursor.window.length for cursor in self.cursors):
            raise InputError(
                f"{one.index.path}: this checkpoint of an earlier coat stands within a window of batches by length; "
                f"resume once with {len(self.cursors)} ranks and the same shards, up to a checkpoint of this version"
            )
        for rank, cursor in enumerate(self.cursors):
            left = self.left_of(one.name, cursors_of(cursor.stream)[one.name], then)
            stream = ShardStream(
                then,
                seed=self.data.config.seed,
                shuffle=self.data.config.shuffle,
                rank=rank,
                ranks=len(self.cursors),
                name=one.name,
                left=left,
            )
            if not stream.goes_on_from(set_cursors(cursor)[one.name]):
                raise InputError(
                    f"{one.index.path}: not the shards that this run stopped with, or in another order; resume with "
                    "the same data.seed and shards, or use another --out"
                )
            streams.append(stream)
        rest = remainder(one.name, self.cursors, streams)
        if not changed:
            return rest, {}
        return carry_over(rest, self.run_data.record(identity), self.run_data.record(one.index.identity))

    def left_of(self, name: str, cursor: StreamCursor, then: ShardIndex | None = None) -> Left:
        samples = (then or self.data.by_name[name].index).samples
        return {epoch: self.run_data.left(digest, samples) for epoch, digest in cursor.left.items()}

    def lines(self, found: Mapping[str, tuple[Remainder, dict[str, int]]]) -> list[str]:
        then = len(self.states)
        ranks = f"{self.ranks} {'rank' if self.ranks == 1 else 'ranks'}"
        why = [f"{ranks} in place of {then}"] if then != self.ranks else []
        lines = []
        for one in self.data.sets:
            if one.name not in found:
                lines.append(f"{one.name}: begins here, with {one.index.samples} samples")
                continue
            rest, counts = found[one.name]
            if counts:
                why.append(f"{one.name} has lost {counts['lost']} samples and gained {counts['new']}")
            left = f"{rest.samples()} of {one.index.samples} samples are" if rest.samples() else "all samples are"
            lines.append(f"{left} left of epoch {rest.epoch + 1} of {one.name}")
        gone = sorted(set(cursors_of(self.cursors[0].stream)) - set(self.data.by_name))
        why += [f"{', '.join(gone)} left out"] if gone else []
        said = ", ".join(why) or "other sets"
        return [f"{said}: shards are dealt anew, and no sample comes twice in an epoch; {'; '.join(lines)}"]
