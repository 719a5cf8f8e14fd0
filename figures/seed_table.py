"""Prints mean and range of the main metrics over runs with different seeds.

Usage: python figures/seed_table.py RUN_DIR [RUN_DIR ...]
"""

import json
import statistics
import sys
from pathlib import Path

from reasoning_irl.eval.scoring.methods import LOCATING, SCORED

SHOWN = (
    "seconds/total",
    "warm_start/pass@1",
    "airl/pass@1",
    "sft_continued/pass@1",
    "warm_start/pass@8",
    "airl/pass@8",
    "sft_continued/pass@8",
    "majority@8",
    "oracle@8",
    *(
        f"{method}/{metric}"
        for metric in ("auroc", "auroc_within_prompt", "rerank@1|8")
        for method in SCORED
        if method not in ("random", "oracle") or metric == "rerank@1|8"  # an AUROC of 0.5 or 1 by definition
    ),
    *(f"{method}/first_error_hit@1/{errors}" for errors in ("planted", "natural") for method in LOCATING),
)


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit("usage: python figures/seed_table.py RUN_DIR [RUN_DIR ...]")
    runs = [json.loads((Path(folder) / "metrics.json").read_text()) for folder in sys.argv[1:]]
    print(f"| metric | mean of {len(runs)} | lowest | highest |\n|---|---|---|---|")
    for name in SHOWN:
        values = [run[name] for run in runs if run.get(name) is not None]
        if values:
            # An unescaped pipe would end the cell.
            cell = name.replace("|", "\\|")
            print(f"| {cell} | {statistics.mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |")


if __name__ == "__main__":
    main()
