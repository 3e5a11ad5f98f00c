"""Runs the stages that are not done, one after the other, each as the command that a user would type."""

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import coat
from coat.drawing.text import duration_text
from coat.manifests import storage
from coat.manifests.errors import InputError, RunError
from coat.recipe.building import NOTES
from coat.recipe.lock import locked
from coat.recipe.notes import Notes, Verdict, plain
from coat.recipe.reading import Recipe
from coat.recipe.stages import Place, Stage

PYTHON = [sys.executable]  # that stages are started with
STDERR = 2  # of this process
PAGE, MADE_BY = "index.html", "Made by <code>coat run</code>"  # the page at the end, and what it says of itself
REFUSED = 2  # exit code of a command that did no work
Outcome = Literal["done", "skipped", "not run"]


@dataclass
class StageResult:
    """What became of a stage in this run. `seconds`: of its last run, whenever that was."""

    name: str
    command: str
    outcome: Outcome
    why: str
    seconds: float | None = None
    made: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """Which stages are meant. `again`: these and what comes of them may be made anew."""

    first: str | None = None
    last: str | None = None
    again: tuple[str, ...] = ()


class StageFailed(RunError):
    """Of a stage's own exit status, which becomes ours."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Job:
    """A recipe with its stages, in the hands of one run. `say` gets lines for people."""

    recipe: Recipe
    stages: list[Stage]
    choice: Choice
    say: Callable[[str, bool], None]
    quiet: bool = False  # what stages print goes to stderr
    notes: Notes = field(init=False)

    def __post_init__(self) -> None:
        self.notes = Notes.open(self.recipe)
        self.chosen = choose(self.stages, self.choice)
        self.asked = {s.name for name in self.choice.again for s in matching(self.stages, "--again", name)}
        self.renewed = downstream(self.stages, self.asked)

    def verdict(self, stage: Stage) -> Verdict:
        return self.notes.verdict(stage, again=stage.name in self.asked)

    def check(self) -> None:
        """Before any work: what is given is there, and nothing would be made over what other settings made."""
        made = {place.path for stage in self.stages for place in stage.outputs}
        earlier = {p.path for s in self.stages[: self.stages.index(self.chosen[0])] for p in s.outputs}
        for stage in self.chosen:
            for place in [] if self.verdict(stage).done else self.notes.missing(stage, made - earlier):
                raise InputError(self.no_such(stage, place))
        page = self.recipe.out / PAGE
        if page.is_file() and MADE_BY.encode() not in page.read_bytes():
            raise InputError(f"{page}: is there, and this recipe did not make it; move it, or give another --out")
        if held := self.held():
            raise InputError(held)

    def held(self) -> str | None:
        """What would be made anew, over what other settings made, and what to do; None where nothing would be."""
        changed = {s.name for s in self.chosen if self.verdict(s).state in ("changed", "asked")}
        follows = downstream(self.chosen, changed)
        held = [
            f"{s.name} ({s.outputs[0].path})"
            for s in self.chosen
            if s.alone and s.name in follows and s.name not in self.renewed and self.holds(s)
        ]
        if not held:
            return None
        first = next(s for s in self.chosen if s.name in changed)
        return (
            f"{first.name}: {self.verdict(first).text()}; so these would be made anew, over what other settings "
            f"made: {', '.join(held)}. Give another --out, or --again {first.name}, which moves them aside"
        )

    def no_such(self, stage: Stage, place: Place) -> str:
        maker = next((s.name for s in self.stages if place.path in {p.path for p in s.outputs}), None)
        if maker:
            return f"{stage.name}: {place.path} is not made yet; begin with --from {maker}, or without --from"
        return f"{self.recipe.label}: {stage.name}: {place.path}: no such file or folder"

    def holds(self, stage: Stage) -> bool:
        return self.notes.of(stage.name) is not None and any(self.notes.identities.is_there(p) for p in stage.outputs)

    def run(self) -> list[StageResult]:
        """All that is chosen and not done. StageFailed, InputError: one line."""
        results = [self.not_run(stage) for stage in self.stages]
        with locked(self.recipe.out / NOTES, lambda line: self.say(line, False)) as lock:
            if self.recipe.folder != Path.cwd():
                self.say(f"commands run in {self.recipe.folder}", False)
            try:
                for i, stage in enumerate(self.stages):
                    if stage in self.chosen:
                        results[i] = self.run_stage(stage, f"[{i + 1}/{len(self.stages)}] {stage.name}", lock)
            finally:
                self.notes.identities.save()
        return results

    def not_run(self, stage: Stage) -> StageResult:
        note = self.notes.of(stage.name) or {}
        return StageResult(stage.name, self.shown(stage), "not run", "", note.get("seconds"), note.get("made") or {})

    def shown(self, stage: Stage) -> str:
        return stage.shown(self.notes.fingerprints(self.stages))

    def run_stage(self, stage: Stage, header: str, lock: int) -> StageResult:
        verdict = self.verdict(stage)
        note = self.notes.of(stage.name) or {}
        if verdict.done:
            if note.get("state") != "done":  # a kill fell before its note
                self.finish(stage, note)
            self.say(f"{header}: done already", True)
            return StageResult(
                stage.name, self.shown(stage), "skipped", "done already", note.get("seconds"), note["made"]
            )
        self.say(f"{header}: {verdict.text()}", True)
        self.make_room(stage, verdict)
        before = plain([self.notes.identity(place) for place in stage.outputs])
        begun = {"state": "begun", "inputs": plain(self.notes.inputs(stage)), "before": before, "seconds": None}
        self.notes.write(
            stage.name, {**begun, "began": time.time(), "made": note.get("made") if stage.summary else None}
        )
        self.say(f"  {self.shown(stage)}", False)
        started = time.monotonic()
        status = self.start(stage, lock)
        seconds = time.monotonic() - started
        if status == REFUSED and note:
            self.notes.write(stage.name, note)  # nothing was done
        if status != 0:
            raise StageFailed(self.failure(stage, verdict, status), status)
        self.finish(stage, {**begun, "seconds": seconds})
        self.say(f"{header}: {duration_text(seconds)}", True)
        return StageResult(
            stage.name, self.shown(stage), "done", verdict.text(), seconds, (self.notes.of(stage.name) or {})["made"]
        )

    def finish(self, stage: Stage, note: Mapping[str, Any]) -> None:
        made: dict[str, Any] = {
            self.notes.name(place): plain(self.notes.identity(place))
            for place in stage.outputs
            if place.kind != "targets"
        }
        if stage.summary:
            rows = storage.read_json(self.notes.identities.url(stage.summary))
            keys = ("expert", "fingerprint", "ok", "failed", "skipped")
            made = {"targets": [{key: row[key] for key in keys} for row in rows]}
        if absent := [name for name, identity in made.items() if identity is None]:
            raise RunError(
                f"{stage.name}: ended well, but {absent[0]} is not there; does something else change the folder?"
            )
        self.notes.write(stage.name, {**note, "state": "done", "made": made, "command": self.shown(stage)})

    def make_room(self, stage: Stage, verdict: Verdict) -> None:
        """What other settings made is moved aside, if that was asked for; what nobody here made is never replaced."""
        if stage.summary:  # a store only grows
            return
        there = [place for place in stage.outputs if self.notes.identities.is_there(place)]
        if not there:
            return
        if verdict.state == "new" and not stage.alone and stage.command != "train":
            raise InputError(
                f"{there[0].path}: is there, and this recipe did not make it; move it, or give another --out"
            )
        keeps = stage.alone or (stage.command == "train" and "--change" not in stage.arguments)
        kept = [p for p in there if keeps or self.is_edited(stage, p)]
        if verdict.state in ("changed", "asked") and stage.name in self.renewed:
            for place in kept:
                self.move_aside(stage, place)
        elif kept and verdict.state in ("changed", "gone") and stage.command != "train":
            what = "what other settings made" if keeps else "changes that this recipe did not make"
            raise InputError(
                f"{stage.name}: {kept[0].path} holds {what}; give another --out, or --again {stage.name}, which moves "
                "it aside"
            )

    def is_edited(self, stage: Stage, place: Place) -> bool:
        """Whether someone wrote to what the recipe had made."""
        made = ((self.notes.of(stage.name) or {}).get("made") or {}).get(self.notes.name(place))
        return made is not None and made != plain(self.notes.identity(place))

    def move_aside(self, stage: Stage, place: Place) -> None:
        url = self.notes.identities.url(place.path)
        if not storage.is_local(url):
            raise InputError(
                f"{stage.name}: {url} is in a store, where nothing is moved; give [{stage.name}] another out"
            )
        path = Path(url).parent if stage.command == "listen" else Path(url)  # a gallery is a folder
        if not path.exists():  # it was in what was moved before
            return
        aside = next(new for i in range(1, 10_000) if not (new := path.with_name(f"{path.name}.{i}")).exists())
        path.rename(aside)
        self.say(f"  {place.path}: kept as {aside.name}", False)

    def failure(self, stage: Stage, verdict: Verdict, status: int) -> str:
        how = f"ended with exit code {status}" if status > 0 else f"was ended by signal {-status}"
        said, there = f"{stage.name} {how}", stage.outputs[0]
        if (
            verdict.state == "changed"
            and status == REFUSED
            and not stage.summary
            and self.notes.identities.is_there(there)
        ):
            remedy = f"give another --out, or --again {stage.name}, which moves it aside"
            return f"{said}; {there.path} holds what other settings made: {remedy}"
        return f"{said}; see to what it says above, and the same `coat run` goes on from there"

    def start(self, stage: Stage, lock: int) -> int:
        """Run the command; its exit status. An interruption is passed on to it, and waited for."""
        argv = stage.argv(PYTHON, self.notes.fingerprints(self.stages))
        process = subprocess.Popen(  # noqa: S603 our own command, no shell
            argv,
            cwd=self.recipe.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=STDERR if self.quiet else None,
            pass_fds=[lock],
            process_group=0,
        )
        try:
            return process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise


def environment() -> dict[str, str]:
    """The stage must find this coat, also where that is no installed package, and nothing in its working folder."""
    root = str(Path(coat.__file__).parents[1])
    paths = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    if root not in sysconfig.get_paths().values():
        paths.insert(0, root)
    found = {**os.environ, "PYTHONSAFEPATH": "1"}
    return {**found, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))} if paths else found


def choose(stages: Sequence[Stage], choice: Choice) -> list[Stage]:
    """From the first stage that is meant to the last. InputError: no such stage."""
    first = matching(stages, "--from", choice.first)[0] if choice.first else stages[0]
    last = matching(stages, "--until", choice.last)[-1] if choice.last else stages[-1]
    start, stop = stages.index(first), stages.index(last)
    if start > stop:
        raise InputError(f"--from {choice.first} comes after --until {choice.last}; the order is {order(stages)}")
    for name in choice.again:
        matching(stages, "--again", name)
    return list(stages[start : stop + 1])


def matching(stages: Sequence[Stage], flag: str, name: str) -> list[Stage]:
    """A stage, or a group: `shards` is all of `shards.train`, `shards.valid`."""
    found = [s for s in stages if s.name == name or s.name.startswith(f"{name}.")]
    if not found:
        raise InputError(f"{flag} {name}: no such stage; expected one of {order(stages)}")
    return found


def order(stages: Sequence[Stage]) -> str:
    return ", ".join(stage.name for stage in stages)


def downstream(stages: Sequence[Stage], names: set[str]) -> set[str]:
    """These stages, and all that read what they make."""
    names, paths = set(names), set[str]()
    for stage in stages:
        if stage.name in names or paths & {place.path for place in stage.inputs}:
            names.add(stage.name)
            paths |= {place.path for place in stage.outputs}
    return names
