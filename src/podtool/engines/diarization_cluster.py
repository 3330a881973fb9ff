"""Which stretches of speech are one person: agglomerative clustering by log likelihood ratio.

A unit embedding of d seconds is taken as its speaker's point plus noise whose energy falls as
1/d, so two units of one speaker correlate by sqrt(r1 * r2) with r = d / (d + tau), and those of
two speakers by nothing (a two-covariance model, as PLDA with isotropic covariances: Brummer & De
Villiers, "The speaker partitioning problem", Odyssey 2010). The score of a merge is the log
likelihood ratio of the two, per dimension: it expects less of short clusters than of long ones,
and zero is its natural bound. Two levels: neighbouring units in blocks, then the blocks' clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SpeakerModel:
    """The model of unit embeddings.

    `noise_s`: seconds at which noise and speaker have equal energy. `session`: energy of
    what differs between two long stretches of one speaker (rooms, moods), the speaker's being 1.
    `floor`: correlation of two speakers, as a share of what one would have.
    """

    noise_s: float = 1.4
    session: float = 0.18
    floor: float = 0.08

    def expected(self, a_s: Floats, b_s: Floats) -> Floats:
        """Correlation to expect of two stretches of one speaker, of so many seconds each."""
        r = np.sqrt((a_s / (a_s + self.noise_s)) * (b_s / (b_s + self.noise_s)))
        return np.asarray(r / (1 + self.session), np.float32)

    def score(self, cosine: Floats, a_s: Floats, b_s: Floats) -> Floats:
        """Log likelihood ratio (same against different speaker), per dimension."""
        rho = np.clip(self.expected(a_s, b_s), 1e-3, 0.999)
        return np.asarray(
            _gaussian(cosine, rho) - _gaussian(cosine, np.asarray(self.floor * rho)), np.float32
        )


def _gaussian(cosine: Floats, rho: Floats) -> Floats:
    """Log density of unit-variance pairs with correlation rho, less that at rho = 0."""
    rest = 1 - rho**2
    return np.asarray(-0.5 * np.log(rest) - (rho**2 - rho * cosine) / rest, np.float32)


@dataclass(frozen=True, slots=True)
class Count:
    """How many speakers there may be."""

    least: int = 1
    most: int = 20


def cluster(
    vectors: Floats,
    seconds: Floats,
    model: SpeakerModel,
    count: Count,
    bound: float,
    smallest_s: float,
    block: int,
    mixture: float = 0.6,
) -> Ints:
    """Unit embeddings (n, dim) and their seconds (n,) -> a label from 0 for each.

    `bound` is the least score of a merge; clusters of less than `smallest_s` seconds are given up
    and their units join the nearest speaker; so are clusters that two larger ones together explain
    to a correlation of `mixture`: two voices at once that were taken for one. `block` units
    are compared with one another.
    """
    if len(vectors) == 0:
        return np.zeros(0, np.int64)
    labels = _two_levels(vectors, seconds, model, count, bound, block)
    labels = _drop_mixtures(labels, vectors, seconds, model, mixture, count.least)
    labels = _drop_small(labels, vectors, seconds, model, smallest_s, count.least)
    for _ in range(3):
        better = _reassign(labels, vectors, seconds, model)
        if np.array_equal(better, labels):
            break
        labels = better
    return _renumber(labels)


def _two_levels(
    vectors: Floats, seconds: Floats, model: SpeakerModel, count: Count, bound: float, block: int
) -> Ints:
    local = np.zeros(len(vectors), np.int64)
    strict = bound if len(vectors) <= block else bound + 0.2  # what is left is joined below
    while True:
        free = 0
        for start in range(0, len(vectors), block):
            part = slice(start, start + block)
            found = agglomerate(vectors[part], seconds[part], model, strict, 1, len(vectors))
            local[part] = found + free
            free = int(local[part].max()) + 1
        # Fewer clusters than speakers asked for: look again with a stricter bound.
        if free >= min(count.least, len(vectors)) or strict > 10:
            break
        strict = strict + 0.1
    sums, totals = pooled(local, vectors, seconds)
    top = agglomerate(sums, totals, model, bound, count.least, count.most)
    return top[local]


def pooled(labels: Ints, vectors: Floats, seconds: Floats) -> tuple[Floats, Floats]:
    """Sum of the vectors, weighted by seconds, and total seconds of each label."""
    k = int(labels.max()) + 1
    sums = np.zeros((k, vectors.shape[1]), np.float32)
    np.add.at(sums, labels, vectors * seconds[:, None])
    return sums, np.bincount(labels, seconds, k).astype(np.float32)


def unit(vectors: Floats) -> Floats:
    """Rows scaled to unit norm; zero rows stay zero."""
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, 1e-9), np.float32)


def agglomerate(
    vectors: Floats, seconds: Floats, model: SpeakerModel, bound: float, least: int, most: int
) -> Ints:
    """Merge the best pair while its score reaches `bound` (and there are more than `least`).

    Goes on below the bound while more than `most` clusters are left. Centroid linkage: the
    cluster is the sum of what was merged. (n, dim), (n,) -> labels (n,).
    """
    n = len(vectors)
    sums = unit(vectors) * seconds[:, None]
    totals = seconds.astype(np.float32).copy()
    labels = np.arange(n)
    alive = np.ones(n, bool)
    centres = unit(sums)
    scores = model.score(centres @ centres.T, totals[:, None], totals[None, :])
    np.fill_diagonal(scores, -np.inf)
    left = n
    while left > least:
        i, j = divmod(int(np.argmax(scores)), n)
        if scores[i, j] < bound and left <= most:
            break
        i, j = min(i, j), max(i, j)
        sums[i] += sums[j]
        totals[i] += totals[j]
        labels[labels == j] = i
        alive[j] = False
        centres[i] = sums[i] / max(float(np.linalg.norm(sums[i])), 1e-9)
        row = model.score(centres @ centres[i], totals, totals[i])
        row[~alive] = -np.inf
        row[i] = -np.inf
        scores[i], scores[:, i] = row, row
        scores[j], scores[:, j] = -np.inf, -np.inf
        left -= 1
    return _renumber(labels)


def _drop_mixtures(
    labels: Ints,
    vectors: Floats,
    seconds: Floats,
    model: SpeakerModel,
    mixture: float,
    least: int,
) -> Ints:
    """Dissolve small clusters that lie between two larger ones, the smallest first.

    Small is at most three units and a fifth of the speech. The correlation is that of the voice
    itself: what noise takes off in so few seconds is added.
    """
    labels = labels.copy()
    while True:
        labels = _renumber(labels)
        sums, totals = pooled(labels, vectors, seconds)
        if len(totals) <= max(least, 2):
            return labels
        centres = unit(sums)
        for small in np.argsort(totals, kind="stable"):
            larger = np.flatnonzero(totals > totals[small])
            few = totals[small] <= 0.2 * totals.sum() and (labels == small).sum() <= 3
            if len(larger) < 2 or not few:
                continue
            clarity = np.sqrt(totals[small] / (totals[small] + model.noise_s))
            if between(centres[small], centres[larger]) >= mixture * clarity:
                break
        else:
            return labels
        for i in np.flatnonzero(labels == small):
            near = centres @ unit(vectors[i])
            near[small] = -np.inf
            labels[i] = int(np.argmax(near))


def between(vector: Floats, centres: Floats) -> float:
    """Correlation of a unit vector with the best positive mixture of two unit centres.

    Zero where the mixture leaves one of the two out: then it is like one centre, not between two.
    """
    cosine = centres @ vector
    gram = centres @ centres.T
    best = 0.0
    for i in range(len(centres)):
        for j in range(i):
            r = min(float(gram[i, j]), 0.99)
            a = (cosine[i] - r * cosine[j]) / (1 - r * r)
            b = (cosine[j] - r * cosine[i]) / (1 - r * r)
            if min(a, b) > 0.4 * max(a, b) > 0:
                best = max(best, float(np.sqrt(max(a * cosine[i] + b * cosine[j], 0.0))))
    return best


def _drop_small(
    labels: Ints,
    vectors: Floats,
    seconds: Floats,
    model: SpeakerModel,
    smallest_s: float,
    least: int,
) -> Ints:
    """Dissolve clusters with too little speech to vouch for a speaker, the smallest first."""
    labels = labels.copy()
    while True:
        labels = _renumber(labels)
        sums, totals = pooled(labels, vectors, seconds)
        totals = totals * np.where(np.bincount(labels) == 1, 0.5, 1.0)  # nothing to agree with
        if len(totals) <= max(least, 1) or totals.min() >= smallest_s:
            return labels
        small = int(np.argmin(totals))
        centres = unit(sums)
        for i in np.flatnonzero(labels == small):
            near = centres @ unit(vectors[i])
            near[small] = -np.inf
            labels[i] = int(np.argmax(near))


def _reassign(labels: Ints, vectors: Floats, seconds: Floats, model: SpeakerModel) -> Ints:
    """Each unit to the nearest centre, its own share in the centre left out."""
    sums, _ = pooled(labels, vectors, seconds)
    better = labels.copy()
    units = unit(vectors)
    for i in range(len(labels)):
        others = sums.copy()
        others[labels[i]] -= vectors[i] * seconds[i]
        near = unit(others) @ units[i]
        if np.linalg.norm(others[labels[i]]) > 1e-6:
            better[i] = int(np.argmax(near))
    # A centre that lost all its units keeps the ones it had.
    for g in set(labels.tolist()) - set(better.tolist()):
        better[labels == g] = g
    return better


def _renumber(labels: Sequence[int] | Ints) -> Ints:
    """Labels from 0, in order of first appearance."""
    seen: dict[int, int] = {}
    return np.array([seen.setdefault(int(x), len(seen)) for x in labels], np.int64)


def label_units(
    centres: Floats,
    totals: Floats,
    vectors: Floats,
    seconds: Floats,
    clean: NDArray[np.bool_],
    chain_of: Ints,
    pairs: Sequence[tuple[int, int, float]],
    model: SpeakerModel,
    dims: float,
    switch: float,
    rivalry: float = 20.0,
    rounds: int = 3,
) -> Ints:
    """A speaker for each unit, by Viterbi along each chain: short units lean on neighbours.

    `centres` (speakers, dim) with their seconds; `pairs` as from `together`: units that are active
    at once are different people, and one that is never alone (not `clean`) is heard through the
    mixture, in which the other voice is known. `dims` independent dimensions turn scores into log
    likelihoods; `switch` is the cost of a change of speaker inside a chain, in nats.
    """
    units = unit(vectors)
    trust = np.where(clean, 1.0, 0.4)[:, None]
    cosine = units @ centres.T
    loud = np.asarray(
        dims * trust * model.score(cosine, seconds[:, None] * trust, totals[None, :]), np.float32
    )
    members = [np.flatnonzero(chain_of == c) for c in np.unique(chain_of)]
    labels = np.zeros(len(vectors), np.int64)
    for inside in members:
        labels[inside] = _viterbi(loud[inside], switch)
    rivals: dict[int, list[tuple[int, float]]] = {}
    for a, b, share in pairs:
        rivals.setdefault(a, []).append((b, share))
    # The surest chains first, so that the doubtful ones are decided against what is known.
    members.sort(key=lambda m: (-float((seconds[m] * clean[m]).sum()), int(m[0])))
    settled = np.zeros(len(vectors), bool)
    for _ in range(rounds):
        for inside in members:
            apart = loud[inside].copy()
            for row, i in enumerate(inside):
                for b, share in rivals.get(int(i), ()):
                    if settled[b] or clean[b]:
                        apart[row, labels[b]] -= share * rivalry
            labels[inside] = _viterbi(apart, switch)
            settled[inside] = True
    return labels


def _viterbi(loglik: Floats, switch: float) -> Ints:
    """Best path through (steps, states) where staying is free and any change costs `switch`."""
    steps, states = loglik.shape
    best = loglik[0].astype(np.float64)
    back = np.zeros((steps, states), np.int64)
    for t in range(1, steps):
        leader = int(np.argmax(best))
        stay = best >= best[leader] - switch
        back[t] = np.where(stay, np.arange(states), leader)
        best = np.where(stay, best, best[leader] - switch) + loglik[t]
    path = np.zeros(steps, np.int64)
    path[-1] = int(np.argmax(best))
    for t in range(steps - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path
