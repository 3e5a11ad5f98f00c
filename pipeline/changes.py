"""Audio that sounds different now from what was heard: for `extract --refresh` and `verify --sources`."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from coat.manifests.audio import AudioError, decode
from coat.manifests.utterance import Utterance

AHEAD = 1024  # utterances that wait for a decoder


def sounds(utterances: Iterable[Utterance]) -> Iterator[tuple[Utterance, str | None, str]]:
    """Each with the digest of its sound as it is now, in order; None and why, where it cannot be decoded."""
    left = iter(utterances)
    with ThreadPoolExecutor() as pool:
        while ahead := list(islice(left, AHEAD)):
            for utterance, (digest, fault) in zip(ahead, pool.map(sound, ahead), strict=True):
                yield utterance, digest, fault


def sound(utterance: Utterance) -> tuple[str | None, str]:
    try:
        return decode(utterance.audio, utterance.offset, utterance.duration).digest, ""
    except AudioError as e:
        return None, f"{e.reason}: {e}"
