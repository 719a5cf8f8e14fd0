"""Model cards of runs and of exported reward models: what was trained on which data, and the measured metrics.

The libraries' own cards name neither the algorithm nor the base model. Metadata is that of the hub; results are in its
`model-index`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from omegaconf import DictConfig

from reasoning_irl.config.schema import Algorithm, DatasetName, DiscriminatorLogit, Granularity, RewardHead
from reasoning_irl.data.loading import DATASETS, FileSet
from reasoning_irl.metrics.reading import is_of
from reasoning_irl.metrics.summary import Metrics, read_metrics
from reasoning_irl.utils.run_folder import (
    METRICS_FILE,
    REWARD_MODEL,
    TRACES_FILE,
    load_run_config,
    newest_checkpoint,
    policy_of,
    step_of,
    write_atomically,
)

CARD_FILE = "README.md"
NOT_DECLARED = "not declared"
# What each algorithm learns from.
SUPERVISION = {
    Algorithm.airl: "demonstrations",
    Algorithm.sft: "demonstrations",
    Algorithm.grpo: "verifier",
    Algorithm.offline: "demonstrations and unlabelled samples",
}
HOW = {
    Algorithm.airl: "adversarial IRL, arXiv 2510.01857",
    Algorithm.sft: "supervised fine-tuning",
    Algorithm.grpo: "GRPO on verifiable rewards",
    Algorithm.offline: "offline, against a file of samples",
}
OF_POLICY = re.compile(r"(pass|majority)@\d+")
OF_REWARD = re.compile(r"reward/(auroc|auroc_within_prompt|rerank@1\|\d+|first_error_hit@1/(planted|natural))")

MEASURED = "Measured on test problems, with 95 % bootstrap intervals over problems.\n"
NOT_MEASURED = "Not evaluated yet: run evaluate.py and evaluate_irl.py on the run.\n"
REWARD = """A scalar reward for every token of a reasoning trace, high where it looks like an expert's.
It measures how much a trace resembles the demonstrations it was trained on, not whether the trace is correct; check the
baselines in the run's metrics before relying on it.
"""
PACKAGE = """```python
from reasoning_irl import RewardModel

model = RewardModel.from_run(FOLDER)
model.score(question, completion)  # tokens, offsets, rewards, step_scores, total
```
"""
PLAIN = """```python
from transformers import AutoModelForTokenClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForTokenClassification.from_pretrained(FOLDER)
rewards = model(**inputs).logits[..., 0]  # (batch, tokens); read them on the completion's tokens
```
"""
LIKELIHOOD = """The reward of token t is `score_t + scale * log p(y_t | y_<t) + bias`, where `score` is what
`AutoModelForTokenClassification` outputs and p is the next-token distribution of the same backbone; `scale`, `bias`
and, if it is not the embedding matrix, the output matrix are in `likelihood_head.safetensors`. The package computes it:

"""
USAGE = {RewardHead.plain: PLAIN, RewardHead.likelihood: LIKELIHOOD + PACKAGE}
POLICY = """```python
from transformers import AutoModelForCausalLM

policy = AutoModelForCausalLM.from_pretrained(f"{{FOLDER}}/{checkpoint}")
```
"""


def write_run_card(run: Path) -> None:
    """Writes the card of a run that has a checkpoint."""
    config, checkpoint = load_run_config(run), newest_checkpoint(run)
    has_policy, has_reward = policy_of(checkpoint) is not None, (checkpoint / REWARD_MODEL).is_dir()
    what = " and ".join([*(["a policy"] if has_policy else []), *(["a reasoning reward"] if has_reward else [])])
    body = [f"The newest checkpoint, `{checkpoint.name}`, has {what}.\n"]
    body += [POLICY.format(checkpoint=checkpoint.name)] if has_policy else []
    body += [REWARD, PACKAGE] if has_reward else []
    card = _card(run, config, checkpoint, run.resolve().name, body, is_reward_only=not has_policy)
    write_atomically(run / CARD_FILE, card)


def refresh_run_card(run: Path, evaluated: Path) -> None:
    """Adds an evaluation to the card of a run if its metrics are in the run's own folder."""
    if evaluated.resolve() == run.resolve() and (run / CARD_FILE).is_file():
        write_run_card(run)


def write_reward_card(run: Path, target: Path, licence: str | None = None) -> None:
    """Writes the card of a run's reward model, exported to `target`; `licence` is an identifier of the hub."""
    config = load_run_config(run)
    body = [REWARD, USAGE[RewardHead(config.model.reward_head)]]
    name, checkpoint = target.resolve().name, newest_checkpoint(run)
    card = _card(run, config, checkpoint, name, body, is_reward_only=True, licence=licence)
    write_atomically(target / CARD_FILE, card)


