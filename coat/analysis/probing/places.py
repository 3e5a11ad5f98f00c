"""Where in a sequence states are read, and one pass that reads them at many layers and keeps what is asked for.

B batch, T positions of a sequence, P positions of a place, D dim, N rows: one a sample (the mean over its positions),
or one a position.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coat.analysis.layers import decoder_layers, gathered, hooked
from coat.manifests import InputError
from coat.trainer.data.collator import EncodedSample, pad_ids
from coat.trainer.model.coat_model import CoatModel
from coat.trainer.model.thinking import ThinkingBlock
from coat.trainer.students.base import Student

AUDIO, THINK, QUESTION, RESPONSE = PLACES = ("audio", "think", "question", "response")
TIMED = (AUDIO, THINK)  # positions that have a time in the audio
Positions = Mapping[str, Sequence[int]]  # by place


def positions_of(student: Student, block: ThinkingBlock, encoded: EncodedSample) -> dict[str, list[int]]:
    """Of one sample, before padding.

    audio and think: all of them. question: text between the audio and the answer, earlier turns too. response: the
    last position before the answer, whose state says its first token; nothing of the answer itself is ever read.
    """
    before = encoded.ids[: encoded.response]
    audio, of_block, thinking = student.audio_indices(before), set(block.new_ids), set(block.ids_K)
    first = audio[-1] + 1 if audio else 0
    return {
        AUDIO: audio,
        THINK: [i for i, token in enumerate(before) if token in thinking],
        QUESTION: [i for i in range(first, len(before) - 1) if before[i] not in of_block],
        RESPONSE: [len(before) - 1],
    }


def layer_numbers(text: str, count: int) -> tuple[int, ...]:
    """`all`, or numbers and `last` with commas: the input of layer l; last (which is `count`): behind the final norm.

    InputError: no such layer.
    """
    if text == "all":
        return tuple(range(count + 1))
    found = []
    for word in (w.strip() for w in text.split(",")):
        number = count if word == "last" else int(word) if word.isdecimal() else -1
        if not 0 <= number <= count:
            raise InputError(f"--layers {text}: {word!r} is none of 0 to {count}; expected such as all, or 0,8,last")
        found.append(number)
    return tuple(sorted(set(found)))


@torch.inference_mode()
def read_places(
    model: CoatModel,
    inputs: Mapping[str, Tensor],
    positions: Sequence[Positions],
    layers: Collection[int],
    by_position: Collection[str] = (),
) -> dict[tuple[str, int], NDArray[np.float32]]:
    """By place and layer `[N, D]`, of a batch. `positions`: of each row as it is padded; a place that a row lacks has
    no row. Of places in `by_position` each position is a row, of others the mean over them, in float32.

    One pass; of each layer only these rows are kept.
    """
    device = next(iter(inputs.values())).device
    places = {}
    for place in positions[0]:
        lists = [row[place] for row in positions]
        if any(lists):
            index_BP = pad_ids(lists, 0).to(device)
            mask_BP = pad_ids([[1] * len(one) for one in lists], 0).bool().to(device)
            places[place] = index_BP, mask_BP
    kept: dict[tuple[str, int], Tensor] = {}

    def look(layer: int, states_BTD: Tensor) -> None:
        if layer not in layers:
            return
        for place, (index_BP, mask_BP) in places.items():
            states_BPD = gathered(states_BTD, index_BP).float()
            if place in by_position:
                kept[place, layer] = states_BPD[mask_BP].cpu()
            else:
                sums_BD = (states_BPD * mask_BP[..., None]).sum(1)
                count_B = mask_BP.sum(1)
                kept[place, layer] = (sums_BD / count_B.clamp(min=1)[:, None])[count_B > 0].cpu()

    with hooked(model.student, look):
        last_BTD, _ = model.states(inputs)
    look(len(decoder_layers(model.student)), last_BTD)
    return {key: states_ND.numpy() for key, states_ND in kept.items()}
