"""The table of seeds, from hand-made metrics."""

import json
from pathlib import Path

from tests.helpers.commands import REPOSITORY, run_python


def test_mean_and_range_of_the_runs_that_have_a_metric(tmp_path: Path) -> None:
    for seed, metrics in enumerate([{"reward/rerank@1|8": 0.5, "oracle@8": 0.75}, {"reward/rerank@1|8": 0.75}]):
        (tmp_path / f"seed{seed}").mkdir()
        (tmp_path / f"seed{seed}/metrics.json").write_text(json.dumps({**metrics, "airl/pass@1": None}))
    done = run_python(REPOSITORY / "figures/seed_table.py", "seed0", "seed1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "| metric | mean of 2 | lowest | highest |",
        "| --- | --- | --- | --- |",
        "| oracle@8 | 0.750 | 0.750 | 0.750 |",
        "| reward/rerank@1\\|8 | 0.625 | 0.500 | 0.750 |",
    ]
