"""What is remembered of each stage, in `out/stages/NAME.json`, and what follows from it: done, to do, to do again.

A note is written before a stage begins (with what it is begun with) and after it has succeeded. A kill between the two
leaves a stage that is begun: the same command goes on with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coat.drawing.text import shorten
from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.recipe.artefacts import CACHE, Identities
from coat.recipe.building import NOTES
from coat.recipe.grammar import value_text
from coat.recipe.reading import Recipe
from coat.recipe.stages import Place, Stage

State = Literal["done", "new", "begun", "changed", "gone", "asked"]
SHOWN = 3  # reasons that are named
MISSING = object()


@dataclass(frozen=True)
class Verdict:
    """Whether a stage is done, and why not. `begun`: it was begun with just these inputs."""

    state: State
    reasons: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        return self.state == "done"

    def text(self) -> str:
        if self.state == "changed":
            more = f", and {len(self.reasons) - SHOWN} more" if len(self.reasons) > SHOWN else ""
            return f"again, because {', '.join(self.reasons[:SHOWN])}{more}"
        plain = {"done": "done", "new": "to do", "begun": "goes on where it stopped", "asked": "again, as asked"}
        return plain.get(self.state) or f"again, because {', '.join(self.reasons)}"


@dataclass
class Notes:
    """Of one recipe's folder."""

    recipe: Recipe
    identities: Identities
    read: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    @classmethod
    def open(cls, recipe: Recipe) -> "Notes":
        folder = storage.join(str(recipe.out), NOTES)
        identities = Identities(recipe.folder, recipe.out, storage.join(folder, CACHE))
        identities.load()
        return cls(recipe, identities)

    def path(self, stage: str) -> str:
        return storage.join(str(self.recipe.out), NOTES, f"{stage.replace('/', '-')}.json")

    def of(self, stage: str) -> dict[str, Any] | None:
        if stage not in self.read:
            path = self.path(stage)
            found = storage.read_json(path) if storage.exists(path) else None
            if found is not None and not isinstance(found.get("inputs") if isinstance(found, dict) else None, dict):
                raise InputError(f"{path}: not a note of coat run; remove it, and the stage is done again")
            self.read[stage] = found
        return self.read[stage]

    def write(self, stage: str, note: dict[str, Any]) -> None:
        storage.write_bytes(self.path(stage), storage.to_json(note))
        self.read[stage] = note

    def inputs(self, stage: Stage) -> dict[str, Any]:
        """All that decides what a stage makes, by name. InputError where an input is not there."""
        found: dict[str, Any] = dict(stage.values)
        for place in stage.inputs:
            identity = self.identity(place)
            if place.kind == "config":
                found |= identity or {}
            else:
                found[self.name(place)] = identity
        return found

    def name(self, place: Place) -> str:
        """What notes call it: in `out` its path there, so that they hold wherever the folder lies."""
        if place.label or "://" in place.path:
            return place.label or place.path
        path = Path(self.identities.url(place.path))
        return str(path.relative_to(self.recipe.out)) if path.is_relative_to(self.recipe.out) else place.path

    def identity(self, place: Place) -> Any:
        """Targets are known by what their extraction counted."""
        if place.kind == "targets":
            return ((self.of(place.label) or {}).get("made") or {}).get("targets")
        return self.identities.of(place)

    def missing(self, stage: Stage, later: set[str]) -> list[Place]:
        """What it reads that is not there, and that no stage of `later` makes (by path)."""
        given = [p for p in stage.inputs if p.kind != "targets" and p.path not in later]
        return [p for p in given if must_be_there(p) and not self.identities.is_there(p)]

    def verdict(self, stage: Stage, again: bool = False) -> Verdict:
        """By what its inputs are now."""
        note = self.of(stage.name)
        if note is None:
            return Verdict("new")
        if again:
            return Verdict("asked")
        before, now = note["inputs"], plain(self.inputs(stage))
        now |= {key: before[key] for key, value in now.items() if value is None and key in before}  # not made yet
        if changed := list(differences(before, now)):
            return Verdict("changed", tuple(changed))
        if note.get("state") != "done" and not self.ended_unseen(stage, note):
            return Verdict("begun")
        gone = [place.path for place in stage.outputs if not self.is_made(place)]
        return Verdict("gone", tuple(f"{path} is not there" for path in gone)) if gone else Verdict("done")

    def ended_unseen(self, stage: Stage, note: dict[str, Any]) -> bool:
        """A kill fell between the end of the command and our note: all that it makes is there, and was not before."""
        if stage.summary is not None:  # an extraction: it counts again, and does nothing twice
            return False
        now, before = plain([self.identity(place) for place in stage.outputs]), note.get("before") or []
        return len(now) == len(before) and all(n is not None and n != b for n, b in zip(now, before, strict=True))

    def is_made(self, place: Place) -> bool:
        if place.kind != "targets":
            return self.identities.is_there(place)
        made = self.identity(place) or []
        url = self.identities.url(place.path)
        return bool(made) and all(storage.exists(storage.join(url, t["expert"], t["fingerprint"])) for t in made)

    def fingerprints(self, stages: list[Stage]) -> dict[str, str]:
        """`name@fingerprint` of each expert of the recipe that was extracted."""
        found: dict[str, str] = {}
        for stage in stages:
            for place in stage.outputs:
                if place.kind == "targets":
                    made = self.identity(place) or []
                    found |= {e: f"{t['expert']}@{t['fingerprint']}" for e, t in zip(stage.experts, made, strict=False)}
        return found


def must_be_there(place: Place) -> bool:
    """Checkpoints and students may be ids of a hub; URLs are looked at by their command."""
    return "://" not in place.path and not place.label.startswith(("checkpoint ", "student "))


def plain(value: Any) -> Any:
    """As JSON gives it back: lists for tuples, texts for dates."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Each key that differs, in words."""
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key, MISSING), now.get(key, MISSING)
        if old == new:
            continue
        if old is MISSING:
            yield f"{key} was added"
        elif new is MISSING:
            yield f"{key} was left out"
        elif is_short(old) and is_short(new):
            yield f"{key} changed from {value_text(old)} to {value_text(new)}"
        else:
            yield f"{key} changed"


def is_short(value: Any) -> bool:
    """A setting, not a digest."""
    return isinstance(value, bool | int | float) or (
        isinstance(value, str) and len(shorten(value, 32)) < 32 and value != ""
    )
