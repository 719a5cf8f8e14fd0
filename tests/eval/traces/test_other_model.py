"""Comparing two reward models on one traces file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_irl.config.schema import Granularity, RewardHead
from reasoning_irl.eval.evaluate_irl import run_irl_evaluation
from reasoning_irl.eval.traces.other_model import other_rewards, scored_traces
from reasoning_irl.eval.traces.trace_file import Skipped, read_traces
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model
from reasoning_irl.text.token_spans import token_pieces
from reasoning_irl.utils.errors import DataError, UserError
from tests.helpers.configs import irl_config
from tests.helpers.tokenizers import COARSE, FINE
from tests.helpers.traces import GOOD, QUESTION, read_rows, write_rows

RIGHT = "<think>\n3 + 4 = 7\n7 + 1 = 8\n</think>\n<answer>\n8\n</answer>"
EARLY = "<think>\n3 + 4 = 9\n9 + 1 = 10\n</think>\n<answer>\n10\n</answer>"
LATE = "<think>\n3 + 4 = 7\n7 + 1 = 9\n</think>\n<answer>\n9\n</answer>"
MAIN = ("rerank@1|4", "auroc_within_prompt", "auroc", "first_error_hit@1/natural")


def rows(n_problems: int = 30) -> list[dict[str, Any]]:
    """Per problem, a right sample, one wrong in its first step, and two equal ones wrong in their second."""
    steps = {RIGHT: None, EARLY: 1, LATE: 2}
    return [
        {"id": f"p{n}", "question": QUESTION.replace("4", str(4 + n % 9)), "completion": text, "correct": text == RIGHT}
        | {"first_error_step": steps[text]}
        for n in range(n_problems)
        for text in (RIGHT, EARLY, LATE, LATE)
    ]


def evaluate(reward: Path, traces: Path, out: Path, *overrides: str) -> dict[str, Any]:
    given = (f"model.reward_path={reward}", f"eval.traces={traces}", f"output_dir={out}", "run_dir=null")
    return run_irl_evaluation(irl_config(*given, "eval.bootstrap_draws=100", *overrides))


def rewrite(source: Path, target: Path, reward_of: Callable[[dict[str, Any]], list[float]]) -> Path:
    """A scored file with other rewards."""
    write_rows(target / "traces.jsonl", [{**row, "token_rewards": reward_of(row)} for row in read_rows(source)])
    return target


@pytest.fixture(scope="module")
def scored(reward_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a traces file and, in `ours`, its evaluation with the run's reward model."""
    folder = tmp_path_factory.mktemp("scored")
    file = write_rows(folder / "traces.jsonl", rows())
    evaluate(reward_folder, file, folder / "ours")
    return folder


def knows(row: dict[str, Any]) -> list[float]:
    """The rewards of a model that knows the wrong line."""
    wrong, line, values = row["first_error_step"], 0, []
    for piece in row["tokens"]:
        values.append(1.0 if wrong is None else -1.0 if line == wrong else 0.1)
        line += piece.count("\n")
    return values


