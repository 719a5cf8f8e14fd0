import pytest
import torch
import trl.trainer.utils as trl_utils

from reasoning_irl.models import cpu_logprobs
from reasoning_irl.models.cpu_logprobs import KERNEL, logprobs

ALL = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def random_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    hidden, weight, bias = torch.randn(9, 5), torch.randn(11, 5), torch.randn(11)
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), torch.randint(0, 11, (9,))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize(("softcap", "scale"), [(None, 1.0), (3.0, 0.5)])
def test_values_and_gradients_match_the_plain_expression(
    temperature: float, softcap: float | None, scale: float
) -> None:
    hidden, weight, bias, targets = random_inputs()
    logits = (hidden @ weight.T + bias) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits / temperature
    probs = torch.softmax(logits, -1)
    expected = torch.log(probs)[torch.arange(9), targets]
    entropy = -(probs * torch.log(probs)).sum(-1)
    chosen, got_entropy, log_sum_sq, mean, is_top1 = logprobs(
        hidden, weight, bias, targets, temperature, 4, softcap, scale, ALL
    )
    torch.testing.assert_close(chosen, expected)
    torch.testing.assert_close(got_entropy, entropy)
    torch.testing.assert_close(log_sum_sq, torch.log((probs**2).sum(-1)))
    torch.testing.assert_close(mean, logits.mean(-1))
    assert is_top1 is not None
    assert is_top1.tolist() == (logits.argmax(-1) == targets).tolist()
    upstream = torch.randn(9)
    assert chosen is not None
    got = torch.autograd.grad((chosen * upstream).sum(), (hidden, weight, bias))
    for a, b in zip(got, torch.autograd.grad((expected * upstream).sum(), (hidden, weight, bias)), strict=True):
        torch.testing.assert_close(a, b)


def test_statistics_are_computed_only_on_request() -> None:
    hidden, weight, _, targets = random_inputs()
    assert logprobs(hidden, weight, None, targets, 1.0, 4)[1:] == (None, None, None, None)


def test_installing_twice_changes_nothing() -> None:
    cpu_logprobs.install()
    first = getattr(trl_utils, KERNEL)
    cpu_logprobs.install()
    assert getattr(trl_utils, KERNEL) is first
    hidden, weight, bias, targets = random_inputs()
    torch.testing.assert_close(
        first.apply(hidden, weight, bias, targets, 1.0, 4)[0],
        torch.log_softmax(hidden @ weight.T + bias, -1)[torch.arange(9), targets],
    )
