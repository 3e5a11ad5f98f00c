"""Shards that `coat build-shards` wrote, as a corpus: new experts hear what lies in them, and need no originals."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.sources.records import AUDIO_SUFFIXES, Record, Refused
from coat.manifests.sources.tars.members import TarReader, Unusable, open_tar
from coat.manifests.sources.tars.options import TarOptions
from coat.manifests.sources.tars.samples import PassedOver, Sample, read_samples
from coat.manifests.sources.tars.webdataset import parse_text

INDEX_NAME, FORMAT = "index.json", "coat-shards/1"
TEXTS = ("text", "prompt", "response", "choices")


def is_shard_set(folder: str) -> bool:
    url = storage.join(folder, INDEX_NAME)
    if not storage.is_file(url):
        return False
    try:
        index = storage.read_json(url)
    except InputError:
        return False
    return isinstance(index, dict) and index.get("format") == FORMAT


def read_coat_shards(sources: Sequence[str], options: TarOptions) -> Iterator[Record]:
    """A record for each sample of a set, in the order of its tars."""
    for folder in sources:
        url = storage.join(storage.absolute(folder), INDEX_NAME)
        try:
            shards = {str(shard["name"]): int(shard["samples"]) for shard in storage.read_json(url)["shards"]}
        except FileNotFoundError as e:
            raise InputError(f"{folder}: no {INDEX_NAME}; expected what `coat build-shards --out` wrote") from e
        except (KeyError, TypeError, ValueError) as e:
            raise InputError(f"{url}: not a whole index ({e!r})") from e
        for name, samples in shards.items():
            if "/" in name or not name.endswith(".tar"):
                raise InputError(f"{url}: {name!r} is no name of a tar")
            yield from read_shard(storage.join(storage.absolute(folder), name), samples, options)
        yield Record(folder, 0, note=f"{folder}: targets of experts are no part of a manifest; they were passed over")


def read_shard(url: str, samples: int, options: TarOptions) -> Iterator[Record]:
    found = 0
    with open_tar(url) as tar:
        for sample in read_samples(tar, PassedOver()):
            if isinstance(sample, Unusable):
                yield Record(url, sample.number, problem=sample.message)
                continue
            found += 1
            try:
                row = row_of(sample, tar)
            except (ValueError, KeyError) as e:
                said = f"{sample.key}: {f'no {e} in its JSON' if isinstance(e, KeyError) else e}"
                yield Record(url, sample.first.number, problem=said)
                continue
            if options.tar_in_id:
                row["id"] = f"{Path(url).stem}/{sample.key}"
            yield Record(url, sample.first.number, row)
    if found != samples:
        yield Record(url, 0, problem=f"{found} samples, but the index says {samples}; build or copy it again")


def row_of(sample: Sample, tar: TarReader) -> dict[str, Any]:
    """A row in coat's native form. ValueError or KeyError where it is no sample of a shard."""
    if "json" not in sample.members:
        raise ValueError(f"no JSON ({', '.join(sample.members)})")
    record = parse_text("json", tar.read(sample.members["json"]), sample.name("json"))
    if not isinstance(record, Mapping) or not isinstance(record.get("extra", {}), Mapping):
        raise ValueError("its JSON is no sample's")
    row: dict[str, Any] = {k: record[k] for k in ("id", *TEXTS)} | audio_of(sample, record) | dict(record["extra"])
    if "utterance" in record:  # a piece of it
        row |= {"utterance": record["utterance"], "utterance_start": record["start"]}
    return row


def audio_of(sample: Sample, record: Mapping[str, Any]) -> dict[str, Any]:
    """The member with the audio; or, of a set without, where the original lies. Null of text alone."""
    found = [m for suffix, m in sample.members.items() if f".{suffix}" in AUDIO_SUFFIXES]
    if len(found) > 1:
        raise ValueError(f"{len(found)} audio members; expected one")
    if found:
        return {"audio_filepath": found[0].address(), "offset": 0.0, "duration": record["duration"]}
    said = record["audio"]
    if said is None:
        return {"audio_filepath": None}
    return {"audio_filepath": said["path"], "offset": said["offset"], "duration": said["duration"]}


def as_it_is(row: Mapping[str, Any]) -> list[dict[str, Any] | Refused]:
    return [dict(row)]
