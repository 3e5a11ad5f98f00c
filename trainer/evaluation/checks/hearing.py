"""The deaf-run guard: a model that does not hear gives the same answers whatever is played to it.

Audio can be lost without an error: an argument that a newer processor ignores, a placeholder that is not filled, a
prompt that gives the answer away. So some rows are asked again with another row's audio, cut or repeated to the same
length, and with silence of that length: all else is equal, and greedy answers change by the sound alone.
"""

from collections.abc import Mapping

from coat.trainer.evaluation.asking.planning import OTHER_AUDIO, SILENCE
from coat.trainer.evaluation.choices import normalise
from coat.trainer.evaluation.predictions import Key, Prediction
from coat.trainer.evaluation.results import Hearing

DEAF = 0.05  # share of answers that rounding may change, in batches of other company


def hearing(answered: Mapping[Key, Prediction]) -> Hearing | None:
    """None where no row was asked again, or none was answered."""
    changed = {OTHER_AUDIO: [], SILENCE: []}
    for (benchmark, identity, variant), prediction in answered.items():
        plain = answered.get((benchmark, identity, ""))
        if variant in changed and plain and plain.answer is not None and prediction.answer is not None:
            changed[variant].append(normalise(plain.answer) != normalise(prediction.answer))
    rows = max(map(len, changed.values()))
    if not rows:
        return None
    hears = any(sum(found) > DEAF * len(found) for found in changed.values())
    return Hearing(
        rows=rows,
        other_audio=len(changed[OTHER_AUDIO]),
        changed_by_other_audio=sum(changed[OTHER_AUDIO]),
        silence=len(changed[SILENCE]),
        changed_by_silence=sum(changed[SILENCE]),
        hears=hears,
    )


def sentence(found: Hearing) -> str:
    """For the first line, or a line of its own."""
    other = f"{found.changed_by_other_audio} of {found.other_audio} answers changed with another row's audio"
    silence = f"{found.changed_by_silence} of {found.silence} with silence"
    return ("hears: " if found.hears else "DOES NOT HEAR ITS AUDIO: ") + f"{other}, {silence}"
