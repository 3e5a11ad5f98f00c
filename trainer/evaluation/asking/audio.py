"""What is heard with a prompt: the row's audio; or, for the guard, another row's or none, for just as long.

T samples.
"""

import numpy as np

from coat.manifests import Clip, Utterance, decode
from coat.trainer.evaluation.asking.ask import Ask


def clip_of(ask: Ask) -> Clip | None:
    """None: a row of text alone. AudioError where it cannot be decoded; ReadFault where this machine cannot read."""
    if ask.row.text_only:
        return None
    own = read(ask.row)
    if ask.silent:
        return Clip(np.zeros_like(own.samples_T), own.rate)
    if ask.heard is None:
        return own
    return fitted(read(ask.heard), own)


def read(row: Utterance) -> Clip:
    return decode(row.audio, row.offset, row.duration)


def fitted(other: Clip, own: Clip) -> Clip:
    """The other's sound, cut or repeated to the length of one's own: then nothing but the sound differs."""
    samples_T = other.at(own.rate)
    return Clip(np.resize(samples_T, len(own.samples_T)) if len(samples_T) else own.samples_T * 0, own.rate)
