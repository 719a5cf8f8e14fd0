"""Prints mean and range of the main metrics over runs with different seeds.

Usage: python figures/seed_table.py RUN_DIR [RUN_DIR ...]
"""

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as a script, only figures/ is on the path
from figures.tables import known, markdown, number
from reasoning_irl.eval.scoring.methods import LOCATING, SCORED

OF_START = ("auroc_within_prompt", "rerank@1|8")  # of the samples of the warm start
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
        f"{of}{method}/{metric}"
        for of, metrics in (("", ("auroc", "auroc_within_prompt", "rerank@1|8")), ("warm_start/", OF_START))
        for metric in metrics
        for method in SCORED
        if method not in ("random", "oracle") or metric == "rerank@1|8"  # an AUROC of 0.5 or 1 by definition
    ),
    *(f"{method}/first_error_hit@1/{errors}" for errors in ("planted", "natural") for method in LOCATING),
)


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit("usage: python figures/seed_table.py RUN_DIR [RUN_DIR ...]")
    runs = {folder: json.loads((Path(folder) / "metrics.json").read_text()) for folder in sys.argv[1:]}
    rows = []
    for name in SHOWN:
        values = known(runs, name).values()
        if values:
            rows.append([name, *map(number, (statistics.mean(values), min(values), max(values)))])
    print(markdown(["metric", f"mean of {len(runs)}", "lowest", "highest"], rows), end="")


if __name__ == "__main__":
    main()
