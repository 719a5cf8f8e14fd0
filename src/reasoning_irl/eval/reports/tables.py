"""The tables of an evaluation, with 95 % intervals: which metrics they show, and how they look as text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reasoning_irl.eval.scoring.methods import BASELINES, CHOOSING, LOCATING, OTHER, REWARD, SCORED, difference
from reasoning_irl.metrics.summary import Metrics

SOURCES = ("planted", "natural")
SAMPLED = ("pass@", "majority@", "format_ok", "completion_length", "truncated")
POLICY_ROW = "policy"
# The questions that the tables answer, in the order of the report.
QUESTIONS = WHICH_ARE_RIGHT, WHICH_TO_CHOOSE, WHERE, DIFFERENCES, POLICY = (
    "Which samples are right?",
    "Choosing among samples of a problem",
    "Where is the first error?",
    "Is the reward better than the baselines?",
    "Policy",
)
DISCRIMINATION = {"AUROC": "auroc", "within problem": "auroc_within_prompt", "AUPRC": "auprc"}
CALIBRATION = {
    "ECE": "ece",
    "Brier": "brier",
    "r with length": "length_correlation",
    "r with right": "correlation",
    "the same, given length and format": "partial_correlation",
}
ERROR_METRICS = {
    "hit@1": "first_error_hit@1",
    "hit@3": "first_error_hit@3",
    "MAP": "first_error_map",
    "token AUROC": "first_error_token_auroc",
    "ProcessBench F1": "processbench_f1",
}
# What the headings of columns mean, for the report.
MEANINGS = {
    "AUROC": "the probability that a right trace scores higher than a wrong one, over all traces; .5 is chance",
    "within problem": "AUROC of traces of the same problem: a score that only knows which problems are hard has .5",
    "AUPRC": "the precision of calling traces right, averaged over thresholds",
    "ECE": "how far calibrated scores are from the share of right traces, on average",
    "Brier": "the mean squared error of calibrated scores as probabilities of being right",
    "r with length": "the correlation of the score with the number of tokens",
    "r with right": "the correlation of the score with being right",
    "the same, given length and format": "that correlation among traces of equal length and format",
    "hit@1": "the share of wrong traces whose lowest-scored step is the first wrong one",
    "hit@3": "the same, within the three lowest-scored steps",
    "MAP": "the mean of 1 / the rank of the first wrong step",
    "token AUROC": "the probability that a token of the first wrong step scores lower than another token of its trace",
    "ProcessBench F1": "the harmonic mean of the shares of wrong traces located and of sound traces left alone",
}


@dataclass(frozen=True)
class Table:
    """The metrics of a table: the cell of a method and a heading is the metric `{prefix}/{metric}`."""

    question: str  # one of QUESTIONS
    title: str
    columns: Mapping[str, str]  # heading: metric
    methods: Mapping[str, str]  # prefix of the metrics: name to show
    intervals: bool = True


def table(metrics: Metrics) -> str:
    """One section per table, one line per method; undefined metrics are dashes, with the reasons at the end."""
    supervision = metrics.get("supervision", "not declared")
    head = f"{metrics['n_test_problems']} test problems, supervision: {supervision}; 95 % intervals over problems"
    shown = with_aliases(metrics)
    sections = [section(each, shown) for each in layout(metrics) if each.question != POLICY]
    return "\n\n".join(filter(None, [head, *sections, undefined(metrics)]))


def with_aliases(metrics: Metrics) -> Metrics:
    """The metrics, plus the policy's own metrics, which have no prefix, under the prefixes that the tables use."""
    names = {f"{POLICY_ROW}/{name}": name for name in _of_policy(metrics, "")}
    if n := metrics.get("n_rerank"):
        names |= {f"{method}/rerank@1|{n}": f"{method}@{n}" for method in ("majority", "oracle")}
    ends = ("", "/low", "/high", "/note")
    return metrics | {f"{new}{end}": metrics.get(f"{name}{end}") for new, name in names.items() for end in ends}


def layout(metrics: Metrics) -> list[Table]:
    """The tables of these metrics in order, for the terminal and the report."""
    return ([*_scored_tables(metrics)] if "n_rerank" in metrics else []) + _policy_tables(metrics)


