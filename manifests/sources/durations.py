"""Durations that a corpus does not state, from the headers of its audio."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import probe
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import Problem

PROBE_THREADS = 8  # reading headers waits for disks more than it computes
Advance = Callable[[int, int | None], None]  # so many more rows are done, of so many, where that is known


def fill_durations(
    utterances: Sequence[Utterance], origins: Sequence[Problem], advance: Callable[[int], None]
) -> tuple[list[Utterance], dict[int, Problem]]:
    """Durations from the headers where rows have none, and by position a problem for each that cannot be read."""
    wanted = Counter(u.audio for u in utterances if u.duration is None)  # rows of each
    advance(len(utterances) - wanted.total())
    if not wanted:
        return list(utterances), {}
    lengths: dict[str, float | AudioError] = {}
    with ThreadPoolExecutor(PROBE_THREADS) as pool:
        for audio, length in zip(wanted, pool.map(seconds_or_error, wanted), strict=True):
            lengths[audio] = length
            advance(wanted[audio])
    filled: list[Utterance] = []
    problems: dict[int, Problem] = {}
    for i, u in enumerate(utterances):
        length = lengths.get(u.audio)
        filled.append(u)
        if u.duration is not None or length is None:
            continue
        if isinstance(length, AudioError):
            hint = "; --audio-root says where relative paths count from" if length.reason == "missing" else ""
            problems[i] = replace(origins[i], message=f"{length}{hint}")
        elif length <= u.offset:
            problems[i] = replace(origins[i], message=f"offset {u.offset} s, but {u.audio} lasts {length:.3f} s")
        else:
            filled[i] = replace(u, duration=round(length - u.offset, 6))
    return filled, problems


def seconds_or_error(audio: str) -> float | AudioError:
    try:
        return probe(audio).seconds
    except AudioError as e:
        return e
