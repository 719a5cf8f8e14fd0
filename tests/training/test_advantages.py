from itertools import product

import numpy as np
import pytest
import torch

from reasoning_irl.config.schema import AdvantageBaseline, AdvantageCalculation
from reasoning_irl.training.advantages import (
    CALCULATIONS,
    advantages_with_expert,
    discounted_returns,
    group_statistics,
    leave_one_out,
    normalize_in_group,
    subtract_position_mean,
    token_advantages,
)

GAMMAS = (0.0, 0.9, 1.0)
SHAPES = [(1, 2, 1), (1, 4, 7), (3, 2, 12), (2, 5, 30)]  # groups, group size, tokens
FLOOR = 0.1


def random_case(n_groups: int, size: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards with garbage on the padding, and a mask of random lengths, one of them the full width."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (n_groups * size,), generator=rng)
    lengths[0] = width
    mask = (torch.arange(width)[None] < lengths[:, None]).long()
    rewards = 2 * torch.randn(n_groups * size, width, generator=rng) + 1
    return torch.where(mask.bool(), rewards, 77.0), mask


def rows_of_group(row: int, size: int) -> range:
    return range(row - row % size, row - row % size + size)


def loop_statistics(values: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    mean, std = np.zeros(len(values)), np.zeros(len(values))
    for row in range(len(values)):
        inside = [values[r, t] for r in rows_of_group(row, size) for t in range(values.shape[1]) if mask[r, t]]
        mean[row] = sum(inside) / len(inside)
        std[row] = (sum((x - mean[row]) ** 2 for x in inside) / len(inside)) ** 0.5
    return mean, std


def loop_returns(values: np.ndarray, mask: np.ndarray, gamma: float) -> np.ndarray:
    returns = np.zeros_like(values)
    for row, t in product(*map(range, values.shape)):
        if mask[row, t]:
            inside = [s for s in range(t, values.shape[1]) if mask[row, s]]
            returns[row, t] = sum(gamma ** (s - t) * values[row, s] for s in inside)
    return returns


def loop_position_mean(values: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    result = np.zeros_like(values)
    for row, t in product(*map(range, values.shape)):
        if mask[row, t]:
            group = rows_of_group(row, size)
            others = [values[r, t] for r in group if mask[r, t] and r != row]
            everything = [values[r, s] for r in group for s in range(values.shape[1]) if mask[r, s]]
            baseline = others or everything
            result[row, t] = values[row, t] - sum(baseline) / len(baseline)
    return result


def loop_advantages(
    values: np.ndarray,
    mask: np.ndarray,
    size: int,
    calculation: AdvantageCalculation,
    baseline: AdvantageBaseline,
    gamma: float,
) -> np.ndarray:
    trace_means = np.array(
        [sum(v for v, m in zip(vs, ms, strict=True) if m) / sum(ms) for vs, ms in zip(values, mask, strict=True)]
    )
    mean, std = loop_statistics(values, mask, size)
    centred = np.zeros_like(values)
    for row, t in product(*map(range, values.shape)):
        if not mask[row, t]:
            continue
        group = [trace_means[r] for r in rows_of_group(row, size)]
        if calculation == AdvantageCalculation.trace_mean:
            centred[row, t] = (trace_means[row] - np.mean(group)) / max(np.std(group), FLOOR)
        elif calculation == AdvantageCalculation.grpo:
            centred[row, t] = (values[row, t] - mean[row]) / max(std[row], FLOOR)
        else:
            others = [trace_means[r] for r in rows_of_group(row, size) if r != row]
            centred[row, t] = (values[row, t] - sum(others) / len(others)) / max(std[row], FLOOR)
    if calculation == AdvantageCalculation.trace_mean:
        return centred
    returns = loop_returns(centred, mask, gamma)
    return loop_position_mean(returns, mask, size) if baseline == AdvantageBaseline.position else returns


def as_arrays(rewards: torch.Tensor, mask: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    return rewards.double().numpy(), mask.numpy()


def assert_close(actual: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(actual.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


def test_every_calculation_has_a_row() -> None:
    assert set(CALCULATIONS) == set(AdvantageCalculation)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_returns_match_a_double_loop(shape: tuple[int, int, int], gamma: float) -> None:
    rewards, mask = random_case(*shape, seed=1)
    assert_close(discounted_returns(rewards, mask, gamma), loop_returns(*as_arrays(rewards, mask), gamma))


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_and_normalisation_match_a_double_loop(shape: tuple[int, int, int]) -> None:
    rewards, mask = random_case(*shape, seed=2)
    values, inside = as_arrays(rewards, mask)
    mean, std = loop_statistics(values, inside, shape[1])
    got_mean, got_std = group_statistics(rewards, mask, shape[1])
    assert_close(got_mean[:, 0], mean)
    assert_close(got_std[:, 0], std)
    expected = (values - mean[:, None]) / np.maximum(std, FLOOR)[:, None] * inside
    assert_close(normalize_in_group(rewards, mask, shape[1], FLOOR), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_position_mean_matches_a_double_loop(shape: tuple[int, int, int]) -> None:
    """Trap: counting finished traces as 0 in the baseline of a position."""
    rewards, mask = random_case(*shape, seed=3)
    assert_close(
        subtract_position_mean(rewards, mask, shape[1]), loop_position_mean(*as_arrays(rewards, mask), shape[1])
    )


def test_position_mean_by_hand() -> None:
    values = torch.tensor([[1.0, 5.0, 9.0], [3.0, 7.0, 77.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    # Only the first row reaches position 3, where the baseline is the mean of the group: (1 + 5 + 9 + 3 + 7) / 5.
    expected = torch.tensor([[-2.0, -2.0, 4.0], [2.0, 2.0, 0.0]])
    torch.testing.assert_close(subtract_position_mean(values, mask, 2), expected)


def test_leave_one_out_by_hand() -> None:
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2; then a group of equal rewards.
    rewards = torch.tensor([1.0, 2.0, 6.0, 4.0, 4.0, 4.0])
    torch.testing.assert_close(leave_one_out(rewards, 3), torch.tensor([-3.0, -1.5, 4.5, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("calculation", list(AdvantageCalculation))
@pytest.mark.parametrize("baseline", list(AdvantageBaseline))
@pytest.mark.parametrize("gamma", GAMMAS)
def test_advantages_match_a_double_loop(
    shape: tuple[int, int, int], calculation: AdvantageCalculation, baseline: AdvantageBaseline, gamma: float
) -> None:
    """Trap: statistics of the last token only, of other groups, or of padding (which is 77 here)."""
    rewards, mask = random_case(*shape, seed=4)
    actual = token_advantages(rewards, mask, shape[1], calculation, baseline, gamma, FLOOR)
    assert_close(actual, loop_advantages(*as_arrays(rewards, mask), shape[1], calculation, baseline, gamma))
    assert not actual[mask == 0].any()


def test_long_traces_stay_finite() -> None:
    """Trap: dividing by gamma**t, which is 0 in float32 from t = 150 for gamma = 0.5."""
    rewards, mask = torch.ones(2, 1000), torch.ones(2, 1000)
    mask[1, 700:] = 0
    returns = discounted_returns(rewards, mask, 0.5)
    # The sum of 1 / 2**k is 2, except for the part after the end.
    torch.testing.assert_close(returns[0, :900], torch.full((900,), 2.0))
    assert returns[0, -1] == 1
    assert returns[1, 699] == 1
    rewards = torch.randn(4, 1000)
    for calculation in AdvantageCalculation:
        advantages = token_advantages(rewards, torch.ones(4, 1000), 2, calculation, AdvantageBaseline.group, 0.5, FLOOR)
        assert advantages.isfinite().all()


@pytest.mark.parametrize("calculation", list(AdvantageCalculation))
@pytest.mark.parametrize("baseline", list(AdvantageBaseline))
def test_equal_rewards_give_no_advantage_at_any_length(
    calculation: AdvantageCalculation, baseline: AdvantageBaseline
) -> None:
    """Trap: returns that grow with length. A constant reward, once centred, favours no trace."""
    _, mask = random_case(2, 4, 50, seed=5)
    advantages = token_advantages(torch.full((8, 50), 3.0), mask, 4, calculation, baseline, 1.0, FLOOR)
    assert advantages.abs().max().item() < 1e-3


def test_std_floor_keeps_noise_small() -> None:
    """Trap: tiny differences scaled to unit variance; 1e-4 over a floor of 0.1 stays 1e-3."""
    rewards = torch.tensor([[1e-4], [-1e-4]])
    for calculation in (AdvantageCalculation.grpo, AdvantageCalculation.trace_mean):
        advantages = token_advantages(rewards, torch.ones(2, 1), 2, calculation, AdvantageBaseline.group, 0.9, FLOOR)
        torch.testing.assert_close(advantages, torch.tensor([[1e-3], [-1e-3]]))
    # Above the floor, the standard deviation divides: +-1.
    wide = token_advantages(
        rewards * 1e4, torch.ones(2, 1), 2, AdvantageCalculation.grpo, AdvantageBaseline.group, 0.9, FLOOR
    )
    torch.testing.assert_close(wide, torch.tensor([[1.0], [-1.0]]))


def test_groups_do_not_affect_each_other() -> None:
    rewards, mask = random_case(2, 3, 8, seed=6)
    changed = rewards.clone()
    changed[3:] += 5 * torch.randn(3, 8)
    for calculation, baseline in product(AdvantageCalculation, AdvantageBaseline):
        before, after = (
            token_advantages(r, mask, 3, calculation, baseline, 0.9, FLOOR)[:3] for r in (rewards, changed)
        )
        assert torch.equal(before, after)


@pytest.mark.parametrize("calculation", list(AdvantageCalculation))
def test_without_a_floor_rewards_are_only_centred(calculation: AdvantageCalculation) -> None:
    rewards, mask = torch.randn(6, 5), torch.ones(6, 5)
    arguments = (mask, 3, calculation, AdvantageBaseline.group, 0.9)
    plain = token_advantages(rewards, *arguments, std_floor=None)
    torch.testing.assert_close(token_advantages(7 * rewards, *arguments, std_floor=None), 7 * plain)
    # A floor above every standard deviation is a constant divisor.
    huge = token_advantages(rewards, *arguments, std_floor=100.0)
    torch.testing.assert_close(100 * huge, plain)


@pytest.mark.parametrize("calculation", list(AdvantageCalculation))
@pytest.mark.parametrize("baseline", list(AdvantageBaseline))
def test_expert_in_the_group_neither_changes_the_samples_nor_dominates(
    calculation: AdvantageCalculation, baseline: AdvantageBaseline
) -> None:
    """Trap: an expert whose reward is far above turns most of the samples' advantages negative."""
    rewards, mask = torch.randn(10, 7), torch.ones(10, 7)
    mask[0, 4:] = mask[4, 2:] = 0
    rewards[4] += 50
    rewards[9] -= 50
    how = (calculation, baseline, 0.9, FLOOR)
    advantages = advantages_with_expert(rewards, mask, 5, *how)
    is_expert = torch.tensor([False] * 4 + [True] + [False] * 4 + [True])
    torch.testing.assert_close(advantages[~is_expert], token_advantages(rewards[~is_expert], mask[~is_expert], 4, *how))
    assert (advantages * (1 - mask) == 0).all()
    for group in (advantages[:5], advantages[5:]):
        assert group[-1].abs().max() == pytest.approx(group[:-1].abs().max().item())
    assert (advantages[4, :2] > 0).all()
    assert (advantages[9] < 0).all()
