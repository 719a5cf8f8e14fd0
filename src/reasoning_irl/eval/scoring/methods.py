"""The table of scoring methods: every way to score traces that an evaluation compares, in the order of its tables.

To add a method, add a row here and its function: to `values.TOKEN_SCORERS` or `values.TRACE_SCORERS`, or to
`reports.first_error.STEP_RULES` for a rule that names a step. Tables, differences from the reward, report and figures
follow. This module is light, so that figures can import it.
"""

from dataclasses import dataclass
from enum import StrEnum


class Output(StrEnum):
    """What a method produces."""

    token_values = "token_values"  # a value for every token of a trace
    trace_score = "trace_score"  # one score per trace, without a model
    votes = "votes"  # a choice among the samples of a problem
    step = "step"  # a step of a trace, named without reading its text


@dataclass(frozen=True)
class Method:
    name: str  # the first part of its metrics' names
    label: str  # in figures and the report
    meaning: str  # for the report
    output: Output
    colour: str  # a name in figures/style.py's PALETTE
    linestyle: str = "-"
    needs: str = ""  # what an evaluation lacks if the method has no values

    @property
    def not_scored(self) -> str:
        """The note of its metrics if the method has no values."""
        return f"not scored: it needs {self.needs}"


SFT_AND_POLICY = "model.sft_path, model.policy_path and validation traces"
METHODS = (
    Method(
        "reward",
        "learned reward",
        "the reward model that is evaluated",
        Output.token_values,
        "blue",
        needs="model.reward_path",
    ),
    Method(
        "other",
        "other reward model",
        "the reward model it is compared with",
        Output.token_values,
        "orange",
        needs="eval.against",
    ),
    Method(
        "frozen",
        "untrained reward",
        "the reward model before training",
        Output.token_values,
        "grey",
        needs="model.frozen_path with the reward's tokenizer",
    ),
    Method(
        "logprob",
        "log-probability",
        "the log-probability of each token under the policy",
        Output.token_values,
        "purple",
        needs="model.policy_path, or token_logprobs in the file",
    ),
    Method(
        "entropy",
        "entropy",
        "minus the policy's entropy before each token, so that a certain policy scores high",
        Output.token_values,
        "vermilion",
        needs="model.policy_path with the reward's tokenizer, or token_entropies in the file",
    ),
    Method(
        "sft",
        "log-probability of SFT",
        "the log-probability of each token under a policy after SFT on the same demonstrations",
        Output.token_values,
        "brown",
        needs="model.sft_path",
    ),
    Method(
        "logprobs",
        "both log-probabilities",
        "the sum of the two log-probabilities, each standardised",
        Output.token_values,
        "brown",
        "--",
        needs=SFT_AND_POLICY,
    ),
    Method(
        "reward_and_logprobs",
        "reward and both",
        "the sum of the reward and the two log-probabilities, each standardised",
        Output.token_values,
        "blue",
        "--",
        needs=SFT_AND_POLICY,
    ),
    Method("length", "length", "the shorter trace scores higher", Output.trace_score, "sky"),
    Method("random", "random", "what a random order gives on average", Output.trace_score, "black", "--"),
    Method("majority", "majority vote", "the answer that most samples give", Output.votes, "green"),
    Method(
        "oracle",
        "oracle",
        "knows which samples are right: the most that can be reached",
        Output.trace_score,
        "grey",
        ":",
    ),
    Method("chance", "chance", "names a step at random", Output.step, "black"),
    Method("first_step", "always the first step", "names the first step without reading", Output.step, "sky"),
    Method("last_step", "always the last step", "names the last step without reading", Output.step, "green"),
)
BY_NAME = {method.name: method for method in METHODS}
REWARD, OTHER = "reward", "other"  # the model that is evaluated, and the one that `eval.against` compares it with


def names_of(*outputs: Output) -> tuple[str, ...]:
    """The names of the methods with one of these outputs, in the table's order."""
    return tuple(method.name for method in METHODS if method.output in outputs)


TOKEN_METHODS = names_of(Output.token_values)
SCORED = names_of(Output.token_values, Output.trace_score)
CHOOSING = names_of(Output.token_values, Output.trace_score, Output.votes)
LOCATING = names_of(Output.token_values, Output.step)
# The reward is compared with each of these.
BASELINES = tuple(method.name for method in METHODS if method.name not in (REWARD, "oracle"))
# The calibrated scores of these weight votes: random weights are the plain vote, and the oracle's are the answer.
WEIGHTING = tuple(name for name in SCORED if name not in ("random", "oracle"))


def difference(other: str, metric: str) -> str:
    """The name of the reward's metric minus that of another method."""
    return f"{REWARD}_minus_{other}/{metric}"


def is_method_metric(name: str) -> bool:
    """Whether a metric belongs to a method, or compares the reward with one."""
    method, _, metric = name.partition("/")
    return bool(metric) and method.removeprefix(f"{REWARD}_minus_") in BY_NAME
