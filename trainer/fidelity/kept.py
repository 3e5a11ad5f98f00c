"""Records of clips, within a bound of memory.

Where they are more than the bound, a sample of the clips is kept: those whose ids have the smallest digests. So which
they are depends on neither order nor ranks, every corpus has its share, and what a second model keeps is comparable.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

import xxhash

from coat.trainer.fidelity.measures.measure import Record

BUDGET = 256 << 20  # bytes of records of one expert


@dataclass(frozen=True)
class ClipRecord:
    """Of one clip and expert. `place`: of its set and in it, so that two clips of one id are two."""

    place: tuple[int, int]
    id: str
    group: str  # its corpus; "" where it names none
    sound: int  # digest of its samples: questions about one clip share it, and are no independent draws
    frames: int
    record: Record

    @property
    def digest(self) -> int:
        return xxhash.xxh3_64_intdigest(f"{self.place} {self.id}".encode())


@dataclass
class KeptClips:
    budget: int = BUDGET
    seen: int = 0  # clips, kept or not
    bytes: int = 0
    heap: list[tuple[int, tuple[int, int], ClipRecord]] = field(default_factory=list)  # the largest digest first
    limit: int | None = None  # the smallest digest that was ever let go: none from there on is kept

    def add(self, clip: ClipRecord) -> None:
        self.seen += 1
        digest = clip.digest
        if self.limit is not None and digest >= self.limit:
            return
        heapq.heappush(self.heap, (-digest, clip.place, clip))
        self.bytes += clip.record.nbytes
        while self.bytes > self.budget and len(self.heap) > 1:
            gone, _, dropped = heapq.heappop(self.heap)
            self.bytes -= dropped.record.nbytes
            self.limit = -gone

    def merge(self, others: Iterable["KeptClips"]) -> "KeptClips":
        """As if one had seen all clips: of other ranks, and its own."""
        merged = KeptClips(self.budget)
        for one in (self, *others):
            if one.limit is not None:
                merged.limit = one.limit if merged.limit is None else min(merged.limit, one.limit)
        for one in (self, *others):
            for _, _, clip in one.heap:
                merged.add(clip)
        merged.seen = sum(one.seen for one in (self, *others))
        return merged

    @property
    def clips(self) -> list[ClipRecord]:
        """In the order of the shards."""
        return sorted((clip for _, _, clip in self.heap), key=lambda clip: clip.place)
