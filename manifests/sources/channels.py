"""Which channels of a recording are heard: the mean of all, one of them, or each as a row of its own."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import probe
from coat.manifests.corpus.utterance import Utterance
from coat.manifests.errors import InputError, Problem
from coat.manifests.sources.durations import PROBE_THREADS

Channel = int | Literal["mix", "each"]


def parse_channel(text: str) -> Channel:
    """InputError where it is neither."""
    if text in ("mix", "each"):
        return text
    if not text.isascii() or not text.isdigit():
        raise InputError(f"--channel {text}: expected mix (the mean of all), each, or a number from 0")
    return int(text)


def at_channel(address: str, channel: int) -> str:
    """The address of one channel of a recording."""
    return f"{address}{'&' if '#' in address else '#'}channel={channel}"


def channel_id(identity: str, channel: int) -> str:
    return f"{identity}-ch{channel}"


def choose_channels(
    utterances: Sequence[Utterance], origins: Sequence[Problem], channel: Channel
) -> tuple[list[Utterance], list[Problem]]:
    """The same rows at their channels. With `each` a row of several channels becomes several rows, `ID-ch0`, `ID-ch1`,
    ...; what cannot be opened stays one row, whose problem is told where its duration is read.
    """
    if channel == "mix":
        return list(utterances), list(origins)
    if channel != "each":
        return [u if u.text_only else with_channel(u, channel) for u in utterances], list(origins)
    counts = channel_counts([u.audio for u in utterances if not u.text_only])
    rows: list[Utterance] = []
    places: list[Problem] = []
    for u, origin in zip(utterances, origins, strict=True):
        count = counts.get(u.audio, 1)
        several = [replace(with_channel(u, c), id=channel_id(u.id, c) if u.id else "") for c in range(count)]
        rows += several if count > 1 else [u]
        places += [origin] * max(count, 1)
    return rows, places


def with_channel(u: Utterance, channel: int) -> Utterance:
    return replace(u, audio=at_channel(u.audio, channel), audio_filepath=at_channel(u.audio_filepath, channel))


def channel_counts(audio: Sequence[str]) -> dict[str, int]:
    """Of each file, by its header; 1 where it cannot be read."""
    wanted = list(dict.fromkeys(audio))
    with ThreadPoolExecutor(PROBE_THREADS) as pool:
        return dict(zip(wanted, pool.map(count_channels, wanted), strict=True))


def count_channels(audio: str) -> int:
    try:
        return probe(audio).channels
    except AudioError:
        return 1
