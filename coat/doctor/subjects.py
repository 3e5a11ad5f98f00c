"""The subjects, in the order of the report. A new one is a file with a `look`, and a line here."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from coat.doctor.finding import Finding, Request, broken, line_of


@dataclass(frozen=True)
class Subject:
    module: str
    what: str  # for --help and docs
    alone: bool  # in a process of its own: it may hang or crash


SUBJECTS = {
    "versions": Subject("coat.doctor.versions", "coat, Python, and what coat needs", False),
    "system": Subject("coat.doctor.system", "clock, locale", False),
    "limits": Subject("coat.doctor.limits", "ulimits", False),
    "memory": Subject("coat.doctor.memory", "memory, shared memory, CPUs, limits of containers", False),
    "disks": Subject("coat.doctor.disks", "TMPDIR, caches, the current folder", True),
    "extras": Subject("coat.doctor.extras", "what each extra lacks", False),
    "audio": Subject("coat.doctor.audio", "libsndfile, FFmpeg's libraries and their codecs", True),
    "gpu": Subject("coat.doctor.gpu", "driver, torch's CUDA build, each device", True),
    "hub": Subject("coat.doctor.hub", "the model hub", True),
    "ray": Subject("coat.doctor.ray", "whether Ray starts; the nodes of a cluster", True),
}


def chosen(names: list[str] | None) -> list[str]:
    """In the order of the report. InputError for a name that is none."""
    for name in names or []:
        if name not in SUBJECTS:
            from coat.manifests.errors import InputError  # that room loads libraries, any of which may be broken

            raise InputError(f"--only {name}: expected one of {', '.join(SUBJECTS)}")
    return [name for name in SUBJECTS if not names or name in names]


def findings_of(name: str, request: Request) -> Iterator[Finding]:
    """Of one subject. What its look raises is a finding: others go on."""
    try:
        yield from importlib.import_module(SUBJECTS[name].module).look(request)
    except Exception as e:  # noqa: BLE001 - of any library
        yield broken(
            name,
            f"cannot be looked at: {line_of(e)}",
            "mend first what versions and audio say; where they say nothing, report this line",
        )
