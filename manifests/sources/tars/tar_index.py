"""The members of some tars by name, as the manifests of NeMo ask for them."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property

from coat.manifests.sources.tars.members import Member, Unusable, open_tar, shown
from coat.manifests.sources.tars.samples import PassedOver, kind_of_skipped

SUB = re.compile(r"^(.+)-sub\d+(\.\w+)?$", re.DOTALL)  # a further row of a file that is in the tar once
SEVERAL = -1


class TarIndex:
    """Some 400 bytes of memory a member."""

    def __init__(self, tars: Sequence[str], passed_over: PassedOver) -> None:
        self.tars = tars
        self.problems: list[tuple[str, Unusable]] = []  # each with its tar
        self.members: list[Member] = []
        for url in tars:
            with open_tar(url) as tar:
                for member in tar.members():
                    if isinstance(member, Unusable):
                        self.problems.append((tar.url, member))
                    elif (kind := kind_of_skipped(member.name) or "").startswith("hidden"):
                        passed_over.kinds[kind] += 1
                    else:
                        self.members.append(member)
                passed_over.notes += tar.notes()
        self.by_name = self.positions(lambda name: name)

    def positions(self, key: Callable[[str], str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for i, member in enumerate(self.members):
            name = key(member.name)
            found[name] = SEVERAL if name in found else i
        return found

    @cached_property
    def by_stem(self) -> dict[str, int]:
        """Without folders and suffix, which is how NeMo's classic datasets join. Made where a name is not found."""
        return self.positions(stem_of)

    def find(self, name: str) -> int:
        """Position of the member that a row names: `x.wav`, or of `x-sub1.wav` too; else the one that differs by its
        folder or suffix alone. ValueError where there is none, or several.
        """
        sub = SUB.match(name)
        for asked in (name, sub[1] + (sub[2] or "")) if sub else (name,):
            i = self.by_name.get(asked)
            i = self.by_stem.get(stem_of(asked)) if i is None else i
            if i == SEVERAL:
                raise ValueError(f"{shown(asked)}: several members of that name in {self.place()}")
            if i is not None:
                return i
        raise ValueError(f"{shown(name)}: no such member in {self.place()}")

    def place(self) -> str:
        return self.tars[0] if len(self.tars) == 1 else f"{len(self.tars)} tars ({self.tars[0]}, ...)"


def stem_of(name: str) -> str:
    base = name.rsplit("/", 1)[-1]
    return base.rpartition(".")[0] or base
