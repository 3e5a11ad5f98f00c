"""The members of a tar, grouped to samples as webdataset groups them.

The key of a member is its path up to the first dot of its base name, and what follows is its suffix; consecutive
members of one key are a sample.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from coat.manifests.sources.tars.members import Member, TarReader, Unusable, shown

KEY_AND_SUFFIX = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)
OWN = re.compile(r"__[^/]*__($|/)")  # names that webdataset keeps for itself
SHOWN = 20  # kinds in a line


@dataclass(frozen=True)
class Sample:
    key: str
    members: dict[str, Member]  # by suffix, in lower case

    @property
    def first(self) -> Member:
        return next(iter(self.members.values()))

    def name(self, suffix: str) -> str:
        return shown(self.members[suffix].name)


@dataclass
class PassedOver:
    """What is no part of a row, of all tars; the closing lines of an import name it."""

    kinds: Counter[str] = field(default_factory=Counter)  # of members, by suffix or a word for them
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        if not self.kinds:
            return self.notes
        counted = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common(SHOWN))
        more = f" and of {len(self.kinds) - SHOWN} kinds more" if len(self.kinds) > SHOWN else ""
        return [f"members of tars that are not used: {counted}{more}", *self.notes]


@dataclass
class Group:
    """Consecutive members of one key."""

    key: str
    members: list[tuple[str, Member]] = field(default_factory=list)  # with their suffixes
    is_whole: bool = True  # False: one of it is unusable, and was named


def read_samples(tar: TarReader, passed_over: PassedOver) -> Iterator[Sample | Unusable]:
    """Samples of a tar in their order. One is unusable as a whole where a member of it is, or is there twice, or where
    its key was there before.
    """
    seen: set[str] = set()
    for group in read_groups(tar, passed_over):
        if isinstance(group, Unusable):
            yield group
            continue
        repeats, by_suffix = group.key in seen, dict(group.members)
        seen.add(group.key)
        if not group.is_whole:
            continue
        first = group.members[0][1]
        if repeats:
            yield Unusable(
                first.number,
                f"{shown(first.name)}: its key {shown(group.key)!r} was there before; members of a sample must follow "
                "each other, and samples of two keys must differ before the first dot of their names",
            )
        elif len(by_suffix) < len(group.members):
            suffix = next(s for s, count in Counter(s for s, _ in group.members).items() if count > 1)
            yield Unusable(first.number, f"{shown(by_suffix[suffix].name)}: is there twice in one sample")
        elif not is_utf8(group.key):
            yield Unusable(first.number, f"{shown(first.name)}: a name that is not UTF-8; pack it under another")
        else:
            yield Sample(group.key, by_suffix)


def read_groups(tar: TarReader, passed_over: PassedOver) -> Iterator[Group | Unusable]:
    group, ends = Group(""), 0
    for member in tar.members():
        if not member.name:  # the tar breaks off
            yield member if isinstance(member, Unusable) else Unusable(member.number, "a member without a name")
            if group.members:
                name = shown(group.members[0][1].name)
                yield Unusable(member.number, f"{name}: members of its sample may be in what is not read; left out")
            group.is_whole = False
            continue
        if (skipped := kind_of_skipped(member.name)) is not None:
            passed_over.kinds[skipped] += 1
            continue
        key, suffix = KEY_AND_SUFFIX.match(member.name).groups()  # type: ignore[union-attr]
        if key != group.key or tar.ends != ends:
            if group.members or not group.is_whole:
                yield group
            group, ends = Group(key), tar.ends
        if isinstance(member, Unusable):
            yield member
            group.is_whole = False
        else:
            group.members.append((suffix.lower(), member))
    if group.members:
        yield group


def kind_of_skipped(name: str) -> str | None:
    """What a member is that is part of no sample; None where it is."""
    base = name.rsplit("/", 1)[-1]
    if base.startswith("."):
        return "hidden (._NAME, .NAME)"
    if OWN.match(name):
        return "__NAME__ (webdataset's own)"
    return None if KEY_AND_SUFFIX.match(name) else "without a suffix"


def is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