def _card(
    run: Path,
    config: DictConfig,
    checkpoint: Path,
    name: str,
    body: Sequence[str],
    *,
    is_reward_only: bool,
    licence: str | None = None,
) -> str:
    """The card as text: metadata, a table of the training and the metrics, and `body`."""
    has_reward = (checkpoint / REWARD_MODEL).is_dir()
    task = "token-classification" if is_reward_only else "text-generation"
    base, hub_data = _base(config, is_reward_only), _hub_data(config)
    metrics = read_metrics(run / METRICS_FILE)
    shown = _shown(metrics, run, checkpoint, has_policy=not is_reward_only)
    tags = ["reasoning_irl", config.algorithm]
    tags += ["reward-model", "process-reward-model", "inverse-reinforcement-learning"] if has_reward else []
    data = ModelCardData(
        model_name=name,
        base_model=base if _is_hub_name(base) else None,
        license=licence,
        datasets=[hub_data] if hub_data else None,
        library_name="transformers",
        pipeline_tag=task,
        tags=tags,
        eval_results=[_result(key, metrics, task, hub_data or config.dataset.name) for key in shown] or None,
    )
    rows = [*_training(config, checkpoint, base, has_reward), ("licence", licence or _licence(base))]
    rows += [(key.replace("|", "\\|"), _with_interval(metrics, key)) for key in shown]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    note = MEASURED if shown else NOT_MEASURED
    parts = [f"# {name}\n", f"| | |\n|---|---|\n{table}\n", note, *body]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(parts)))


def _training(config: DictConfig, checkpoint: Path, base: str, has_reward: bool) -> list[tuple[str, str | int]]:
    algorithm, model = Algorithm(config.algorithm), config.model
    loss = f" ({model.classifier_loss} discriminator)" if has_reward else ""
    rows: list[tuple[str, str | int]] = [
        ("supervision", SUPERVISION[algorithm]),
        ("algorithm", f"{HOW[algorithm]}{loss}"),
        ("data", f"{config.dataset.name}, {_source(config)}"),
        ("started from", base),
    ]
    if has_reward and model.reward_name and model.reward_name != base:
        rows.append(("reward model started from", model.reward_name))
    if "warm_start" in config and config.warm_start.enabled:
        rows.append(("warm start", f"SFT on {config.warm_start.n_traces} traces of an error-prone annotator"))
    if has_reward:
        is_additive = model.discriminator_logit == DiscriminatorLogit.additive
        read_at = "all" if is_additive else Granularity(model.reward_granularity).value
        rows.append(("read at", f"{read_at} tokens, {RewardHead(model.reward_head).value} head"))
    return [*rows, ("steps", step_of(checkpoint)), ("seed", config.seed)]


def _base(config: DictConfig, is_reward: bool) -> str:
    """The model that training started from, as the config names it."""
    model = config.model
    names = [model.reward_name] if is_reward else []
    names += [model.checkpoint, model.policy_name] if "policy_name" in model else []
    return str(next(name for name in names if name))


def _is_hub_name(name: str) -> bool:
    """Whether a name is one of the hub, as far as can be told without asking it."""
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)) and not Path(name).parent.exists()


def _hub_data(config: DictConfig) -> str | None:
    source = DATASETS[DatasetName(config.dataset.name)]
    return source.hub.name if config.dataset.path is None and isinstance(source, FileSet) and source.hub else None


def _source(config: DictConfig) -> str:
    return Path(config.dataset.path).name if config.dataset.path else _hub_data(config) or "generated"


def _licence(base: str) -> str:
    return (
        f"not declared; the terms of {'the demonstrations' if base == 'embedded' else f'{base} and of the data'} apply"
    )


def _shown(metrics: Metrics, run: Path, checkpoint: Path, *, has_policy: bool) -> list[str]:
    """The metrics of this checkpoint: not those of another policy or reward model evaluated into the same folder."""
    is_policy = has_policy and metrics.get("supervision", NOT_DECLARED) != NOT_DECLARED
    is_policy = is_policy and Path(metrics["policy"]).name == checkpoint.name
    is_reward = is_of(metrics, run, checkpoint / REWARD_MODEL)
    wanted = [*([OF_POLICY] if is_policy else []), *([OF_REWARD] if is_reward else [])]
    return [key for pattern in wanted for key in metrics if pattern.fullmatch(key) and metrics[key] is not None]


def _result(key: str, metrics: Metrics, task: str, data: str) -> EvalResult:
    """A metric as the hub's `model-index` has it; `data` is the data set of the run's own samples."""
    is_of_traces = OF_REWARD.fullmatch(key) and not key.endswith("planted")
    traces = Path(metrics.get("choice/reward/traces", TRACES_FILE)).name if is_of_traces else TRACES_FILE
    measured_on = data if traces == TRACES_FILE else traces
    return EvalResult(
        task_type=task,
        dataset_type=measured_on,
        dataset_name=measured_on,
        dataset_split="test",
        metric_type=key.removeprefix("reward/"),
        metric_name=key,
        metric_value=round(metrics[key], 4),
    )


def _with_interval(metrics: dict[str, Any], name: str) -> str:
    low, high = metrics.get(f"{name}/low"), metrics.get(f"{name}/high")
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{metrics[name]:.3f}{interval}"
