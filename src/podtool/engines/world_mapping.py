"""One person's mel-cepstra moved onto another's: optimal transport between Gaussians, by class.

First the whole clouds of frames with their neighbours (voiced and unvoiced apart) are matched by
the Monge-Kantorovich map: it gives them the target's mean and covariance, and is the linear map
that moves frames least, and so keeps the words. Then, a
few times over, the same is done softly within the classes of a Gaussian mixture fitted to the
target, each class shrunk towards "no change" where either side has few frames. Sources:
G. Peyre, M. Cuturi, "Computational Optimal Transport", 2019, section 2.6 (the map);
J. Delon, A. Desolneux, "A Wasserstein-type distance in the space of Gaussian mixture models",
SIAM J. Imaging Sci. 13(2), 2020 (mixtures); Y. Stylianou, O. Cappe, E. Moulines, IEEE Trans.
Speech Audio Process. 6(2), 1998, and T. Toda, A. Black, K. Tokuda, IEEE TASLP 15(8), 2007 (soft
class-wise conversion); D. Erro, A. Moreno, A. Bonafonte, "INCA algorithm", IEEE TASLP 18(5), 2010
(alternating matching and mapping without parallel sentences).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from podtool.engines.world_frames import smooth

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Step = Callable[[Floats], Floats]
FEWEST = 100  # frames (0.5 s) on either side, below which a cloud is not matched at all


@dataclass(frozen=True, slots=True)
class MappingParams:
    """Settings of the map; `voice_world.ConvertParams` explains those that a user may change."""

    classes: int = 8
    classes_unvoiced: int = 4
    rounds: int = 3
    strength: float = 1.0  # the change is multiplied by this
    context_frames: int = 4  # the first map sees frames 20 ms before and after
    ridge: float = 0.1  # share of each variance added to it: bounds what a map may amplify
    class_dims: int = 16  # cepstra 1 to 16 tell the classes; the finer ones are the speaker's
    softness: float = 0.6  # power of the likelihoods in the posteriors
    mean_frames: float = 100.0  # weight, in frames, of "no change" for a class's mean
    covariance_frames: float = 300.0  # and for its covariance
    posterior_frames: int = 9  # posteriors are smoothed over this many frames


def transport(source: Floats, target: Floats) -> Floats:
    """(d, d) symmetric A with A source A' = target: Monge-Kantorovich for two covariances."""
    root, inverse = _roots(source)
    middle, _ = _roots(root @ target @ root)
    return np.asarray(inverse @ middle @ inverse)


def _roots(matrix: Floats) -> tuple[Floats, Floats]:
    values, vectors = np.linalg.eigh(matrix)
    values = np.maximum(values, 1e-9)
    return (vectors * np.sqrt(values)) @ vectors.T, (vectors / np.sqrt(values)) @ vectors.T


def covariance(x: Floats, ridge: float) -> Floats:
    """(n, d) -> (d, d), each variance raised by the share `ridge`."""
    found = np.atleast_2d(np.cov(x.T))
    return np.asarray(found + ridge * np.diag(np.diag(found)))


def fit(
    source: Floats,
    target: Floats,
    in_source: Mask,
    in_target: Mask,
    params: MappingParams,
    classes: int,
) -> list[Step]:
    """Steps that move source cepstra onto target cepstra, to be applied in turn to frames in order.

    source (n, d) and target (m, d) are frames in order of time, the masks say which of them count.
    """
    a, b = source[in_source], target[in_target]
    if min(len(a), len(b)) < FEWEST:
        return [_shift(a, b)] if min(len(a), len(b)) else []
    steps = [_in_context(source, target, in_source, in_target, params)]
    moved = steps[0](source)[in_source]
    for round_ in range(params.rounds):
        for make in (_by_class, _whole):
            step = make(moved, b, params, classes, round_)
            moved = step(moved)
            steps.append(step)
    if not params.rounds:
        steps.append(_whole(moved, b, params, classes, 0))
    return steps


def apply(steps: Sequence[Step], x: Floats) -> Floats:
    """All steps in turn on (n, d)."""
    for step in steps:
        x = step(x)
    return x


def _shift(source: Floats, target: Floats) -> Step:
    by = (target.mean(axis=0) - source.mean(axis=0)) * min(1.0, len(target) / FEWEST)
    return lambda x: x + by


def stacked(x: Floats, reach: int) -> Floats:
    """(n, d) -> (n, 3 d): each frame with those `reach` before and after, the ends repeated."""
    if not reach or not len(x):
        return x
    before = np.concatenate([np.repeat(x[:1], reach, axis=0), x])[: len(x)]
    after = np.concatenate([x, np.repeat(x[-1:], reach, axis=0)])[-len(x) :]
    return np.hstack([x, before, after])


