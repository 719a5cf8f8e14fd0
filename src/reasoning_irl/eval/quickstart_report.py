"""Merges the results of a quickstart run into one metrics.json and one report, and prints the main ones.

Usage: python -m reasoning_irl.eval.quickstart_report RUN_DIR SECONDS
"""

import sys
from pathlib import Path

from reasoning_irl.data.jsonl import read_jsonl
from reasoning_irl.eval.reports.page import balanced, write_run_report
from reasoning_irl.eval.reports.tables import WHICH_TO_CHOOSE, Table, section, with_aliases
from reasoning_irl.eval.traces.trace_file import TEST
from reasoning_irl.metrics.summary import Metrics, read_metrics, write_metrics
from reasoning_irl.utils.run_folder import FIGURES, METRICS_FILE, REPORT_FILE, TRACES_FILE

# Each policy, and the folder of its metrics within the run.
POLICIES = {"warm_start": "warm_start_samples", "sft_continued": "sft_continued", "airl": "."}
POLICY_METRICS = ("pass@", "majority@", "completion_length", "format_ok")
# Of the warm start's samples, which no reward has improved.
START, START_METRICS = "warm_start", ("rerank@1|", "auroc_within_prompt")
TABLES_FILE = "tables.txt"  # what evaluate_irl.py prints
METHODS = ("reward", "frozen", "logprob", "sft", "length", "random", "majority", "oracle")
SUPERVISION = {"warm_start": "an error-prone annotator", "sft_continued": "demonstrations", "airl": "demonstrations"}


def join(run_dir: Path, seconds: float) -> Metrics:
    """Adds every policy's metrics to the run's metrics.json, prefixed with the policy's name; returns them all."""
    metrics = read_metrics(run_dir / METRICS_FILE)
    for policy, folder in POLICIES.items():
        for key, value in read_metrics(run_dir / folder / METRICS_FILE).items():
            is_of_start = policy == START and key.partition("/")[2].startswith(START_METRICS)
            if key.startswith(POLICY_METRICS) or is_of_start:
                metrics[f"{policy}/{key}"] = value
    metrics["seconds/total"] = seconds
    write_metrics(run_dir / METRICS_FILE, metrics)
    return metrics


def policy_table(metrics: Metrics) -> str:
    """pass@k of every policy, with 95 % intervals."""
    ks = sorted(int(key.removeprefix("airl/pass@")) for key in metrics if key.removeprefix("airl/pass@").isdigit())
    shown = [k for k in ks if k in (ks[0], ks[-1])]
    lines = [["policy", *(f"pass@{k}" for k in shown), "learnt from"]]
    for policy in POLICIES:
        names = [f"{policy}/pass@{k}" for k in shown]
        cells = [f"{metrics[n]:.3f} [{metrics[n + '/low']:.3f}, {metrics[n + '/high']:.3f}]" for n in names]
        lines.append([policy, *cells, SUPERVISION[policy]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def reward_table(metrics: Metrics, policy: str) -> str:
    """How well the reward and its main baselines choose, tell right from wrong, and find the first wrong step.

    `metrics` are those of the samples of `policy`.
    """
    n = metrics["n_rerank"]
    columns = {
        f"best of {n}": f"rerank@1|{n}",
        "AUROC": "auroc",
        "within problem": "auroc_within_prompt",
        "first error found": "first_error_hit@1/natural",
    }
    title = (
        f"Scores of the samples of {policy}: {metrics['n_test_problems']} test problems, 95 % intervals over problems"
    )
    shown = Table(WHICH_TO_CHOOSE, title, columns, {name: name for name in METHODS})
    return section(shown, with_aliases(metrics))


def main() -> None:
    run_dir, seconds = Path(sys.argv[1]), float(sys.argv[2])
    metrics = join(run_dir, seconds)
    rows = [row for _, row in read_jsonl(run_dir / TRACES_FILE)]
    test = [row for row in rows if row["split"] == TEST]
    write_run_report(run_dir, metrics, balanced(test, 2000, seed=0), len(test))
    of_start = read_metrics(run_dir / POLICIES[START] / METRICS_FILE)
    print(f"{policy_table(metrics)}\n\n{reward_table(of_start, START)}\n\n{reward_table(metrics, 'airl')}\n")
    print(
        f"{seconds:.0f} s in total, written to {run_dir}:\n"
        f"  {REPORT_FILE}  open it in a browser: the tables, and each token of each trace coloured by its reward\n"
        f"  {TABLES_FILE}   all tables and baselines as text; {METRICS_FILE} has the numbers\n"
        f"  {FIGURES}/     each figure as PNG and PDF\n"
        "Next, the same with another form of the reward (its own, not that of the whole prefix, for each token):\n"
        "  bash runner_scripts/quickstart.sh outputs/additive 0 model.discriminator_logit=additive"
    )


if __name__ == "__main__":
    main()
