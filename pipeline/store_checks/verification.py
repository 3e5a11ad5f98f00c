"""`coat verify`: read a store back and compare it with what its commits promised."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coat.manifests import storage
from coat.manifests.corpus.manifest import Manifest
from coat.manifests.errors import InputError, RunError, Unreachable
from coat.pipeline.store.layout import DONE, SPEC, UNITS
from coat.pipeline.store.source_changes import ExtractedSources, RunJobs, SourceChange, find_changes, source_digests
from coat.pipeline.store.target_set import TargetSet
from coat.pipeline.store.target_store import TargetStore
from coat.pipeline.store_checks.unit_check import check_unit

UNITS_AT_ONCE = 16  # that a worker is given: some GB
REMOTE_THREADS = 4  # an object store answers slowly; a thread holds 65,536 frames
LEFTOVER_S = 3600.0  # that the keys of a writer must be old: a living one may still be at work


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong. `unit` is None where it is the target set itself."""

    expert: str
    fingerprint: str
    unit: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.expert}/{self.fingerprint}{'/' + self.unit if self.unit else ''}: {self.message}"


@dataclass(frozen=True)
class Verified:
    """What was read, and what was wrong with it."""

    target_sets: int
    units: int
    frames: int
    bytes: int
    damages: tuple[Damage, ...]
    repaired: int = 0
    changes: tuple[SourceChange, ...] = ()


@dataclass(frozen=True)
class UnitsJob:
    """Units of one target set that one worker checks; small enough to send anywhere."""

    set_url: str
    units: tuple[str, ...]


@dataclass(frozen=True)
class CheckedUnit:
    """Its done.json, or what is wrong with it; and folders in it that no done.json names."""

    name: str
    found: dict[str, Any] | str
    leftovers: tuple[str, ...] = ()


def check_units(job: UnitsJob) -> list[CheckedUnit]:
    targets = TargetSet.open(job.set_url)
    threads = 1 if storage.is_local(job.set_url) else REMOTE_THREADS
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda unit: check_or_say(targets, unit), job.units))


def check_or_say(targets: TargetSet, unit: str) -> CheckedUnit:
    try:
        done = check_unit(targets, unit)
        return CheckedUnit(unit, done, tuple(leftovers(targets, unit, done)))
    except Unreachable:
        raise
    except PermissionError as e:
        raise InputError(storage.no_access(targets.unit_url(unit), e)) from e
    except RunError as e:
        return CheckedUnit(unit, str(e))


def verify(
    store: str,
    repair: bool = False,
    on_unit: Callable[[int], None] = lambda n: None,
    sources: Manifest | None = None,
    run_jobs: RunJobs = map,
) -> Verified:
    """Check every committed unit: checksums, counts, spec, finite values, rows that tile the frames.

    With `repair` damaged units are dropped, so that the next extract makes them again. With `sources` the audio of that
    manifest is decoded again and compared with what was extracted. `run_jobs` gives the results of jobs in their order:
    here, or by workers (`cluster.ordered.run_ordered`). InputError where there is no store or no access to it,
    Unreachable where it does not answer: neither is taken for damage.
    """
    url = TargetStore(store).url
    damages: list[Damage] = []
    extracted: list[ExtractedSources] = []
    sets = units = frames = nbytes = repaired = 0
    for expert in storage.list_names(url):
        for fingerprint in storage.list_names(storage.join(url, expert)):
            set_url = storage.join(url, expert, fingerprint)
            sets += 1
            try:
                targets = TargetSet.open(set_url)
            except InputError as e:
                again = "; `coat extract` of this expert writes it again where it is missing"
                damages.append(Damage(expert, fingerprint, None, f"{e}{again}"))
                continue
            names = storage.list_names(storage.join(set_url, UNITS))
            units += len(names)
            intact: dict[str, dict[str, Any]] = {}
            jobs = (UnitsJob(set_url, tuple(names[i : i + UNITS_AT_ONCE])) for i in range(0, len(names), UNITS_AT_ONCE))
            for checked in run_jobs(check_units, jobs):
                for unit in checked:
                    for writer in unit.leftovers:
                        what = f"{writer}/: of a writer that died, or came second; nothing reads it"
                        damages.append(Damage(expert, fingerprint, unit.name, what))
                        if repair:
                            storage.remove_tree(storage.join(targets.unit_url(unit.name), writer))
                            repaired += 1
                    if not isinstance(unit.found, str):
                        intact[unit.name] = unit.found
                        continue
                    damages.append(Damage(expert, fingerprint, unit.name, unit.found))
                    if repair:
                        storage.remove_folder(targets.unit_url(unit.name), DONE)
                        repaired += 1
                on_unit(len(checked))
            frames += sum(int(done["frames"]) for done in intact.values())
            nbytes += sum(int(done["bytes"]) for done in intact.values())
            if sources is not None:
                extracted.append(ExtractedSources(expert, fingerprint, source_digests(targets, intact)))
    if not sets:
        raise InputError(f"{store}: no target sets (<expert>/<fingerprint>/{SPEC}) in it; is this a store?")
    changes = tuple(find_changes(sources, extracted, run_jobs)) if sources is not None else ()
    return Verified(sets, units, frames, nbytes, tuple(damages), repaired, changes)


def leftovers(targets: TargetSet, unit: str, done: Mapping[str, Any]) -> list[str]:
    """Folders of an intact unit, on an object store, that its done.json does not name."""
    if storage.is_local(targets.url):
        return []
    newest: dict[str, datetime] = {}
    for file in storage.list_files(targets.unit_url(unit)):
        folder = file.name.split("/", 1)[0]
        if folder.startswith("w-") and folder != done.get("writer"):
            newest[folder] = max(file.modified, newest.get(folder, file.modified))
    now = datetime.now(UTC)
    return [folder for folder, modified in newest.items() if (now - modified).total_seconds() >= LEFTOVER_S]
