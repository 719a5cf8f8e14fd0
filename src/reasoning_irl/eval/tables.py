"""The metrics of an evaluation as a few aligned text tables, with 95 % intervals."""

from collections.abc import Mapping, Sequence

from reasoning_irl.eval.summary import Metrics

SCORED = ("reward", "frozen", "logprob", "entropy", "length", "random", "oracle")
LOCATED = ("reward", "frozen", "logprob", "entropy", "chance", "first_step", "last_step")
COMPARED = ("random", "majority", "length", "logprob", "entropy", "frozen", "chance", "first_step", "last_step")
SOURCES = ("planted", "natural")
TOLD = {"AUROC": "auroc", "within problem": "auroc_within_prompt", "AUPRC": "auprc"}
TRUSTED = {
    "ECE": "ece",
    "Brier": "brier",
    "r with length": "length_correlation",
    "r with right": "correlation",
    "given length, format": "partial_correlation",
}
LOCATING = {
    "hit@1": "first_error_hit@1",
    "hit@3": "first_error_hit@3",
    "MAP": "first_error_map",
    "token AUROC": "first_error_token_auroc",
    "ProcessBench F1": "processbench_f1",
}


def table(metrics: Metrics) -> str:
    """A section for each question, a line for each method; what is undefined is a dash, with the reasons at the end."""
    n = metrics["n_rerank"]
    supervision = metrics.get("supervision", "not declared")
    head = f"{metrics['n_test_problems']} test problems, supervision: {supervision}; 95 % intervals over problems"
    # The policy's own metrics have no method before their name.
    shown = metrics | {f"{method}/rerank@1|{n}": metrics.get(f"{method}@{n}") for method in ("majority", "oracle")}
    for method in ("majority", "oracle"):
        shown |= {f"{method}/rerank@1|{n}/{end}": metrics.get(f"{method}@{n}/{end}") for end in ("low", "high")}
    choosing = {f"best of {n}": f"rerank@1|{n}", f"weighted vote of {n}": f"weighted_majority@{n}"}
    sections = [
        section(f"Right answers, one of {n} samples chosen", shown, choosing, [*SCORED[:-1], "majority", "oracle"]),
        section("Telling right traces from wrong ones", shown, TOLD, SCORED),
        section("Calibration (lower is better), and correlations", shown, TRUSTED, SCORED),
    ]
    for source in SOURCES:
        located = {title: f"{metric}/{source}" for title, metric in LOCATING.items()}
        sections.append(section(f"First wrong step, {metrics[f'n_{source}']} {source} errors", shown, located, LOCATED))
        groups = [key.partition("/")[2] for key in metrics if key.startswith(f"n_{source}/")]
        by_group = {
            f"{group} ({metrics[f'n_{source}/{group}']})": f"first_error_hit@1/{source}/{group}" for group in groups
        }
        sections.append(
            section(f"hit@1 of {source} errors by kind and place", shown, by_group, LOCATED, intervals=False)
        )
    compared = {**choosing, **{title: TOLD[title] for title in ("AUROC", "within problem")}, "Brier": "brier"}
    compared |= {f"hit@1 {source}": f"first_error_hit@1/{source}" for source in SOURCES}
    minus = {f"reward_minus_{other}": other for other in COMPARED}
    sections.append(section("The reward less each baseline (each difference by itself)", shown, compared, minus))
    return "\n\n".join(filter(None, [head, *sections, undefined(metrics)]))


def undefined(metrics: Metrics) -> str:
    """Each reason why metrics have no value, and whose; the empty text where all have one."""
    names: dict[str, list[str]] = {}
    for name in metrics:
        if f"{name}/note" in metrics and not name.startswith("reward_minus_"):
            names.setdefault(str(metrics[f"{name}/note"]), []).append(name)
    lines = []
    for reason, of_reason in names.items():
        more = f" and {len(of_reason) - 3} more" if len(of_reason) > 3 else ""
        lines.append(f"  {', '.join(of_reason[:3])}{more}: {reason.removeprefix('undefined: ')}")
    return "\n".join(["Undefined", *lines]) if lines else ""


def section(
    title: str,
    metrics: Metrics,
    columns: Mapping[str, str],  # heading: metric
    methods: Sequence[str] | Mapping[str, str],  # mapping: prefix of the metric's name, name to show
    *,
    intervals: bool = True,
) -> str:
    """The methods that have any of the columns; the empty text where none has."""
    named = methods if isinstance(methods, Mapping) else {method: method for method in methods}
    columns = {
        heading: metric
        for heading, metric in columns.items()
        if any(metrics.get(f"{prefix}/{metric}") is not None for prefix in named)
    }
    lines = [["", *columns]]
    for prefix, name in named.items():
        cells = [cell(metrics, f"{prefix}/{metric}", intervals=intervals) for metric in columns.values()]
        if any(shown != "-" for shown in cells):
            lines.append([name, *cells])
    if len(lines) == 1:
        return ""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    body = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join([title, *(f"  {line}" for line in body)])


def cell(metrics: Metrics, name: str, *, intervals: bool = True) -> str:
    """ "0.846 [0.810, 0.879]", or "+0.071 better" for a difference, or a dash."""
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", "/low", "/high"))
    if value is None:
        return "-"
    if verdict := metrics.get(f"{name}/verdict"):
        return f"{value:+.3f} {verdict}"
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if intervals and low is not None and high is not None else "")
