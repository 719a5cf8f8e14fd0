"""GRPO on verifiable rewards, the baseline that sees the answer key: TRL's trainer, with a completions log."""

from typing import Any

from reasoning_irl.data.tokens import TokenBatch
from reasoning_irl.training.policy_trainer import PolicyTrainer


class VerifierTrainer(PolicyTrainer):
    """GRPOTrainer that logs its samples, as AIRL does."""

    _tag_names = ["grpo", "reasoning_irl"]  # noqa: RUF012 (the library's own attribute)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        is_training = self.model.training  # read first, because sampling may change the mode
        out = super()._generate_and_score_completions(inputs)
        if is_training:
            batch = TokenBatch(out["prompt_ids"], out["prompt_mask"], out["completion_ids"], out["completion_mask"])
            step = self.state.global_step + 1
            self.completions.write(step, self._tokenizer, batch, inputs, None, out["advantages"])
        return out