def _in_context(
    source: Floats, target: Floats, in_source: Mask, in_target: Mask, params: MappingParams
) -> Step:
    """Transport of frames with their neighbours: how sounds move is matched too."""
    d, reach = source.shape[1], params.context_frames
    x, y = stacked(source, reach)[in_source], stacked(target, reach)[in_target]
    a, b = x.mean(axis=0), y.mean(axis=0)[:d]
    matrix = transport(covariance(x, params.ridge), covariance(y, params.ridge))[:d]
    return lambda z: (stacked(z, reach) - a) @ matrix.T + b


def _whole(source: Floats, target: Floats, params: MappingParams, classes: int, seed: int) -> Step:
    """Transport of the whole cloud."""
    a, b = source.mean(axis=0), target.mean(axis=0)
    matrix = transport(covariance(source, params.ridge), covariance(target, params.ridge))
    return lambda x: (x - a) @ matrix.T + b


def _by_class(
    source: Floats, target: Floats, params: MappingParams, classes: int, seed: int
) -> Step:
    """Class-wise transport; the mixture is the target's, the posteriors are soft and smooth."""
    dims = slice(1, 1 + params.class_dims)
    mixture = Mixture.fit(target[:, dims], classes, seed)
    in_target = mixture.posteriors(target[:, dims], params.softness)
    in_source = mixture.posteriors(source[:, dims], params.softness)
    overall = covariance(target, 0.1)
    floor = 0.03 * np.diag(np.diag(overall))
    maps = []
    for k in range(classes):
        ws, wt = in_source[:, k], in_target[:, k]
        prior = (ws @ source + wt @ target) / (ws.sum() + wt.sum() + 1e-9)
        a, b = _mean(ws, source, prior, params), _mean(wt, target, prior, params)
        common = 0.3 * overall
        matrix = transport(
            _spread(ws, source - a, common, params) + floor,
            _spread(wt, target - b, common, params) + floor,
        )
        maps.append((a, b, matrix))

    def step(x: Floats) -> Floats:
        weights = smooth(mixture.posteriors(x[:, dims], params.softness), params.posterior_frames)
        out = np.zeros_like(x)
        for k, (a, b, matrix) in enumerate(maps):
            out += weights[:, k : k + 1] * ((x - a) @ matrix.T + b)
        return out

    return step


def _mean(weights: Floats, x: Floats, prior: Floats, params: MappingParams) -> Floats:
    strength = params.mean_frames
    return np.asarray((weights @ x + strength * prior) / (weights.sum() + strength))


def _spread(weights: Floats, x: Floats, prior: Floats, params: MappingParams) -> Floats:
    strength = params.covariance_frames
    scatter = (x * weights[:, None]).T @ x
    return np.asarray((scatter + strength * prior) / (weights.sum() + strength))


@dataclass(frozen=True, slots=True)
class Mixture:
    """A Gaussian mixture with diagonal covariances: means and variances (k, d), weights (k,)."""

    means: Floats
    variances: Floats
    weights: Floats

    @classmethod
    def fit(cls, x: Floats, classes: int, seed: int, rounds: int = 10) -> Mixture:
        """k-means from seeded frames, then EM with a variance floor (a tenth of the whole)."""
        rng = np.random.default_rng(seed)
        means = x[rng.choice(len(x), classes, replace=False)].copy()
        for _ in range(15):
            distance = (means**2).sum(axis=1) - 2 * x @ means.T
            nearest = distance.argmin(axis=1)
            for k in range(classes):
                mine = nearest == k
                if mine.sum() > 5:
                    means[k] = x[mine].mean(axis=0)
        whole = x.var(axis=0)
        mixture = cls(means, np.tile(whole, (classes, 1)), np.full(classes, 1.0 / classes))
        for _ in range(rounds):
            p = mixture.posteriors(x, 1.0)
            n = p.sum(axis=0) + 1e-6
            means = (p.T @ x) / n[:, None]
            variances = (p.T @ x**2) / n[:, None] - means**2 + 0.1 * whole
            mixture = cls(means, np.maximum(variances, 1e-6), n / n.sum())
        return mixture

    def posteriors(self, x: Floats, softness: float) -> Floats:
        """(n, d) -> (n, k) shares of the classes, likelihoods raised to the power `softness`."""
        log = -0.5 * (
            x**2 @ (1 / self.variances).T
            - 2 * x @ (self.means / self.variances).T
            + (self.means**2 / self.variances + np.log(self.variances)).sum(axis=1)
        )
        log = softness * (log + np.log(self.weights))
        log -= log.max(axis=1, keepdims=True)
        p = np.exp(log)
        return np.asarray(p / p.sum(axis=1, keepdims=True))