def _scored_tables(metrics: Metrics) -> Iterator[Table]:
    n = metrics["n_rerank"]
    scored, chosen, located = ({name: name for name in names} for names in (SCORED, CHOOSING, LOCATING))
    choosing = {f"best of {n}": f"rerank@1|{n}", f"weighted vote of {n}": f"weighted_majority@{n}"}
    yield Table(WHICH_TO_CHOOSE, f"Share of problems answered right, choosing one of {n} samples", choosing, chosen)
    yield Table(WHICH_ARE_RIGHT, "Telling right traces from wrong ones (higher is better)", DISCRIMINATION, scored)
    yield Table(WHICH_ARE_RIGHT, "Calibration (lower is better), and correlations", CALIBRATION, scored)
    for source in SOURCES:
        columns = {title: f"{metric}/{source}" for title, metric in ERROR_METRICS.items()}
        yield Table(WHERE, f"First wrong step, {metrics[f'n_{source}']} {source} errors", columns, located)
        groups = [key.partition("/")[2] for key in metrics if key.startswith(f"n_{source}/")]
        by_group = {
            f"{group} ({metrics[f'n_{source}/{group}']})": f"first_error_hit@1/{source}/{group}" for group in groups
        }
        yield Table(WHERE, f"hit@1 of {source} errors, by kind and position", by_group, located, intervals=False)
    compared = {**choosing, **{title: DISCRIMINATION[title] for title in ("AUROC", "within problem")}, "Brier": "brier"}
    compared |= {f"hit@1 {source}": f"first_error_hit@1/{source}" for source in SOURCES}
    minus = {f"{REWARD}_minus_{other}": other for other in BASELINES}
    yield Table(DIFFERENCES, "The reward minus each baseline (not corrected for multiple comparisons)", compared, minus)


def _policy_tables(metrics: Metrics) -> list[Table]:
    """The samples of the policies: several if their metrics have prefixes, otherwise the run's own policy."""
    named = {key.partition("/")[0] for key in metrics if "/pass@" in key}
    policies = [name for name in dict.fromkeys(key.partition("/")[0] for key in metrics) if name in named]
    own = {metric: metric for metric in _of_policy(metrics, f"{policies[0]}/" if policies else "")}
    methods = {name: name for name in policies or [POLICY_ROW]}
    is_sampled = any(name.startswith("pass@") for name in own)
    return [Table(POLICY, "Samples of the policy", own, methods)] if is_sampled else []


def _of_policy(metrics: Metrics, prefix: str) -> list[str]:
    """The names of a policy's metrics, without the prefix."""
    names = [key.removeprefix(prefix) for key in metrics if key.startswith(prefix)]
    return [name for name in names if "/" not in name and name.startswith(SAMPLED) and f"{prefix}{name}/low" in metrics]


def undefined(metrics: Metrics) -> str:
    """Each reason for undefined metrics, with their names; empty if there are none."""
    names: dict[str, list[str]] = {}
    for name in metrics:
        if f"{name}/note" in metrics and not name.startswith(f"{REWARD}_minus_"):
            names.setdefault(str(metrics[f"{name}/note"]), []).append(name)
    lines = []
    for reason, of_reason in names.items():
        more = f" and {len(of_reason) - 3} more" if len(of_reason) > 3 else ""
        lines.append(f"  {', '.join(of_reason[:3])}{more}: {reason.removeprefix('undefined: ')}")
    return "\n".join(["Undefined", *lines]) if lines else ""


def verdicts(metrics: Metrics) -> str:
    """The reward model against the other one: one line per main metric, with the difference and its interval."""
    supervision = metrics["other/supervision"]
    lines = [f"This reward model against that of {metrics['other/file']} (supervision: {supervision})"]
    for name in (f"rerank@1|{metrics['n_rerank']}", "auroc_within_prompt", "auroc", "first_error_hit@1/natural"):
        minus = difference(OTHER, name)
        value, low, high, verdict = (metrics.get(f"{minus}{end}") for end in ("", "/low", "/high", "/verdict"))
        if value is None:
            notes = (metrics.get(f"{prefix}/{name}/note") for prefix in (REWARD, OTHER))
            lines.append(f"  {name}: {next(filter(None, notes), 'undefined')}")
        else:
            size = f"{value:+.3f}" if verdict == "cannot tell" else f"by {abs(value):.3f}"
            interval = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
            values = f"{metrics[f'reward/{name}']:.3f} against {metrics[f'other/{name}']:.3f}"
            lines.append(f"  {name}: {values}, {verdict} {size}{interval}")
    return "\n".join(lines)


def section(shown: Table, metrics: Metrics) -> str:
    """The methods that have any of the columns; empty if none has."""
    columns = {
        heading: metric
        for heading, metric in shown.columns.items()
        if any(metrics.get(f"{prefix}/{metric}") is not None for prefix in shown.methods)
    }
    lines = [["", *columns]]
    for prefix, name in shown.methods.items():
        cells = [cell(metrics, f"{prefix}/{metric}", intervals=shown.intervals) for metric in columns.values()]
        if any(text != "-" for text in cells):
            lines.append([name, *cells])
    if len(lines) == 1:
        return ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join([shown.title, *(f"  {line}" for line in body)])


def cell(metrics: Metrics, name: str, *, intervals: bool = True) -> str:
    """A cell such as `0.846 [0.810, 0.879]`, `+0.071 better` for a difference, or `-`."""
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", "/low", "/high"))
    if value is None:
        return "-"
    if verdict := metrics.get(f"{name}/verdict"):
        return f"{value:+.3f} {verdict}"
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if intervals and low is not None and high is not None else "")
