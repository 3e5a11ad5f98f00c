"""Where two answers part, where two prompts do, and how sure the run was there.

T positions of a prompt, N tokens of an answer, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import torch
from torch import Tensor

from coat.trainer.generation.generate import Trained


@dataclass(frozen=True)
class Difference:
    """From 0: `at` is the first token (or word, of a server that tells no tokens) that is not the same."""

    at: int
    unit: Literal["token", "word"]
    run: str | None  # None: its answer has ended there
    server: str | None
    # By how much the run held its own token likelier than the server's there, in nats; None: not known. Near 0 rounding
    # decides.
    margin: float | None = None


def first_difference(ours: Sequence[object], theirs: Sequence[object]) -> int | None:
    """Index of the first that is not the same; None: all are."""
    pairs = zip_longest(ours, theirs)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), None)


def of_tokens(
    trained: Trained, inputs: Mapping[str, Tensor], ours: Sequence[int], theirs: Sequence[int]
) -> Difference | None:
    """`inputs` are those of the prompt; the answers are without the token that ends them."""
    at = first_difference(ours, theirs)
    if at is None:
        return None
    run, server = (ids[at] if at < len(ids) else None for ids in (ours, theirs))
    end = trained.student.tokenizer.convert_tokens_to_ids(trained.student.turn_end)
    margin = margin_of(trained, inputs, ours[:at], end if run is None else run, end if server is None else server)
    return Difference(at, "token", shown(trained, run), shown(trained, server), margin)


def of_words(ours: str, theirs: str) -> Difference | None:
    run, server = ours.split(), theirs.split()
    at = first_difference(run, server)
    if at is None:
        return None
    return Difference(at, "word", run[at] if at < len(run) else None, server[at] if at < len(server) else None)


@torch.inference_mode()
def margin_of(
    trained: Trained, inputs: Mapping[str, Tensor], said: Sequence[int], ours: int, theirs: int
) -> float | None:
    """Of the run, behind a prompt and what both have said."""
    student = trained.student
    if theirs >= student.model.get_output_embeddings().weight.shape[0]:
        return None
    ids_1T = inputs["input_ids"]
    said_1N = torch.tensor([list(said)], dtype=ids_1T.dtype, device=ids_1T.device)
    longer = {
        **inputs,
        "input_ids": torch.cat([ids_1T, said_1N], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(said_1N)], dim=1),
    }
    logits_V = student.logits(student.hidden_states(longer)[0, -1]).float()
    return round(float(logits_V[ours] - logits_V[theirs]), 6)


def shown(trained: Trained, token: int | None) -> str | None:
    return None if token is None else trained.student.tokenizer.decode([token])


def of_prompts(trained: Trained, ours: Sequence[int], theirs: Sequence[int] | None, count: int | None) -> str | None:
    """What is wrong with the server's prompt, in a line; None: nothing that is known of.

    `theirs`: its ids, where it tells them; `count`: how many it has, where it tells that.
    """
    block = trained.block.new_ids
    if theirs is None:
        if count is None or count == len(ours):
            return None
        if len(ours) - count == len(block) > 0:
            return f"its prompt has {count} positions, the run's {len(ours)}: it lacks the thinking block"
        return f"its prompt has {count} positions, the run's {len(ours)}"
    at = first_difference(ours, theirs)
    if at is None:
        return None
    if block and set(block) & set(ours) and not set(block) & set(theirs):
        return "its prompt has no thinking block: it renders another chat template than the export's"
    one, other = (shown(trained, ids[at]) if at < len(ids) else "its end" for ids in (ours, theirs))
    return f"its prompt has {other!r} at position {at}, the run's {one!r}"
