"""Losses of separators, in dB, and the score that tells how well one does.

Every talker's signal-to-noise ratio under the best assignment of outputs to talkers (permutation
invariant training, Kolbaek et al., 2017), soft-limited so that solved scenes do not drown unsolved
ones, and a level for outputs that ought to be silent (Wisdom et al., 2021). It is not scale
invariant in training: outputs have to sum to the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor
from torch.nn.functional import pad

TINY = 1e-8


@dataclass(frozen=True, slots=True)
class LossParams:
    """The recipe's [loss] table."""

    limit_db: float = 30.0  # an output better than this is as good as perfect
    residual: float = 0.3  # weight of what is left of the mixture, beside the talkers
    spectral: float = 10.0  # weight of the distance of compressed magnitudes
    window: int = 512  # of those, in samples
    grouping: float = 0.0  # weight of the affinity of bands that one voice leads, in training

    def __post_init__(self) -> None:
        if self.window < 16:
            raise ValueError("window is at least 16 samples")


def loss(
    estimate: Tensor,
    truth: Tensor,
    mixture: Tensor,
    background: Tensor,
    counts: Tensor,
    params: LossParams,
) -> Tensor:
    """Mean loss of (batch, talkers, n) estimates; the first `counts` rows of truth are talkers."""
    pairs = _pair_loss(estimate, truth, mixture, params.limit_db)
    value, order = assign(pairs, counts)
    total = value.mean()
    if params.residual:
        rest = mixture - estimate.sum(1)
        error = _distance(rest, background, mixture, params.limit_db)
        total = total + params.residual * error.mean()
    if params.spectral:
        chosen = torch.gather(estimate, 1, order[..., None].expand_as(estimate))
        level = mixture.square().mean(-1, keepdim=True).sqrt()[:, None] + TINY
        a, b = (_magnitudes(x / level, params.window) for x in (chosen, truth))
        present = torch.arange(truth.shape[1], device=counts.device) < counts[:, None]
        distance = (a - b).abs().mean((-1, -2)) * present
        total = total + params.spectral * distance.sum() / present.sum().clamp(min=1)
    return total


def grouping(groups: Tensor, powers: Tensor) -> Tensor:
    """How badly embeddings (b, t, k, d) of bands group by talker, 0 to 1 (mean of the batch).

    `powers`: (b, talkers, t, k) of each talker in each band. Deep clustering (Hershey et al., 2016)
    with soft memberships, louder bands weighing more: a signal that training has from the first
    step, when permutation invariant outputs are still all alike.
    """
    total = powers.sum(1)
    member = (powers / (total[:, None] + TINY)).flatten(2).transpose(1, 2)
    weight = (total / (total.amax((1, 2), keepdim=True) + TINY)).clamp(min=1e-5) ** 0.25
    weight = (weight - 0.06).clamp(min=0).flatten(1)[..., None]
    v, y = groups.flatten(1, 2) * weight.sqrt(), member * weight.sqrt()

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a.transpose(1, 2) @ b).square().sum((1, 2))

    value = inner(v, v) - 2 * inner(v, y) + inner(y, y)
    return (value / (weight.sum((1, 2)).square() + TINY)).mean()


def assign(pairs: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Best assignment for (batch, outputs, talkers) losses: mean loss of the talkers, and order.

    `order[b, j]` is the output of talker j. Places from `counts` on keep their own output.
    """
    batch, places, _ = pairs.shape
    talker = torch.arange(places, device=pairs.device)
    present = talker < counts[:, None]
    best = torch.full((batch,), torch.inf, device=pairs.device)
    order = talker.expand(batch, places).clone()
    for permutation in permutations(range(places)):
        outputs = torch.tensor(permutation, device=pairs.device)
        allowed = ((outputs == talker) | present).all(1) & (
            (outputs[None] < counts[:, None]) | ~present
        ).all(1)
        value = (pairs[:, outputs, talker] * present).sum(1) / counts.clamp(min=1)
        better = allowed & (value < best)
        best = torch.where(better, value, best)
        order = torch.where(better[:, None], outputs, order)
    return best, order


def si_sdr(estimate: Tensor, truth: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio over the last axis, dB (Le Roux et al., 2019)."""
    scale = (estimate * truth).sum(-1, keepdim=True) / (truth.square().sum(-1, keepdim=True) + TINY)
    target = scale * truth
    error = (estimate - target).square().sum(-1)
    return 10 * torch.log10((target.square().sum(-1) + TINY) / (error + TINY))


def _pair_loss(estimate: Tensor, truth: Tensor, mixture: Tensor, limit_db: float) -> Tensor:
    """(batch, outputs, talkers): what each output would cost as each talker."""
    return _distance(estimate[:, :, None], truth[:, None], mixture[:, None, None], limit_db)


def _distance(estimate: Tensor, truth: Tensor, mixture: Tensor, limit_db: float) -> Tensor:
    """Negative signal-to-noise ratio in dB; for a silent truth, the level under the mixture."""
    floor = 10 ** (-limit_db / 10)
    error = (estimate - truth).square().sum(-1)
    power = truth.square().sum(-1)
    whole = mixture.square().sum(-1) + TINY
    silent = power < 1e-5 * whole
    reference = torch.where(silent, whole, power + TINY)
    return 10 * torch.log10(error / reference + floor)


def _magnitudes(x: Tensor, window: int) -> Tensor:
    frames = pad(x, (0, -x.shape[-1] % (window // 2))).unfold(-1, window, window // 2)
    shape = torch.hann_window(window, device=x.device)
    power = torch.view_as_real(torch.fft.rfft(frames * shape)).square().sum(-1)
    return (power + 1e-6) ** 0.15
