"""Beam search over a decoder that scores the next token, with loops cut off. No backend in here.

Length-normalised log-probability as in Wu et al. 2016 (arXiv 1609.08144, section 7) with the
plain power `length ** alpha`; deterministic, ties go to the lower token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Scores = NDArray[np.float32]
Step = Callable[[Sequence[int], Sequence[int]], Scores]
Work: TypeAlias = Generator[float, None, T]  # yields what each piece has cost, returns the result


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Tokens without the end token, and the log-probability of each (the end's is the last)."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    total: float

    def score(self, alpha: float) -> float:
        return self.total / math.pow(max(1, len(self.log_probs)), alpha)


def log_softmax(logits: NDArray[np.float32]) -> Scores:
    """Row-wise log-softmax of (rows, vocabulary)."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Scores = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def is_loop(tokens: Sequence[int], repeats: int = 3, longest_period: int = 24) -> bool:
    """Whether the tail says the same thing `repeats` times over, at least 15 tokens in all.

    A recogniser that lost the speech goes round in circles; people rarely do.
    """
    for period in range(1, min(longest_period, len(tokens) // repeats) + 1):
        length = max(repeats * period, -(-15 // period) * period)
        if length > len(tokens):
            continue
        tail = tokens[-length:]
        if all(tail[i] == tail[i - period] for i in range(period, length)):
            return True
    return False


def finished(work: Work[T]) -> T:
    """The result, all pieces done at once."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result


def beam_search(
    first: Scores, step: Step, end: int, beam: int, longest: int, alpha: float = 1.0
) -> list[Hypothesis]:
    """The best finished hypotheses, best first; never empty. See `searching`."""
    return finished(searching(first, step, end, beam, longest, alpha))


def searching(
    first: Scores, step: Step, end: int, beam: int, longest: int, alpha: float = 1.0
) -> Work[list[Hypothesis]]:
    """`beam_search` in pieces: after each step it yields how many hypotheses that was for.

    `first`: log-probabilities of the first token, (vocabulary,). `step(tokens, parents)` gives
    (len(tokens), vocabulary) log-probabilities after each token, where parents[i] is the row of
    the previous call that token i continues. `longest`: tokens at most. Hypotheses that loop are
    dropped; where nothing finishes, the unfinished ones are returned.
    """
    alive = [Hypothesis((), (), 0.0)]
    scores = first[None, :]
    finished: list[Hypothesis] = []
    for length in range(longest):
        vocabulary = scores.shape[1]
        totals = scores + np.array([[h.total] for h in alive], np.float32)
        flat = totals.ravel()
        many = min(2 * beam, flat.size)
        top = np.argpartition(-flat, many - 1)[:many]
        order = sorted((-float(flat[i]), int(i)) for i in top)
        grown: list[Hypothesis] = []
        parents: list[int] = []
        for minus_total, index in order:
            row, token = divmod(index, vocabulary)
            parent = alive[row]
            log_probs = (*parent.log_probs, float(scores[row, token]))
            if not np.isfinite(minus_total):
                continue
            if token == end:
                finished.append(Hypothesis(parent.tokens, log_probs, -minus_total))
            elif len(grown) < beam:
                tokens = (*parent.tokens, token)
                if not is_loop(tokens):
                    grown.append(Hypothesis(tokens, log_probs, -minus_total))
                    parents.append(row)
            if beam == 1 and (finished or grown):
                break
        finished = sorted(finished, key=lambda h: -h.score(alpha))[:beam]
        if not grown or (beam == 1 and finished):
            break
        if len(finished) == beam:
            promise = max(h.score(alpha) for h in grown)
            if promise <= finished[-1].score(alpha):
                break
        alive = grown
        if length + 1 < longest:
            scores = step([h.tokens[-1] for h in alive], parents)
            yield len(alive)
    return finished or sorted(alive, key=lambda h: -h.score(alpha))
