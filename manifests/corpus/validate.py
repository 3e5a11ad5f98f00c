"""What is wrong with a manifest and its audio, one line a row."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from coat.manifests.audio.clip import AudioError, AudioInfo
from coat.manifests.audio.file import SPAN_TOLERANCE_S, decode, probe
from coat.manifests.corpus.manifest import Manifest, read_manifest
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import Problem, ReadFault

HEADER_THREADS = 8  # wait for disks
DECODE_THREADS = 2  # compute


def validate_manifest(
    path: str, deep: bool = False, advance: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Every problem of a manifest, in the order of its rows. InputError where there is no manifest.

    Reads the rows, then the header of each audio file once; `deep` decodes every span instead, which also
    finds what is cut short, damaged or not finite. `advance(1, rows)` is called after each row.
    """
    utterances, problems = read_manifest(path)
    found = [*duplicate_ids(utterances)]
    headers: dict[str, AudioInfo | AudioError] = {}

    def check(u: Utterance) -> list[str]:
        messages = row_messages(u)
        if messages or u.text_only:
            return messages
        try:
            if deep:
                decode(u.audio, u.offset, u.duration)
                return []
            if u.audio not in headers:  # two threads may both read one header: harmless
                headers[u.audio] = probe_or_error(u.audio)
            return span_messages(u, headers[u.audio])
        except (AudioError, ReadFault) as e:
            return [str(e)]

    with ThreadPoolExecutor(DECODE_THREADS if deep else HEADER_THREADS) as pool:
        for u, messages in zip(utterances, pool.map(check, utterances), strict=True):
            found += [(u.row, message) for message in messages]
            if advance:
                advance(1, len(utterances))
    parts = {url: i for i, url in enumerate(utterances.parts.urls if utterances.parts else ())}
    problems = [*problems, *(utterances.problem(*f) for f in found)]
    return sorted(problems, key=lambda p: (parts.get(p.file, 0), p.row))


def probe_or_error(audio: str) -> AudioInfo | AudioError:
    try:
        return probe(audio)
    except AudioError as e:
        return e


def duplicate_ids(utterances: Manifest) -> list[tuple[int, str]]:
    """Targets are kept by id: two rows of one id would be taken for each other. Numbers of rows, and what is wrong."""
    first: dict[str, int] = {}
    problems = []
    for u in utterances:
        if u.id in first:
            other = utterances.row_name(first[u.id])
            problems.append((u.row, f"id {u.id!r} is also that of {other}; ids must be unique"))
        first.setdefault(u.id, u.row)
    return problems


def row_messages(u: Utterance) -> list[str]:
    """What is wrong with a row, whatever its audio is."""
    messages = []
    if u.offset < 0:
        messages.append(f"offset {u.offset} s is negative")
    if u.duration is not None and u.duration <= 0 and not u.text_only:
        messages.append(f"duration {u.duration} s; expected more than zero")
    if u.choices and u.response is not None and u.response not in u.choices:
        messages.append(f"response {u.response!r} is not one of its choices ({', '.join(u.choices)})")
    return messages


def span_messages(u: Utterance, info: AudioInfo | AudioError) -> list[str]:
    """Whether the span lies in the file, as far as the header tells."""
    if isinstance(info, AudioError):
        return [str(info)]
    if not info.seconds:
        return [f"{u.audio}: no samples; expected audio"]
    end = u.offset + (u.duration or 0.0)
    if u.offset >= info.seconds or end > info.seconds + SPAN_TOLERANCE_S:
        return [f"{u.audio}: span {u.offset:.3f} s to {end:.3f} s, but the file lasts {info.seconds:.3f} s"]
    return []
