"""From token rewards to token advantages: pure functions on (B, T) float32, rows ordered in groups of G.

`rewards` and `mask` are (B, T) with B = N * G, the G traces of a prompt in consecutive rows; the mask is 1 on a
completion's own tokens. Nothing here knows of models or of the sign of a loss.
"""

import torch
from torch import Tensor

from reasoning_irl.config.schema import AdvantageBaseline, AdvantageCalculation


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
    """What centred values are divided by: the deviation, with a floor that keeps noise small; 1 without a floor.

    Leaving the division out keeps easy and hard prompts on one scale, as in Dr. GRPO (Liu et al. 2025,
    arXiv 2503.20783).
    """
    return torch.ones_like(std) if std_floor is None else std.clamp(min=std_floor)


def normalize_in_group(values: Tensor, mask: Tensor, group_size: int, std_floor: float | None) -> Tensor:
    """(B, T) values less the group's mean, over `scale` of its standard deviation."""
    mean, std = group_statistics(values, mask, group_size)
    return (values - mean) / scale(std, std_floor) * mask


def subtract_position_mean(values: Tensor, mask: Tensor, group_size: int) -> Tensor:
    """(B, T) values less the group's mean at the same position, over the traces that reach it."""
    grouped, weight = _grouped(values, group_size), _grouped(mask, group_size)
    mean = (grouped * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
    return ((grouped - mean) * weight).reshape_as(values)


def leave_one_out(trace_rewards: Tensor, group_size: int) -> Tensor:
    """(B,) each trace's reward less the mean of the others in its group (as in PRIME, Cui et al. 2025)."""
    grouped = trace_rewards.view(-1, group_size)
    others = (grouped.sum(1, keepdim=True) - grouped) / (group_size - 1)
    return (grouped - others).reshape(-1)


def token_advantages(
    rewards: Tensor,
    mask: Tensor,
    group_size: int,
    calculation: AdvantageCalculation,
    baseline: AdvantageBaseline,
    gamma: float,
    std_floor: float | None,
) -> Tensor:
    """(B, T) advantages, 0 outside the mask.

    grpo        rewards normalised over the group's tokens, then the discounted return-to-go (arXiv 2510.01857);
                centred first, so that returns do not grow with length
    prime       the return-to-go of r_t less the mean token reward of the other traces of the group
    trace_mean  each trace's mean token reward, normalised over the group, at all its tokens

    With the baseline `position`, the group's mean at the same position is taken off the returns as well.
    Without `std_floor` rewards are centred only.
    """
    rewards, mask = rewards.float(), mask.float()
    if calculation == AdvantageCalculation.trace_mean:
        means = (rewards * mask).sum(1) / mask.sum(1).clamp(min=1)
        grouped = means.view(-1, group_size)
        centred = grouped - grouped.mean(1, keepdim=True)
        scaled = centred / scale(grouped.std(1, correction=0, keepdim=True), std_floor)
        return scaled.reshape(-1, 1) * mask
    if calculation == AdvantageCalculation.grpo:
        centred = normalize_in_group(rewards, mask, group_size, std_floor)
    else:
        means = (rewards * mask).sum(1) / mask.sum(1).clamp(min=1)
        mean_of_others = means - leave_one_out(means, group_size)
        _, std = group_statistics(rewards, mask, group_size)
        centred = (rewards - mean_of_others[:, None]) / scale(std, std_floor) * mask
    returns = discounted_returns(centred, mask, gamma)
    if baseline == AdvantageBaseline.position:
        return subtract_position_mean(returns, mask, group_size)
    return returns


def _grouped(values: Tensor, group_size: int) -> Tensor:  # (N, G, T)
    return values.view(-1, group_size, values.size(1))
