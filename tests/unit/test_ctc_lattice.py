"""Forced alignment over a CTC lattice, against every path that there is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from podtool.engines.ctc_lattice import ANY, best_path

BLANK = 0


def collapsed(path: Sequence[int]) -> list[int]:
    return [a for a, _ in itertools.groupby(path) if a != BLANK]


def by_trying_all(log_probs: NDArray[np.float32], tokens: list[int]) -> float | None:
    """The score of the likeliest path that reads `tokens`."""
    frames, size = log_probs.shape
    scores = [
        float(sum(log_probs[t, s] for t, s in enumerate(path)))
        for path in itertools.product(range(size), repeat=frames)
        if collapsed(path) == tokens
    ]
    return max(scores, default=None)


def lattice(seed: int, frames: int, size: int) -> NDArray[np.float32]:
    logits = np.random.default_rng(seed).normal(0, 2, (frames, size))
    scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return np.asarray(scores, np.float32)


@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
def test_the_path_is_the_likeliest_of_all(seed: int, frames: int, tokens: list[int]) -> None:
    log_probs = lattice(seed, frames, 4)
    found, best = best_path(log_probs, tokens, BLANK), by_trying_all(log_probs, tokens)
    assert (found is None) == (best is None)
    if found is None or best is None:
        return
    path = np.full(frames, BLANK)
    for token, placed in zip(tokens, found, strict=True):
        assert placed.first < placed.end
        path[placed.first : placed.end] = token
    assert collapsed(path.tolist()) == tokens
    score = sum(float(log_probs[t, s]) for t, s in enumerate(path))
    assert score == pytest.approx(best, abs=1e-4)


def test_tokens_are_found_where_they_are_heard() -> None:
    heard = [0, 0, 2, 2, 0, 2, 0, 3, 3, 3, 0]
    log_probs = np.full((len(heard), 4), -8.0, np.float32)
    log_probs[np.arange(len(heard)), heard] = -0.1
    found = best_path(log_probs, [2, 2, 3], BLANK) or []
    assert [(p.first, p.end) for p in found] == [(2, 4), (5, 6), (7, 10)]
    assert [round(p.log_prob, 3) for p in found] == [-0.1] * 3


def test_any_sound_takes_what_is_left_between_known_ones() -> None:
    heard = [1, 0, 3, 0, 3, 0, 2]
    log_probs = np.full((len(heard), 4), -8.0, np.float32)
    log_probs[np.arange(len(heard)), heard] = -0.1
    found = best_path(log_probs, [1, ANY, 2], BLANK) or []
    assert [p.first for p in found][::2] == [0, 6]
    assert 1 <= found[1].first < found[1].end <= 6


def test_too_few_frames_give_nothing() -> None:
    assert best_path(lattice(0, 2, 4), [1, 1], BLANK) is None  # a blank has to go between
    assert best_path(lattice(0, 3, 4), [1, 1], BLANK) is not None
    assert best_path(lattice(0, 3, 4), [], BLANK) is None
    assert best_path(np.zeros((0, 4), np.float32), [1], BLANK) is None
