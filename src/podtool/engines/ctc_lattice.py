"""Forced alignment over a CTC lattice: when each token of a known text is heard. No backend here.

Graves et al. 2006 (ICML, section 4): the text with a blank between all tokens; of all paths that
read it, the likeliest (Viterbi) says which frames belong to which token. Kürzinger et al. 2020
(arXiv 2007.09127) use it for long recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ANY = -1  # a token that stands for any sound: whatever is likeliest beside the blank


@dataclass(frozen=True, slots=True)
class Placed:
    """One token: its frames [first, end) and its mean log-probability over them."""

    first: int
    end: int
    log_prob: float


def best_path(
    log_probs: NDArray[np.float32], tokens: Sequence[int], blank: int
) -> list[Placed] | None:
    """Log-probabilities (frames, vocabulary) and tokens -> where each token is.

    Tokens may be `ANY`. None where there are fewer frames than the text needs. Of equal paths the
    one that stays longer on a state is taken, so the result is deterministic.
    """
    frames, count = len(log_probs), len(tokens)
    repeats = sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))
    if not count or frames < count + repeats:
        return None
    heard = _emissions(np.asarray(log_probs, np.float64), tokens, blank)
    # A state may be skipped to from two before where it is a token that differs from that one.
    skips = np.zeros(2 * count + 1, bool)
    skips[3::2] = [a != b for a, b in zip(tokens, tokens[1:], strict=False)]
    score = np.full(2 * count + 1, -np.inf)
    score[:2] = heard[0, :2]
    moves = np.zeros((frames, 2 * count + 1), np.int8)
    for frame in range(1, frames):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(skips, np.concatenate([[-np.inf, -np.inf], score[:-2]]), -np.inf)
        choices = np.stack([score, one, two])
        moves[frame] = choices.argmax(axis=0)
        score = choices.max(axis=0) + heard[frame]
    state = 2 * count if score[2 * count] > score[2 * count - 1] else 2 * count - 1
    if not np.isfinite(score[state]):
        return None
    path = np.empty(frames, np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= moves[frame, state]
    found = []
    for index in range(count):
        own = np.flatnonzero(path == 2 * index + 1)
        mean = float(heard[own, 2 * index + 1].mean())
        found.append(Placed(int(own[0]), int(own[-1]) + 1, mean))
    return found


def _emissions(
    log_probs: NDArray[np.float64], tokens: Sequence[int], blank: int
) -> NDArray[np.float64]:
    """Log-probability of each state (blank, token, blank, ... blank) in each frame."""
    sounds = np.delete(log_probs, blank, axis=1).max(axis=1)
    states = np.repeat(log_probs[:, blank : blank + 1], 2 * len(tokens) + 1, axis=1)
    for index, token in enumerate(tokens):
        states[:, 2 * index + 1] = sounds if token == ANY else log_probs[:, token]
    return states
