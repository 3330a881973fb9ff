"""Beam search on made-up scores whose best path is known by enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from podtool.engines.beam_search import beam_search, is_loop, log_softmax

END = 0


class Table:
    """Scores of the next token that depend on the whole history, through a fixed random table."""

    def __init__(self, vocabulary: int, seed: int) -> None:
        self.vocabulary = vocabulary
        self.seed = seed
        self.rows: list[tuple[int, ...]] = [()]

    def after(self, history: tuple[int, ...]) -> NDArray[np.float32]:
        rng = np.random.default_rng([self.seed, *history, 99])
        logits = rng.normal(0, 2, (1, self.vocabulary)).astype(np.float32)
        return np.asarray(log_softmax(logits)[0], np.float32)

    def step(self, tokens: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
        self.rows = [(*self.rows[p], t) for t, p in zip(tokens, parents, strict=True)]
        return np.stack([self.after(r) for r in self.rows])


def best_by_enumeration(table: Table, longest: int) -> tuple[int, ...]:
    scored = []
    for length in range(longest):
        for path in itertools.product(range(1, table.vocabulary), repeat=length):
            whole = (*path, END)
            total = sum(float(table.after(whole[:i])[t]) for i, t in enumerate(whole))
            scored.append((total / len(whole), path))
    return max(scored)[1]


def test_a_wide_beam_finds_the_best_path() -> None:
    for seed in range(8):
        table = Table(4, seed)
        found = beam_search(table.after(()), table.step, END, beam=64, longest=4)
        assert found[0].tokens == best_by_enumeration(Table(4, seed), 4)
        assert found[0].total == np.float32(found[0].total)
        assert len(found[0].log_probs) == len(found[0].tokens) + 1


def test_a_beam_of_one_is_greedy() -> None:
    table = Table(5, 3)
    found = beam_search(table.after(()), table.step, END, beam=1, longest=6)[0]
    history: tuple[int, ...] = ()
    while len(history) < len(found.tokens):
        history = (*history, int(np.argmax(table.after(history))))
    assert found.tokens == history


def test_loops_are_dropped() -> None:
    def step(tokens: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
        rows = np.full((len(tokens), 3), -9.0, np.float32)
        rows[:, 1] = -0.1  # always the same word again
        return rows

    first = np.array([-9.0, -0.1, -9.0], np.float32)
    found = beam_search(first, step, END, beam=2, longest=60)
    assert max(len(h.tokens) for h in found) < 30
    assert not any(is_loop(h.tokens) for h in found)


def test_what_counts_as_a_loop() -> None:
    assert is_loop([7] * 15)
    assert not is_loop([7] * 14)
    assert is_loop([9, 8, *[1, 2, 3, 4, 5] * 3])
    assert not is_loop([1, 2, 3, 4, 5] * 2)
    assert not is_loop(list(range(40)))
