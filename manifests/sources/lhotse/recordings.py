"""Lhotse's recordings with their supervisions, as two manifests: each supervision becomes a cut of its recording.

Their names belong together: `x_recordings_train.jsonl.gz` and `x_supervisions_train.jsonl.gz`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from coat.manifests import storage
from coat.manifests.errors import InputError
from coat.manifests.sources.records import Record
from coat.manifests.sources.tables.json_lines import read_json_records

RECORDINGS, SUPERVISIONS = "recordings", "supervisions"


def is_recording(record: Mapping[str, Any]) -> bool:
    return {"id", "sources", "sampling_rate", "num_samples"} <= record.keys()


def is_supervision(record: Mapping[str, Any]) -> bool:
    return {"id", "recording_id", "start", "duration"} <= record.keys() and "sources" not in record


def is_recording_or_supervision(record: Mapping[str, Any]) -> bool:
    return is_recording(record) or is_supervision(record)


def read_recordings(path: str) -> Iterator[Record]:
    """A cut for each supervision, and for each recording that has none. Either file may be given; that of the
    recordings may be alone.
    """
    recordings_path, supervisions_path = pair_of(path)
    recordings: dict[str, Mapping[str, Any]] = {}
    places: dict[str, Record] = {}
    for record in read_json_records(recordings_path):
        if record.problem or record.note:
            yield record
        elif not is_recording(record.values):
            yield Record(record.file, record.row, problem="not a recording (id, sources, sampling_rate, num_samples)")
        elif (name := str(record.values["id"])) in recordings:
            yield Record(record.file, record.row, problem=f"recording {name!r} is there twice")
        else:
            recordings[name], places[name] = record.values, Record(record.file, record.row)
    described: set[str] = set()
    for record in read_json_records(supervisions_path) if supervisions_path else ():
        if record.problem or record.note:
            yield record
        elif not is_supervision(record.values):
            yield Record(record.file, record.row, problem="not a supervision (id, recording_id, start, duration)")
        elif (name := str(record.values["recording_id"])) not in recordings:
            said = f"recording {name!r} is not in {recordings_path}; what is said of it would be lost"
            yield Record(record.file, record.row, problem=said)
        else:
            described.add(name)
            yield Record(record.file, record.row, supervision_cut(record.values, recordings[name]))
    for name, recording in recordings.items():
        if name not in described:
            yield Record(places[name].file, places[name].row, recording_cut(recording))


def pair_of(path: str) -> tuple[str, str]:
    """The files of the recordings and of the supervisions, empty where there is none."""
    folder, name = storage.parent(path), path.rsplit("/", 1)[-1]
    if SUPERVISIONS in name:
        recordings = storage.join(folder, name.replace(SUPERVISIONS, RECORDINGS))
        if not storage.is_file(recordings):
            raise InputError(f"{path}: its recordings are not beside it; expected {recordings}")
        return recordings, path
    if RECORDINGS in name:
        supervisions = storage.join(folder, name.replace(RECORDINGS, SUPERVISIONS))
        return path, supervisions if storage.is_file(supervisions) else ""
    first = next((r.values for r in read_json_records(path) if r.values), {})
    if is_recording(first):
        return path, ""
    said = "supervisions without their recordings; name both files alike, such as x_recordings.jsonl.gz"
    raise InputError(f"{path}: {said} and x_supervisions.jsonl.gz")


def supervision_cut(supervision: Mapping[str, Any], recording: Mapping[str, Any]) -> dict[str, Any]:
    """Of the channel that the supervision names, where it names one."""
    channels = supervision.get("channel")
    cut = {name: supervision[name] for name in ("id", "start", "duration")}
    said = {**supervision, "start": 0}
    return cut | {"type": "MultiCut", "channel": channels, "recording": recording, "supervisions": [said]}


def recording_cut(recording: Mapping[str, Any]) -> dict[str, Any]:
    """The whole of it."""
    sources = [s for s in recording.get("sources") or [] if isinstance(s, Mapping)]
    channels = [c for s in sources for c in s.get("channels") or []]
    whole = {"id": recording["id"], "start": 0, "duration": recording.get("duration"), "type": "MultiCut"}
    return whole | {"channel": channels or None, "recording": recording, "supervisions": []}
