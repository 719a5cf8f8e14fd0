"""Exports a run's reward model as a plain transformers folder: `python -m reasoning_irl.export RUN DIR`.

Adapters are merged into the weights. A reward model with a plain head then loads with
`AutoModelForTokenClassification.from_pretrained`; one with a likelihood head keeps its two numbers (and the output
matrix, if it is not the embedding matrix) in a separate file, and the model card says how to add them.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from reasoning_irl.config.schema import Algorithm, DiscriminatorLogit, RewardHead
from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.programs import command
from reasoning_irl.utils.run_folder import METRICS_FILE, load_run_config

SHOWN = (
    "reward/auroc",
    "reward/auroc_within_prompt",
    "reward/first_error_hit@1/planted",
    "reward/first_error_hit@1/natural",
)

PLAIN = """\
```python
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForTokenClassification.from_pretrained(FOLDER)
rewards = model(**inputs).logits[..., 0]  # (batch, tokens); read them on the completion's tokens
```"""
LIKELIHOOD = """\
The reward of token t is `score_t + scale * log p(y_t | y_<t) + bias`, where `score` is what
`AutoModelForTokenClassification` outputs and p is the next-token distribution of the same backbone; `scale`, `bias`
and, if it is not the embedding matrix, the output matrix are in `likelihood_head.safetensors`. The package computes it:

```python
from reasoning_irl.models.reward_model import RewardModel

model = RewardModel.from_run(FOLDER)
model.score(question, completion)  # tokens, offsets, rewards, step_scores, total
```"""

USAGE = {RewardHead.plain: PLAIN, RewardHead.likelihood: LIKELIHOOD}


def export(run: Path, target: Path) -> None:
    """Writes the folder. Raises UserError if the run has no reward model or the folder is not empty."""
    from peft import PeftModel

    from reasoning_irl.models.reward_model import RewardModel

    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} is not empty and would be overwritten: choose another folder")
    model = RewardModel.from_run(run)
    if isinstance(model.backbone, PeftModel):
        merged: Any = model.backbone.merge_and_unload()
        model.backbone = merged
    target.mkdir(parents=True, exist_ok=True)
    model.save(target)
    model.tokenizer.save_pretrained(target)
    read_at = "all" if model.spec.logit == DiscriminatorLogit.additive else model.spec.granularity.value
    (target / "README.md").write_text(card(run, model.spec.head, read_at), encoding="utf-8")


def card(run: Path, head: RewardHead, read_at: str) -> str:
    """The model card: what the model was trained on, its metrics, and how to use it."""
    config = load_run_config(run)
    is_offline = config.algorithm == Algorithm.offline
    how_learnt = "offline, against a file of samples" if is_offline else "adversarial IRL, arXiv 2510.01857"
    rows = [
        ("supervision", "demonstrations and unlabelled samples" if is_offline else "demonstrations"),
        ("algorithm", f"{how_learnt} ({config.model.classifier_loss} discriminator)"),
        ("data", f"{config.dataset.name}, {config.dataset.path or 'default source'}"),
        ("started from", config.model.reward_name or config.model.policy_name),
        ("read at", f"{read_at} tokens, {head} head"),
        ("steps", config.training.max_steps),
        ("seed", config.seed),
    ]
    path = run / METRICS_FILE
    metrics = json.loads(path.read_text()) if path.is_file() else {}
    measured = [(name, _with_interval(metrics, name)) for name in SHOWN if metrics.get(name) is not None]
    table = "\n".join(f"| {name} | {value} |" for name, value in [*rows, *measured])
    how = USAGE[head]
    missing = "" if measured else "\nNot evaluated yet: run evaluate_irl.py on the run.\n"
    return f"""---
library_name: transformers
pipeline_tag: token-classification
tags: [reward-model, process-reward-model, inverse-reinforcement-learning]
---
# Dense reasoning reward

A scalar reward for every token of a reasoning trace, high where it looks like an expert's. Learnt from demonstrations
with reasoning_irl, after [arXiv 2510.01857](https://arxiv.org/abs/2510.01857).

| | |
|---|---|
{table}
{missing}
{how}

It measures how much a trace resembles the demonstrations it was trained on, not whether the trace is correct; check the
baselines in the run's metrics before relying on it.
"""


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    low, high = metrics.get(f"{name}/low"), metrics.get(f"{name}/high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{metrics[name]:.3f}{interval}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog=command("-m reasoning_irl.export"),
        description="Exports a run's reward model as a plain transformers folder.",
    )
    parser.add_argument("run", type=Path, help="run folder of a training run")
    parser.add_argument("target", type=Path, help="new folder for the reward model")
    arguments = parser.parse_args()
    try:
        export(arguments.run, arguments.target)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"reward model and card: {arguments.target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
