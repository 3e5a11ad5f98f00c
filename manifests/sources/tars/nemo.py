"""NeMo's tarred datasets: a manifest whose rows name a tar (`shard_id`) and a member of it (`audio_filepath`).

    DIR/tarred_audio_manifest.json                    all rows; those of one tar each are in
    DIR/sharded_manifests/manifest_0.json, ...
    DIR/audio_0.tar, ...                              `--tars` says where they are called otherwise
    DIR/bucket1/..., DIR/bucket2/...                  the same for each bucket of durations

As scripts/speech_recognition/convert_to_tarred_audio_dataset.py of NeMo 3.0 writes them, and
nemo/collections/common/data/lhotse/nemo_adapters.py reads them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.sources.column_names import Columns
from coat.manifests.sources.records import Record
from coat.manifests.sources.tables.json_lines import read_json_records
from coat.manifests.sources.tars.folders import find_files, paths_below
from coat.manifests.sources.tars.members import Unusable
from coat.manifests.sources.tars.options import TarOptions
from coat.manifests.sources.tars.samples import PassedOver
from coat.manifests.sources.tars.tar_index import TarIndex

MANIFEST_NAME = "tarred_audio_manifest.json"
NUMBERED_TAR = re.compile(r"audio[^/]*_(\d+)[^/]*\.tar$")  # as NeMo finds the number of a shard
NUMBERED_MANIFEST = re.compile(r"manifest[^/]*_(\d+)[^/]*\.json")
LAST_NUMBER = re.compile(r"(\d+)\D*$")
KEPT_MEMBERS = 1_000_000  # of tars that were read, for rows that come back to them
EXAMPLES = 3

Shard = int | None  # None: no number; a row may lie in any tar


def is_tarred(record: Mapping[str, Any]) -> bool:
    return "shard_id" in record


def has_nemo_tars(folder: str) -> bool:
    return any(path.rsplit("/", 1)[-1] == MANIFEST_NAME for path in paths_below(folder))


def is_unpacked(manifest: str, audio_root: str) -> bool:
    """Whether the first row of a tarred manifest names a file: someone unpacked the tars."""
    first = next((r.values for r in read_json_records(manifest) if r.values), {})
    name = first.get("audio_filepath")
    return isinstance(name, str) and storage.exists(
        storage.absolute(storage.resolve(audio_root or storage.parent(manifest), name))
    )


def read_nemo_tarred(sources: Sequence[str], options: TarOptions) -> Iterator[Record]:
    """A record for each row, whose audio is the address of its member."""
    manifests = [
        manifest
        for source in sources
        for manifest in ([source] if storage.is_file(source) else find_files(source, (f"/{MANIFEST_NAME}",), []))
    ]
    given = [storage.absolute(tar) for tar in storage.expand(options.tars)] if options.tars else []
    storage.check_all_there(given)
    joining = Joining(PassedOver())
    all_tars = list[str](given)
    for manifest in manifests:
        tars = numbered(given_for(manifest, given)) if given else tars_beside(manifest)
        all_tars += tars.values()
        yield from joining.records(manifest, tars)
    yield from (Record(manifests[0], 0, note=note) for note in joining.notes(all_tars))


def given_for(manifest: str, tars: Sequence[str]) -> list[str]:
    """Of the tars of several buckets, those of the manifest's."""
    folders = {storage.parent(storage.absolute(manifest)), home_of(manifest)}
    near = [tar for tar in tars if storage.parent(tar) in folders]
    return near or list(tars)


def tars_beside(manifest: str) -> dict[Shard, str]:
    folder = home_of(manifest)
    found = [storage.join(folder, name) for name in storage.list_names(folder) if NUMBERED_TAR.search(name)]
    if not found:
        raise InputError(
            f"{manifest}: a tarred manifest of NeMo's (its rows have a shard_id), and no audio_0.tar in {folder}; "
            "--tars says where its tars are, as in --tars 'DIR/audio__OP_0..63_CL_.tar'; or, where they were unpacked, "
            "--audio-root the folder"
        )
    return numbered(found)


def home_of(manifest: str) -> str:
    """The folder of the tars: the manifest's, or the one above `sharded_manifests/`."""
    folder = storage.parent(storage.absolute(manifest))
    return storage.parent(folder) if folder.rstrip("/").endswith("/sharded_manifests") else folder


