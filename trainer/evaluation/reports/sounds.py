"""Audio of rows, small enough for a page: Opus in Ogg, mono."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile

from coat.manifests import AudioError, InputError, Utterance, decode, storage
from coat.manifests.corpus.utterance import safe_key

RATES = (24000, 16000)  # Hz that Opus takes: the higher one where the audio has as much
LONGEST_S = 120.0  # of a clip; what is longer is cut there, and said to be
THREADS = 2
Key = tuple[str, float, float | None]


def key_of(row: Utterance) -> Key | None:
    """Rows of one clip have one key. None: text alone."""
    return None if row.text_only and not row.audio else (row.audio, row.offset, row.duration)


def encoded(row: Utterance) -> bytes | None:
    """None where it cannot be decoded here, which does not spoil a report."""
    try:
        clip = decode(row.audio, row.offset, row.duration)
    except (AudioError, InputError):
        return None
    rate = next((rate for rate in RATES if clip.rate >= rate), RATES[-1])
    out = io.BytesIO()
    soundfile.write(out, clip.at(rate)[: round(LONGEST_S * rate)], rate, format="OGG", subtype="OPUS")
    return out.getvalue()


def embedded(rows: Sequence[Utterance], budget: int, advance: Callable[[int], None]) -> tuple[dict[Key, str], int]:
    """Data URLs by key, of the first rows whose audio fits into `budget` bytes; and of how many clips there is none."""
    found: dict[Key, str] = {}
    clips, used, without = unique(rows), 0, 0
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(clips), 16):
            if used >= budget:
                without += len(clips) - start
                break
            part = clips[start : start + 16]
            for (key, _), data in zip(part, pool.map(encoded, (row for _, row in part)), strict=True):
                advance(1)
                url = "" if data is None else f"data:audio/ogg;base64,{base64.b64encode(data).decode()}"
                if not url or used + len(url) > budget:
                    without += 1
                    continue
                used += len(url)
                found[key] = url
    return found, without


def written(rows: Sequence[Utterance], page: str, advance: Callable[[int], None]) -> tuple[dict[Key, str], int]:
    """The same in files beside the page, in PAGE_audio/; names relative to it."""
    folder = f"{page.rsplit('.', 1)[0]}_audio"
    found: dict[Key, str] = {}
    clips, without = unique(rows), 0
    with ThreadPoolExecutor(THREADS) as pool:
        for number, ((key, row), data) in enumerate(zip(clips, pool.map(encoded, (r for _, r in clips)), strict=True)):
            advance(1)
            if data is None:
                without += 1
                continue
            name = f"{number:05d}-{safe_key(row.id)}.ogg"
            storage.write_bytes(storage.join(folder, name), data)
            found[key] = f"{Path(folder).name}/{name}"
    return found, without


def unique(rows: Iterable[Utterance]) -> list[tuple[Key, Utterance]]:
    found: dict[Key, Utterance] = {}
    for row in rows:
        if (key := key_of(row)) is not None:
            found.setdefault(key, row)
    return list(found.items())
