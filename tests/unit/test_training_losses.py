"""Losses against brute force and against another implementation; gradients stay finite."""

from __future__ import annotations

from itertools import permutations

import fast_bss_eval
import numpy as np
import pytest
import torch

from podtool.training.losses import LossParams, assign, grouping, loss, si_sdr

PARAMS = LossParams(window=64)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_assignment_is_the_best_of_all(count: int) -> None:
    pairs = noise(20, 3, 3)
    value, order = assign(pairs, torch.full((20,), count))
    for b in range(20):
        means = {
            p: np.mean([float(pairs[b, p[j], j]) for j in range(count)]) if count else 0.0
            for p in permutations(range(count))
        }
        best = min(means, key=means.__getitem__)
        assert float(value[b]) == pytest.approx(means[best], abs=1e-6)
        assert tuple(order[b].tolist()) == (*best, *range(count, 3))


def test_counts_may_differ_within_a_batch() -> None:
    pairs = noise(3, 3, 3, seed=4)
    counts = torch.tensor([3, 1, 2])
    value, order = assign(pairs, counts)
    for b in range(3):
        alone, its_order = assign(pairs[b : b + 1], counts[b : b + 1])
        assert value[b] == alone[0] and order[b].tolist() == its_order[0].tolist()


def test_si_sdr_is_that_of_fast_bss_eval() -> None:
    truth = noise(3, 8000)
    estimate = 0.3 * truth + 0.1 * noise(3, 8000, seed=1)
    other = fast_bss_eval.si_sdr(truth[:, None], estimate[:, None])
    assert torch.allclose(si_sdr(estimate, truth), other[:, 0], atol=1e-3)


def scene(count: int, n: int = 1600) -> tuple[torch.Tensor, ...]:
    """talkers (1, 3, n), mixture, background, counts."""
    talkers = noise(1, 3, n) * (torch.arange(3) < count)[None, :, None]
    background = 0.1 * noise(1, n, seed=2)
    return talkers, talkers.sum(1) + background, background, torch.tensor([count])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_truth_in_any_order_is_as_good_as_the_limit_allows(count: int) -> None:
    talkers, mixture, background, counts = scene(count)
    for order in permutations(range(count)):
        found = talkers[:, [*order, *range(count, 3)]]
        value = loss(found, talkers, mixture, background, counts, PARAMS)
        assert float(value) == pytest.approx(-PARAMS.limit_db * (1 + PARAMS.residual), abs=1e-2)


def test_better_estimates_cost_less_and_levels_count() -> None:
    talkers, mixture, background, counts = scene(2)
    hiss = noise(1, 3, 1600, seed=3) * (torch.arange(3) < 2)[None, :, None]
    given = (talkers, mixture, background, counts, PARAMS)
    near, far = (float(loss(talkers + k * hiss, *given)) for k in (0.05, 0.5))
    halved = float(loss(0.5 * talkers, *given))  # which SI-SDR would not mind
    assert near < halved - 5 and near < far - 5


def test_an_output_for_a_silent_truth_is_held_down() -> None:
    talkers, mixture, background, counts = scene(2)
    talkers[:, 1] = 0
    mixture = talkers.sum(1) + background
    given = (talkers, mixture, background, counts, PARAMS)
    leak = mixture[:, None] * torch.tensor([0.0, 1.0, 0.0])[None, :, None]
    values = [float(loss(talkers + share * leak, *given)) for share in (0.0, 0.01, 0.1, 1.0)]
    assert values == sorted(values) and values[-1] > values[0] + 10


@pytest.mark.parametrize("truth", ["silent", "sound"])
@pytest.mark.parametrize("estimate", ["silent", "sound"])
@pytest.mark.parametrize("mixture", ["silent", "sound"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_gradients_are_finite(truth: str, estimate: str, mixture: str, count: int) -> None:
    talkers, mixed, background, counts = scene(count)
    found = noise(1, 3, 1600, seed=5) * float(estimate == "sound")
    found.requires_grad_()
    value = loss(
        found * (torch.arange(3) < count)[None, :, None],
        talkers * float(truth == "sound"),
        mixed * float(mixture == "sound"),
        background * float(mixture == "sound"),
        counts,
        PARAMS,
    )
    value.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(value) and found.grad is not None and torch.isfinite(found.grad).all()


def test_the_level_of_a_scene_does_not_change_its_loss() -> None:
    talkers, mixture, background, counts = scene(2)
    found = talkers + 0.2 * noise(1, 3, 1600, seed=6) * (torch.arange(3) < 2)[None, :, None]
    loud = loss(found, talkers, mixture, background, counts, PARAMS)
    quiet = loss(found / 50, talkers / 50, mixture / 50, background / 50, counts, PARAMS)
    assert float(quiet) == pytest.approx(float(loud), abs=0.05)


def test_grouping_is_zero_where_bands_of_one_voice_are_alike_and_others_orthogonal() -> None:
    torch.manual_seed(0)
    leader = torch.randint(0, 2, (1, 20, 6))
    powers = torch.nn.functional.one_hot(leader, 2).permute(0, 3, 1, 2).float()
    right = torch.nn.functional.one_hot(leader, 16).float()
    assert float(grouping(right, powers)) == pytest.approx(0.0, abs=1e-5)
    swapped = torch.nn.functional.one_hot(1 - leader, 16).float()
    assert float(grouping(swapped, powers)) == pytest.approx(0.0, abs=1e-5)
    one = torch.zeros_like(right)
    one[..., 0] = 1
    assert float(grouping(one, powers)) > 0.3


def test_grouping_does_not_ask_quiet_bands() -> None:
    powers = torch.ones(1, 2, 10, 2)
    powers[:, 1] = 0
    powers[:, :, :, 1] = torch.tensor([0.0, 1e-6])[None, :, None]  # another voice, 60 dB down
    groups = torch.zeros(1, 10, 2, 16)
    groups[..., 0] = 1
    assert float(grouping(groups, powers)) == pytest.approx(0.0, abs=1e-5)