def numbered(tars: Sequence[str]) -> dict[Shard, str]:
    """By number. InputError where two have the same; of several without one, none is known."""
    found: dict[Shard, str] = {}
    for tar in tars:
        name = tar.rsplit("/", 1)[-1]
        number = NUMBERED_TAR.search(name) or LAST_NUMBER.search(name)
        shard = int(number[1]) if number else None
        if shard in found:
            raise InputError(f"{tar} and {found[shard]}: both are shard {shard}; give the tars of one manifest")
        found[shard] = tar
    return found


@dataclass
class Joining:
    """Rows with members of tars, and what has no other side."""

    passed_over: PassedOver
    kept: dict[tuple[str, ...], TarIndex] = field(default_factory=dict)  # by their tars, the last one used last
    used: dict[tuple[str, ...], bytearray] = field(default_factory=dict)  # by member, 1 where a row names it
    left: dict[tuple[str, ...], str] = field(default_factory=dict)  # the first member that no row names
    skipped: int = 0  # rows that NeMo leaves out

    def records(self, manifest: str, tars: Mapping[Shard, str]) -> Iterator[Record]:
        found = NUMBERED_MANIFEST.search(manifest.rsplit("/", 1)[-1])
        own = int(found[1]) if found else None
        for record in read_json_records(manifest):
            if record.problem:
                yield record
                continue
            if record.values.get("_skipme"):
                self.skipped += 1
                continue
            try:
                index, new = self.index(tars_of_row(record.values, own, tars))
                for tar, unusable in new:
                    yield Record(tar, unusable.number, problem=unusable.message)
                yield Record(record.file, record.row, self.joined(record.values, index))
            except ValueError as e:
                yield Record(record.file, record.row, problem=str(e))

    def index(self, tars: Sequence[str]) -> tuple[TarIndex, list[tuple[str, Unusable]]]:
        """The members of these, and what is unusable there, the first time."""
        key = tuple(tars)
        index = self.kept.pop(key, None)
        if index is None:
            index = TarIndex(tars, self.passed_over if key not in self.used else PassedOver())
            while self.kept and sum(len(k.members) for k in self.kept.values()) + len(index.members) > KEPT_MEMBERS:
                self.let_go(next(iter(self.kept)))
        self.kept[key] = index
        is_new = key not in self.used
        self.used.setdefault(key, bytearray(len(index.members)))
        return index, index.problems if is_new else []

    def let_go(self, key: tuple[str, ...]) -> None:
        index, used = self.kept.pop(key), self.used[key]
        self.left[key] = index.members[i].name if (i := used.find(0)) >= 0 else ""

    def joined(self, values: Mapping[str, Any], index: TarIndex) -> dict[str, Any]:
        """ValueError where a row's member is not there."""
        column = "audio_filepath"
        if column not in values:
            column = Columns.detect(values, {}).column_of_key.get("audio_filepath", column)
        name = values.get(column)
        if not isinstance(name, str) or not name:
            raise ValueError(f"no audio_filepath; expected the name of a member of {index.place()}")
        i = index.find(name)
        self.used[tuple(index.tars)][i] = 1
        return {**values, "audio_filepath": index.members[i].address()}

    def notes(self, all_tars: Iterable[str]) -> list[str]:
        for key in list(self.kept):
            self.let_go(key)
        counts = {key: used.count(0) for key, used in self.used.items()}
        left = {key: count for key, count in counts.items() if count}
        notes = self.passed_over.lines()
        if left:
            examples = ", ".join(f"{self.left[key]!r} in {key[0]}" for key in list(left)[:EXAMPLES])
            notes.append(f"members that no row names, left out (as NeMo does): {sum(left.values())} ({examples}, ...)")
        opened = {tar for key in self.used for tar in key}
        if unopened := sorted(set(all_tars) - opened):
            names = ", ".join(unopened[:EXAMPLES])
            notes.append(f"tars that no row asks for, not opened: {len(unopened)} ({names}, ...)")
        if self.skipped:
            notes.append(f"rows with _skipme, left out (as NeMo does): {self.skipped}")
        return notes


def tars_of_row(row: Mapping[str, Any], own: int | None, tars: Mapping[Shard, str]) -> list[str]:
    """The tar of its shard: by `shard_id`, else by the number of its manifest; without one, all. ValueError where there
    is none of that number.
    """
    shard = row.get("shard_id", own)
    if shard is None or (len(tars) == 1 and None in tars):
        return list(tars.values())
    try:
        return [tars[int(shard)]]
    except (TypeError, ValueError) as e:
        raise ValueError(f"shard_id is {str(shard)[:40]!r}; expected the number of a tar") from e
    except KeyError as e:
        some = next(iter(tars.values()))
        raise ValueError(f"shard_id {shard}: no tar of that number among {len(tars)} ({some}, ...); --tars") from e
