"""The two discriminator logits, on Markov chains whose log-ratios are known (see benchmarks/log_ratio.py)."""

import pytest

from benchmarks.log_ratio import correlation, learn
from reasoning_irl.config.schema import DiscriminatorLogit


@pytest.mark.long
def test_the_additive_logit_learns_the_log_ratio_of_each_token() -> None:
    learnt = learn(DiscriminatorLogit.additive, seed=1, updates=300)
    assert correlation(learnt.rewards, learnt.of_token) >= 0.97
    assert correlation(learnt.rewards, learnt.of_prefix) <= 0.75


@pytest.mark.long
def test_the_published_logit_learns_the_log_ratio_of_the_whole_prefix() -> None:
    """Trap: a per-token classifier sees the prefix, so its logit is a potential and not how good its token is."""
    learnt = learn(DiscriminatorLogit.token, seed=1, updates=200)
    assert correlation(learnt.rewards, learnt.of_prefix) >= 0.93
    assert correlation(learnt.rewards, learnt.of_token) <= 0.75
