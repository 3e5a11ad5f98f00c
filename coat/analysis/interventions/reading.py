"""What a pass says of the answers: probabilities of their tokens, the likeliest ones, and how far both have moved.

R tokens of answers, D dim of the states, V vocabulary. Logits are made some tokens at a time, and not kept.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from coat.analysis.interventions.packing import Asked
from coat.trainer.model.coat_model import CoatModel

AT_ONCE = 256  # tokens whose logits are in memory: 0.3 GB of a vocabulary of 150,000, twice
NEVER = -1e30  # logit of a token that is never said: a probability of 0, and no infinity to subtract from another


@dataclass(frozen=True)
class Read:
    states_RD: Tensor  # that say the tokens
    log_prob_R: Tensor  # of each token behind those before it
    said_R: Tensor  # the likeliest one there


def read(model: CoatModel, states_BTD: Tensor, asked: Asked) -> Read:
    states_RD = states_BTD.flatten(0, 1).index_select(0, asked.before_R)
    log_probs, said = [], []
    for states_CD, token_C in zip(states_RD.split(AT_ONCE), asked.token_R.split(AT_ONCE), strict=True):
        log_probs_CV = log_probabilities(model, states_CD)
        log_probs.append(log_probs_CV.gather(1, token_C[:, None])[:, 0])
        said.append(log_probs_CV.argmax(-1))
    return Read(states_RD, torch.cat(log_probs), torch.cat(said))


def divergence(model: CoatModel, before: Read, after: Read) -> Tensor:
    """`[R]`: Kullback-Leibler divergence, in nats, from the distribution of each token before to that after."""
    parts = []
    for before_CD, after_CD in zip(before.states_RD.split(AT_ONCE), after.states_RD.split(AT_ONCE), strict=True):
        was_CV, is_CV = log_probabilities(model, before_CD), log_probabilities(model, after_CD)
        parts.append(F.kl_div(is_CV, was_CV, reduction="none", log_target=True).sum(-1))
    return torch.cat(parts).clamp(min=0)


def log_probabilities(model: CoatModel, states_CD: Tensor) -> Tensor:
    """Of the vocabulary without think tokens, which generation never says."""
    logits_CV = model.student.logits(states_CD).float()
    logits_CV[:, model.block.new_ids] = NEVER
    return logits_CV.log_softmax(-1)
