"""Lhotse's Shar folders: `cuts.000000.jsonl.gz`, and beside each a tar with the audio of its cuts, in their order."""

import json
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, NamedTuple

from coat.manifests import storage
from coat.manifests.errors import InputError, one_line
from coat.manifests.sources.records import Record
from coat.manifests.sources.tables.json_lines import read_json_records
from coat.manifests.sources.tars.members import Member, TarReader, Unusable, open_tar

CUTS, AUDIO = "cuts", "recording"
NO_DATA = ".nodata"  # the member of a cut that has no audio


def is_shar(folder: str) -> bool:
    """Whether a folder has cuts, and tars of audio."""
    names = storage.list_names(folder)
    return bool(shards(names, CUTS)) and bool(shards(names, AUDIO))


def shards(names: list[str], field: str) -> list[str]:
    """Files of a field, in their order."""
    ends = (".jsonl", ".jsonl.gz") if field == CUTS else (".tar",)
    return sorted(n for n in names if n.split(".")[0] == field and n.endswith(ends))


def read_shar(path: str) -> Iterator[Record]:
    """Cuts whose recordings lie in the tars. Other fields are named, and not read."""
    names = storage.list_names(path)
    cuts, tars = shards(names, CUTS), shards(names, AUDIO)
    if not cuts or len(cuts) != len(tars):
        said = f"{len(cuts)} files of cuts and {len(tars)} tars of audio; expected as many ({CUTS}.*.jsonl.gz, "
        raise InputError(f"{path}: {said}{AUDIO}.*.tar)")
    for cuts_name, tar_name in zip(cuts, tars, strict=True):
        yield from read_shard(storage.join(path, cuts_name), storage.join(path, tar_name))
    others = sorted({n.split(".")[0] for n in names} - {CUTS, AUDIO})
    if others:
        yield Record(path, 0, note=f"{path}: other fields of the Shar folder, not read: {', '.join(others)}")


class Stored(NamedTuple):
    """The audio of a cut, and what Lhotse says of it."""

    cut: str
    address: str  # empty where there is none
    recording: Mapping[str, Any]


def read_shard(cuts: str, tar: str) -> Iterator[Record]:
    """InputError where the two do not belong together: from there on nothing would."""
    for record, stored in zip_longest(read_json_records(cuts), read_members(tar)):
        if record is None:
            raise InputError(
                f"{tar}: holds {stored.cut!r} and maybe more, of which {cuts} has no cut; one is cut short"
            )
        if record.problem or record.note:
            yield record
            continue
        name = str(record.values.get("id"))
        if stored is None:
            raise InputError(f"{tar}: ends before {name!r} of {cuts}:{record.row}; it is cut short: copy it again")
        if stored.cut != name:
            raise InputError(f"{tar}: has {stored.cut!r} where {cuts}:{record.row} has {name!r}; copy both again")
        found = {"recording": with_source(stored)} if stored.address else {"recording": None}
        yield Record(record.file, record.row, {**record.values, **found})


def with_source(stored: Stored) -> dict[str, Any]:
    sources = stored.recording.get("sources")
    held = sources[0] if isinstance(sources, list) and sources and isinstance(sources[0], dict) else {}
    return {**stored.recording, "sources": [{**held, "type": "file", "source": stored.address}]}


def read_members(url: str) -> Iterator[Stored]:
    """Pairs of audio and its description, one after the other. InputError where it is no tar of them."""
    audio: Member | None = None
    with open_tar(url) as tar:
        for member in tar.members():
            if isinstance(member, Unusable):
                raise InputError(f"{url}: {member.message}")
            if audio is None:
                audio = member
                continue
            name = audio.name.rpartition(".")[0]
            if audio.name.endswith(NO_DATA):
                yield Stored(name, "", {})
            else:
                yield Stored(name, audio.address(), described(tar, member))
            audio = None
    if audio is not None:
        raise InputError(f"{url}: {audio.name!r} has no description behind it; the tar is cut short: copy it again")


def described(tar: TarReader, member: Member) -> Mapping[str, Any]:
    try:
        found = json.loads(tar.read(member)) if member.name.endswith(".json") else None
    except ValueError as e:
        raise InputError(f"{tar.url}: {member.name!r} is not JSON ({one_line(e)})") from e
    if not isinstance(found, dict):
        raise InputError(f"{tar.url}: {member.name!r} lies where audio is described; expected NAME.json, an object")
    return found