def test_better_and_worse_models_are_recognised_and_a_model_equals_itself(
    reward_folder: Path, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = scored / "traces.jsonl"
    best = rewrite(scored / "ours/traces.jsonl", tmp_path / "best", knows)
    # A constant reward, not the best one with its sign flipped: calibration would undo the flip.
    blind = rewrite(scored / "ours/traces.jsonl", tmp_path / "blind", lambda row: [0.0] * len(row["tokens"]))
    found = {}
    for name, against in (("best", best), ("blind", blind), ("self", scored / "ours")):
        capsys.readouterr()
        found[name] = evaluate(reward_folder, file, tmp_path / f"to_{name}", f"eval.against={against}")
        printed = capsys.readouterr().out
        assert f"This reward model against that of {against / 'traces.jsonl'} (supervision: not declared)" in printed
        for metric in MAIN:
            metrics, minus = found[name], f"reward_minus_other/{metric}"
            expected = metrics[f"reward/{metric}"] - metrics[f"other/{metric}"]
            assert metrics[minus] == pytest.approx(expected)
            assert metrics[f"{minus}/low"] <= metrics[minus] <= metrics[f"{minus}/high"]
            pair = f"{metrics[f'reward/{metric}']:.3f} against {metrics[f'other/{metric}']:.3f}"
            assert f"  {metric}: {pair}, {metrics[f'{minus}/verdict']} " in printed
    best_of = found["best"]
    assert [best_of[f"other/{metric}"] for metric in MAIN] == [1.0, 1.0, 1.0, 1.0]
    for metric in MAIN[:3]:
        assert best_of[f"reward_minus_other/{metric}/verdict"] == "worse"
        assert found["blind"][f"reward_minus_other/{metric}/verdict"] == "better"
    assert best_of["reward_minus_other/brier/verdict"] == "worse"  # lower is better
    assert best_of["reward_minus_other/brier"] > 0
    for metric in (*MAIN, "brier"):
        assert found["self"][f"reward_minus_other/{metric}"] == pytest.approx(0, abs=1e-3)
        assert found["self"][f"reward_minus_other/{metric}/verdict"] == "cannot tell"
    # The file has no planted errors, and the metrics say so.
    assert best_of["other/first_error_hit@1/planted"] is None
    assert "planted errors" in best_of["other/first_error_hit@1/planted/note"]
    # The reward's own metrics do not depend on the model that it is compared with.
    for metric in MAIN:
        assert best_of[f"reward/{metric}"] == found["self"][f"reward/{metric}"]
    assert best_of["choice/other/aggregation"] in ("mean", "min", "step_min", "product")
    # Scoring again in place without the other model removes the comparison.
    out = tmp_path / "to_best"
    assert not any("other" in key for key in evaluate(reward_folder, out / "traces.jsonl", out))


def test_swapping_the_models_flips_the_differences(
    run_dir: Path, reward_folder: Path, scored: Path, tmp_path: Path
) -> None:
    first, second = reward_folder, tmp_path / "second/reward_model"
    second.parent.mkdir()
    build_other(run_dir / "checkpoint-10", second)
    file = scored / "traces.jsonl"
    evaluate(second, file, tmp_path / "b")
    one = evaluate(first, file, tmp_path / "a_b", f"eval.against={tmp_path / 'b'}")
    other = evaluate(second, file, tmp_path / "b_a", f"eval.against={scored / 'ours'}")
    for metric in MAIN:
        assert one[f"reward/{metric}"] == pytest.approx(other[f"other/{metric}"], abs=1e-6)
        minus = f"reward_minus_other/{metric}"
        assert one[minus] == pytest.approx(-other[minus], abs=1e-6)
        assert one[f"{minus}/low"] == pytest.approx(-other[f"{minus}/high"], abs=1e-6)


def build_other(checkpoint: Path, folder: Path) -> None:
    """A second reward model, with other random weights."""
    torch.manual_seed(3)
    tokenizer = build_tokenizer(40)
    build_reward_model(str(checkpoint), RewardSpec(RewardHead.plain, Granularity.dense, 1), tokenizer).save(folder)
    tokenizer.save_pretrained(folder)


def test_traces_missing_in_the_other_file_are_counted(reward_folder: Path, scored: Path, tmp_path: Path) -> None:
    reward, file = reward_folder, scored / "traces.jsonl"
    theirs = read_rows(scored / "ours/traces.jsonl")
    # There, line 2 has another completion and line 9 another problem.
    theirs[1]["completion"] += " "
    theirs[8]["id"] = "elsewhere"
    theirs[1]["tokens"][-1] += " "
    fewer = write_rows(tmp_path / "fewer.jsonl", theirs)
    with pytest.raises(DataError, match=r"traces\.jsonl:2: 2 of 120 traces have no counterpart .*fewer\.jsonl: score"):
        evaluate(reward, file, tmp_path / "out", f"eval.against={fewer}")
    assert not (tmp_path / "out").exists()
    metrics = evaluate(reward, file, tmp_path / "out", f"eval.against={fewer}", "eval.on_error=skip")
    assert metrics["n_skipped"] == 2
    assert [row["line"] for row in read_rows(tmp_path / "out/skipped.jsonl")] == [2, 9]
    assert len(read_rows(tmp_path / "out/traces.jsonl")) == 118
    none = write_rows(tmp_path / "none.jsonl", [{**row, "id": "x"} for row in theirs])
    with pytest.raises(DataError, match=r"no trace of .* is in .*none\.jsonl"):
        evaluate(reward, file, tmp_path / "none", f"eval.against={none}", "eval.on_error=skip")


def test_rows_are_matched_by_content_and_not_by_position(scored: Path, tmp_path: Path) -> None:
    """Trap: comparing scores of a file in another order, or of another problem with the same completion."""
    theirs = read_rows(scored / "ours/traces.jsonl")
    for number, row in enumerate(theirs):
        row["token_rewards"] = [float(number)] * len(row["tokens"])
    shuffled = write_rows(tmp_path / "shuffled.jsonl", theirs[::-1])
    file = scored / "traces.jsonl"
    traces = read_traces(file, build_tokenizer(40), 0.0, 0)
    kept, found = other_rewards(shuffled, traces, Skipped(file))
    assert kept == traces
    for number, values in enumerate(found):
        same = number + 1 if number % 4 == 2 else number  # of two equal texts, the first is used
        assert values.tolist() == [float(same)] * len(traces[number].pieces)


@pytest.mark.parametrize("truncated", [False, True])
def test_rewards_of_another_tokenizer_are_carried_by_characters(truncated: bool, tmp_path: Path) -> None:
    text = "<think>\n12 + 30 = 42\n</think>"
    row = {"question": "How many?", "completion": text, "correct": True, "truncated": truncated}
    file = write_rows(tmp_path / "t.jsonl", [row])
    coarse, fine = (read_traces(file, tokenizer, 0.0, 0) for tokenizer in (COARSE, FINE))
    pieces = coarse[0].pieces
    assert len(pieces) < len(fine[0].pieces)
    rewards = [float(number) for number in range(len(pieces))]
    other = write_rows(tmp_path / "other.jsonl", [{**row, "tokens": pieces, "token_rewards": rewards}])
    (_, (carried,)) = other_rewards(other, fine, Skipped(file))
    expected, at = [], 0
    of_character = [reward for piece, reward in zip(pieces, rewards, strict=True) for _ in piece]
    for piece in fine[0].pieces:
        here = of_character[at : at + len(piece)]
        expected.append(np.mean(here) if here else rewards[-1])
        at += len(piece)
    np.testing.assert_allclose(carried, expected)
    # And back: a coarse token gets the mean of the fine tokens in it.
    back = write_rows(tmp_path / "back.jsonl", [{**row, "tokens": fine[0].pieces, "token_rewards": carried.tolist()}])
    (_, (again,)) = other_rewards(back, coarse, Skipped(file))
    np.testing.assert_allclose(again, rewards, rtol=1e-6)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"tokens": None}, r"other\.jsonl:1: the trace lacks 'tokens' or 'token_rewards'"),
        ({"token_rewards": [1.0]}, r"other\.jsonl:1: 'tokens' and 'token_rewards' do not match 'completion'"),
        ({"tokens": ["another", " text"], "token_rewards": [1.0, 2.0]}, "do not match 'completion'"),
    ],
)
def test_file_without_usable_rewards_says_why(broken: dict[str, Any], message: str, tmp_path: Path) -> None:
    tokenizer = build_tokenizer(40)
    file = write_rows(tmp_path / "t.jsonl", [GOOD])
    traces = read_traces(file, tokenizer, 0.0, 0)
    pieces = token_pieces(tokenizer, traces[0].sequence.completion_ids)
    row = {**GOOD, "tokens": pieces, "token_rewards": [0.0] * len(pieces), **broken}
    with pytest.raises(DataError, match=message):
        other_rewards(write_rows(tmp_path / "other.jsonl", [row]), traces, Skipped(file))


def test_missing_file_to_compare_with_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for against in (tmp_path / "empty", tmp_path / "none.jsonl"):
        with pytest.raises(UserError, match=r"eval\.against=.* has no traces\.jsonl: set it to the output_dir"):
            scored_traces(str(against))
