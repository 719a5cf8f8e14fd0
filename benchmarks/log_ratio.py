"""What the two discriminator logits learn, on Markov chains whose log-ratios are known.

    python benchmarks/log_ratio.py [--seed S] [--updates N] [--draw docs/log_ratio.png]

Experts and policy are two random chains of four states; a small transformer tells their traces apart. The reward that
it gives to each token is compared with the token's own log-ratio, log p_E(y_t) - log pi(y_t), and with its sum over the
prefix. About 20 s per logit on one core.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from transformers import LlamaConfig, LlamaForTokenClassification, set_seed

from reasoning_irl.config import register, schema, to_config
from reasoning_irl.config.compose import CONFIGS
from reasoning_irl.data.tokens import TokenBatch
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.reward_model import RewardModel, RewardSpec
from reasoning_irl.training.discriminator import Discriminator, LabelledBatch, Origin

STATES, LENGTH, FIRST_ID, BATCH, N_SHOWN = 4, 6, 10, 256, 1000
BACKBONE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SETTINGS = [
    "reward_learning_rate=0.003",
    "reward_lr_scheduler_type=cosine",
    "reward_warmup_ratio=0.1",
    "reward_micro_batch_size=1000",
    "reward_lm_coef=0",
    "disc_label_smoothing=0",
]


@dataclass(frozen=True)
class Chain:
    start: Tensor  # (S,)
    transition: Tensor  # (S, S)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, T) states."""
        states = [torch.multinomial(self.start.expand(n, -1), 1, generator=generator)]
        for _ in range(LENGTH - 1):
            states.append(torch.multinomial(self.transition[states[-1][:, 0]], 1, generator=generator))
        return torch.cat(states, dim=1)

    def log_prob(self, states: Tensor) -> Tensor:
        """(n, T) log-probability of each state given the one before."""
        later = self.transition.log()[states[:, :-1], states[:, 1:]]
        return torch.cat([self.start.log()[states[:, :1]], later], dim=1)


@dataclass(frozen=True)
class Learnt:
    """The rewards of fresh traces, and the known log-ratios, all (n, T)."""

    rewards: Tensor
    of_token: Tensor

    @property
    def of_prefix(self) -> Tensor:
        return self.of_token.cumsum(1)


def learn(logit: schema.DiscriminatorLogit, seed: int, updates: int) -> Learnt:
    """Trains a discriminator with this logit to tell the chains apart."""
    set_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def random_chain() -> Chain:
        rows = [torch.randn(shape, generator=generator).softmax(-1) for shape in ((STATES,), (STATES, STATES))]
        return Chain(*rows)

    def batch(n: int) -> tuple[LabelledBatch, Tensor]:
        states = torch.cat([chain.sample(n, generator) for chain in (expert, policy)])
        prompt = torch.zeros(2 * n, 1, dtype=torch.long)
        tokens = TokenBatch(prompt, torch.ones_like(prompt), states + FIRST_ID, torch.ones_like(states))
        origin = torch.tensor([Origin.expert] * n + [Origin.policy] * n)
        return LabelledBatch(tokens, origin, torch.zeros(2 * n, dtype=torch.long)), states

    expert, policy = random_chain(), random_chain()
    tokenizer = build_tokenizer(max_value=20)
    backbone = LlamaForTokenClassification(LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **BACKBONE))
    spec = RewardSpec(schema.RewardHead.plain, schema.Granularity.dense, 1, logit=logit)
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        composed = compose("config_irl_train", overrides=[f"model.{setting}" for setting in SETTINGS])
    config = to_config(composed, schema.IRLTrainConfig).model
    discriminator = Discriminator(RewardModel(backbone, None, spec, tokenizer), config, updates)
    for _ in range(updates):
        discriminator.update(batch(BATCH)[0])
    fresh, states = batch(N_SHOWN)
    return Learnt(discriminator.rewards(fresh.tokens), expert.log_prob(states) - policy.log_prob(states))


def correlation(a: Tensor, b: Tensor) -> float:
    return float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1])


def draw(learnt: dict[schema.DiscriminatorLogit, Learnt], path: Path) -> None:
    """One row per logit: the rewards against the log-ratios of tokens, and against those of prefixes."""
    sys.path.insert(0, str(CONFIGS.parent))
    import matplotlib.pyplot as plt

    from figures.style import BLUE, use_style

    use_style()
    figure, grid = plt.subplots(len(learnt), 2, figsize=(5.2, 2.3 * len(learnt)), layout="constrained")
    for row, (logit, of) in zip(grid, learnt.items(), strict=True):
        for axes, name, known in zip(row, ("token", "prefix"), (of.of_token, of.of_prefix), strict=True):
            axes.scatter(known.flatten()[:2000], of.rewards.flatten()[:2000], s=2, color=BLUE, alpha=0.3, linewidths=0)
            axes.set_title(f"{logit}: r = {correlation(of.rewards, known):.2f}")
            axes.set_xlabel(f"log-ratio of the {name}")
            axes.set_ylabel("learnt reward")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--draw", type=Path)
    arguments = parser.parse_args()
    learnt = {logit: learn(logit, arguments.seed, arguments.updates) for logit in schema.DiscriminatorLogit}
    print("correlation of the reward with the log-ratio of the token, and of the prefix")
    for logit, of in learnt.items():
        print(f"  {logit:<9} {correlation(of.rewards, of.of_token):.3f}  {correlation(of.rewards, of.of_prefix):.3f}")
    if arguments.draw:
        draw(learnt, arguments.draw)


if __name__ == "__main__":
    main()
