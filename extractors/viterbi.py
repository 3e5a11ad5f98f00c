"""The Viterbi path of a model in which few states can follow another. S states, T times, K sources of a state."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def viterbi(prob: Floats, transition: Floats, *, p_init: Floats) -> NDArray[np.uint16]:
    """What `librosa.sequence.viterbi` returns, bit for bit: `[T]` states.

    librosa compares all S * S transitions of a step. Here those that are possible are compared, and the best of those
    that are not: to librosa, too, these have the smallest number for a probability, all of them.

    Args:
        prob: `[S, T]` probability of what is seen, by state.
        transition: `[S, S]` probability that the second state follows the first.
        p_init: `[S]` of the first step.
    """
    smallest = np.finfo(prob.dtype).tiny  # librosa's for a probability of 0
    seen_TS = np.ascontiguousarray(np.log(prob + smallest).T)
    sources_SK, cost_SK = possible_sources(transition, smallest)
    jump = np.log(transition.dtype.type(0) + smallest)
    every_S = np.arange(len(transition))

    value_S = seen_TS[0] + np.log(p_init + smallest)
    scores_SK = np.empty_like(cost_SK)
    before_TS = np.empty(seen_TS.shape, np.uint16)
    for t in range(1, len(seen_TS)):
        np.take(value_S, sources_SK, out=scores_SK, mode="clip")
        scores_SK += cost_SK
        best_S = scores_SK.argmax(axis=1)  # the first of equals, as in librosa
        score_S, source_S = scores_SK[every_S, best_S], sources_SK[every_S, best_S]
        jumps_S = value_S + jump
        first = int(jumps_S.argmax())
        better_S = (jumps_S[first] > score_S) | ((jumps_S[first] == score_S) & (first < source_S))
        before_TS[t] = np.where(better_S, first, source_S)
        value_S = seen_TS[t] + np.where(better_S, jumps_S[first], score_S)

    path_T = np.empty(len(seen_TS), np.uint16)
    path_T[-1] = value_S.argmax()
    for t in range(len(path_T) - 1, 0, -1):
        path_T[t - 1] = before_TS[t, path_T[t]]
    return path_T


def possible_sources(transition_SS: Floats, smallest: float) -> tuple[NDArray[np.intp], Floats]:
    """`[S, K]`: which states may come before each, in order, and the logarithm of how probable that is.

    K is that of the state with the most. Behind those of a state that has fewer come some that are not possible.
    """
    possible_SS = transition_SS.T > 0
    most = int(possible_SS.sum(axis=1).max())
    sources_SK = np.argsort(~possible_SS, axis=1, kind="stable")[:, :most].astype(np.intp)
    return sources_SK, np.log(np.take_along_axis(transition_SS.T, sources_SK, axis=1) + smallest)
