"""From token rewards to token advantages, as pure functions of (B, T) float32 tensors.

`rewards` and `mask` are (B, T) with B = N * G: the G traces of a prompt are in consecutive rows, and the mask is 1 on
a completion's own tokens.

To add a calculation, add its name to `config.schema.AdvantageCalculation`, and its function and a row of CALCULATIONS
here.
"""

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor

from reasoning_irl.config.schema import AdvantageBaseline, AdvantageCalculation
from reasoning_irl.training.losses import masked_mean


def discounted_returns(rewards: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """(B, T) return-to-go R_t = r_t + gamma * R_{t+1}, by a reverse scan: no division by gamma**t."""
    running = torch.zeros_like(rewards[:, 0])
    returns = torch.zeros_like(rewards)
    for t in range(rewards.size(1) - 1, -1, -1):
        running = (rewards[:, t] + gamma * running) * mask[:, t]
        returns[:, t] = running
    return returns


def group_statistics(values: Tensor, mask: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all tokens of a group, each (B, 1)."""
    grouped, weight = _grouped(values, group_size), _grouped(mask, group_size)
    count = weight.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (grouped * weight).sum((1, 2), keepdim=True) / count
    variance = (((grouped - mean) * weight) ** 2).sum((1, 2), keepdim=True) / count
    return tuple(x[:, 0].repeat_interleave(group_size, dim=0) for x in (mean, variance.sqrt()))  # type: ignore[return-value]


def scale(std: Tensor, std_floor: float | None) -> Tensor:
    """The divisor of centred values: the standard deviation, or the floor if that is larger; 1 without a floor.

    The floor keeps noise small. Not dividing keeps easy and hard prompts on one scale, as in Dr. GRPO (Liu et al. 2025,
    arXiv 2503.20783).
    """
    return torch.ones_like(std) if std_floor is None else std.clamp(min=std_floor)


def normalize_in_group(values: Tensor, mask: Tensor, group_size: int, std_floor: float | None) -> Tensor:
    """(B, T) values minus the group's mean, divided by `scale` of its standard deviation."""
    mean, std = group_statistics(values, mask, group_size)
    return (values - mean) / scale(std, std_floor) * mask


def subtract_position_mean(values: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """(B, T) values minus the mean at the same position of the group's other traces that are long enough.

    If no other trace is, minus the group's mean over all tokens: the longest trace would otherwise be its own baseline,
    and its tail never rewarded or punished.
    """
    grouped, weight = _grouped(values, group_size), _grouped(mask, group_size)
    count = weight.sum(1, keepdim=True) - weight  # (N, G, T) other traces that reach the position
    others = ((grouped * weight).sum(1, keepdim=True) - grouped * weight) / count.clamp(min=1)
    overall = (grouped * weight).sum((1, 2), keepdim=True) / weight.sum((1, 2), keepdim=True).clamp(min=1)
    mean = torch.where(count > 0, others, overall)
    return ((grouped - mean) * weight).reshape_as(values)


def leave_one_out(trace_rewards: Tensor, group_size: int) -> Tensor:
    """(B,) each trace's reward minus the mean of the other traces of its group (as in PRIME, Cui et al. 2025)."""
    grouped = trace_rewards.view(-1, group_size)
    others = (grouped.sum(1, keepdim=True) - grouped) / (group_size - 1)
    return (grouped - others).reshape(-1)


def subtract_baseline(returns: Tensor, mask: Tensor, group_size: int, baseline: AdvantageBaseline) -> Tensor:
    """(B, T) returns minus a baseline that knows the position, if one is asked for.

    `group` subtracts nothing: the rewards are centred on the group already.
    """
    match baseline:
        case AdvantageBaseline.group:
            return returns
        case AdvantageBaseline.position:
            return subtract_position_mean(returns, mask, group_size)
        case _:
            assert_never(baseline)


def grpo_advantages(
    rewards: Tensor, mask: Tensor, group_size: int, baseline: AdvantageBaseline, gamma: float, std_floor: float | None
) -> Tensor:
    """Rewards normalised over the group's tokens, then the discounted return-to-go (arXiv 2510.01857).

    Centred first, so that returns do not grow with length.
    """
    centred = normalize_in_group(rewards, mask, group_size, std_floor)
    return subtract_baseline(discounted_returns(centred, mask, gamma), mask, group_size, baseline)


def prime_advantages(
    rewards: Tensor, mask: Tensor, group_size: int, baseline: AdvantageBaseline, gamma: float, std_floor: float | None
) -> Tensor:
    """The return-to-go of r_t minus the mean token reward of the other traces of the group (Cui et al. 2025)."""
    means = masked_mean(rewards, mask)
    mean_of_others = means - leave_one_out(means, group_size)
    _, std = group_statistics(rewards, mask, group_size)
    centred = (rewards - mean_of_others[:, None]) / scale(std, std_floor) * mask
    return subtract_baseline(discounted_returns(centred, mask, gamma), mask, group_size, baseline)


def trace_mean_advantages(
    rewards: Tensor,
    mask: Tensor,
    group_size: int,
    baseline: AdvantageBaseline,  # noqa: ARG001 (one value per trace has no positions)
    gamma: float,  # noqa: ARG001 (nor a return-to-go)
    std_floor: float | None,
) -> Tensor:
    """Each trace's mean token reward, normalised over the group, at all its tokens."""
    means = masked_mean(rewards, mask)
    grouped = means.view(-1, group_size)
    centred = grouped - grouped.mean(1, keepdim=True)
    scaled = centred / scale(grouped.std(1, correction=0, keepdim=True), std_floor)
    return scaled.reshape(-1, 1) * mask


Calculation = Callable[[Tensor, Tensor, int, AdvantageBaseline, float, float | None], Tensor]
CALCULATIONS: dict[AdvantageCalculation, Calculation] = {
    AdvantageCalculation.grpo: grpo_advantages,
    AdvantageCalculation.prime: prime_advantages,
    AdvantageCalculation.trace_mean: trace_mean_advantages,
}


def token_advantages(
    rewards: Tensor,
    mask: Tensor,
    group_size: int,
    calculation: AdvantageCalculation,
    baseline: AdvantageBaseline,
    gamma: float,
    std_floor: float | None,
) -> Tensor:
    """(B, T) advantages, 0 outside the mask. Without `std_floor`, rewards are centred but not scaled."""
    return CALCULATIONS[calculation](rewards.float(), mask.float(), group_size, baseline, gamma, std_floor)


def advantages_with_expert(
    rewards: Tensor,
    mask: Tensor,
    group_size: int,
    calculation: AdvantageCalculation,
    baseline: AdvantageBaseline,
    gamma: float,
    std_floor: float | None,
) -> Tensor:
    """(B, T) advantages of groups whose last row is an expert's trace.

    The samples' advantages are those without the expert, whose high reward would turn most of them negative. The
    expert's are computed among all rows, and are at most as large as the largest of the group's samples, so that one
    row that the policy did not sample does not dominate the gradient (a cap, as LUFFY's shaping is; Yan et al. 2025,
    arXiv 2504.14945).
    """
    how = (calculation, baseline, gamma, std_floor)
    is_sample = torch.arange(len(rewards), device=rewards.device) % group_size < group_size - 1
    advantages = token_advantages(rewards, mask, group_size, *how)
    advantages[is_sample] = token_advantages(rewards[is_sample], mask[is_sample], group_size - 1, *how)
    largest = _grouped(advantages, group_size)[:, :-1].abs().amax((1, 2))[:, None]  # (N, 1)
    advantages[~is_sample] = advantages[~is_sample].clamp(-largest, largest)
    return advantages


def _grouped(values: Tensor, group_size: int) -> Tensor:  # (N, G, T)
    return values.view(-1, group_size, values.size(1))
