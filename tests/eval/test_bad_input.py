"""Traces files that are broken or of another program's shape: what cannot be used is named, and nothing is lost."""

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reasoning_irl.config.schema import Granularity, OnError, RewardHead
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.evaluate_irl import run_irl_evaluation
from reasoning_irl.eval.reports.first_error import natural_errors
from reasoning_irl.eval.scoring.generation import score_by_length
from reasoning_irl.eval.traces.trace_file import HELD, Skipped, Trace, plain_rows, read_traces
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.reward_model import RewardSpec, build_reward_model
from reasoning_irl.text.token_spans import spans_of
from reasoning_irl.utils.errors import DataError, UserError
from tests.helpers.traces import (
    FOUND,
    GOOD,
    MR_GSM8K,
    PROCESSBENCH,
    QUESTION,
    RIGHT,
    foreign_rows,
    irl_config,
    read_rows,
    write_rows,
)

TOKENIZER = build_tokenizer(40)
BROKEN: list[tuple[dict[str, Any] | str, str]] = [
    ({"question": "q", "correct": True}, "the trace has no 'completion'"),
    ({"question": "q", "completion": "c"}, "the trace has no 'correct'"),
    ({"completion": "c", "correct": True}, "the trace has no 'question'"),
    ({**GOOD, "correct": "yes"}, "'correct' must be true, false or null"),
    ({**GOOD, "completion": 7}, "'completion' is a int"),
    ({**GOOD, "prompt": []}, "'prompt' must be text, or a list of chat messages"),
    ({**GOOD, "prompt": [{"role": "user"}]}, "'prompt' must be text, or a list of chat messages"),
    ({**GOOD, "split": "train"}, "'split' must be validation or test"),
    ({**GOOD, "answer_kind": "essay"}, "'answer_kind' must be"),
    ({**GOOD, "first_error_step": 0}, "'first_error_step' must be a step's number from 1"),
    ({**GOOD, "first_error_step": 1, "sound": True}, "'sound' says that no step is wrong"),
    ({**GOOD, "steps": "3 + 4 = 7"}, "'steps' must be a list of texts"),
    ({**GOOD, "token_ids": ["3"]}, "'token_ids' must be a list of whole numbers"),
    ({**GOOD, "completion": "", "truncated": True}, "'completion' is empty and was cut off"),
    ({**GOOD, "steps": ["3 + 4", "5 + 5"], "first_error_step": 1}, "does not show the texts of 'steps'"),
    ("{broken", "not valid JSON"),
    ('{"question": "q", "completion": "c", "correct": true, "logprob": NaN}', "holds NaN, which is no JSON number"),
    ("[1]", "JSON list"),
]


def write_lines(path: Path, lines: list[dict[str, Any] | str]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def read(path: Path, **keys: Any) -> list[Trace]:
    return read_traces(path, TOKENIZER, 0.0, 0, **keys)


@pytest.mark.parametrize(("row", "reason"), BROKEN)
def test_a_row_that_cannot_be_used_is_named(row: dict[str, Any] | str, reason: str, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "t.jsonl", [GOOD, "", row])
    with pytest.raises(DataError, match=r"t\.jsonl:3: ") as caught:
        read(file)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_skipped_rows_are_counted_listed_and_no_others_are_lost(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = foreign_rows()
    lines: list[dict[str, Any] | str] = [*rows[:5], *(row for row, _ in BROKEN), *rows[5:]]
    file = write_lines(tmp_path / "t.jsonl", lines)
    reward = run_dir / "checkpoint-10/reward_model"
    given = ("run_dir=null", f"model.reward_path={reward}", f"eval.traces={file}")
    with pytest.raises(DataError, match=r"t\.jsonl:6: the trace has no 'completion'"):
        run_irl_evaluation(irl_config(*given, f"output_dir={tmp_path / 'out'}"))
    assert not (tmp_path / "out").exists()

    metrics = run_irl_evaluation(irl_config(*given, f"output_dir={tmp_path / 'out'}", "eval.on_error=skip"))
    printed = capsys.readouterr().out
    skipped = read_rows(tmp_path / "out/skipped.jsonl")
    assert [row["line"] for row in skipped] == list(range(6, 6 + len(BROKEN)))
    for row, (_, reason) in zip(skipped, BROKEN, strict=True):
        assert reason in row["reason"]
    assert metrics["n_skipped"] == len(BROKEN)
    assert (
        f"\nleft out {len(BROKEN)} rows of {file} (line 6: the trace has no 'completion'; each line needs it)"
        in printed
    )
    kept = read_rows(tmp_path / "out/traces.jsonl")
    assert [{key: row[key] for key in GOOD} for row in kept] == rows
    # They weigh nothing: without them everything is the same.
    clean = write_rows(tmp_path / "clean.jsonl", rows)
    config = irl_config(*given[:2], f"eval.traces={clean}", f"output_dir={tmp_path / 'clean'}")
    assert run_irl_evaluation(config) == {**metrics, "n_skipped": 0}
    assert not (tmp_path / "clean/skipped.jsonl").exists()


def test_a_file_scored_in_place_never_loses_rows(run_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_dir, run)
    file = write_lines(run / "traces.jsonl", [*foreign_rows(2), "{broken"])
    before = file.read_text()
    with pytest.raises(UserError, match=r"would lose 1 row of .*line 7: .*set another output_dir=FOLDER"):
        run_irl_evaluation(irl_config(f"run_dir={run}", "eval.on_error=skip"))
    assert file.read_text() == before


def test_a_file_of_nothing_but_broken_rows_says_so(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "t.jsonl", ["{broken", {"question": "q"}])
    skipped = Skipped(file, OnError.skip)
    with pytest.raises(DataError, match=r"holds no traces that can be used: the line is not valid JSON"):
        read(file, skipped=skipped)
    with pytest.raises(DataError, match="holds no traces"):
        read(write_lines(tmp_path / "empty.jsonl", []))


@pytest.mark.slow
def test_one_broken_row_of_a_long_file_is_found_line_by_line(tmp_path: Path) -> None:
    """A file of any length is met a line at a time, and its one broken row before anything is encoded."""
    path, n = tmp_path / "long.jsonl", 1_000_000
    with path.open("w") as file:
        row = '{"question": "q", "completion": "c", "correct": true}\n'
        file.writelines([row] * (n - 2))
        file.write('{"question"\n' + row)
    with pytest.raises(DataError, match=rf"long\.jsonl:{n - 1}: the line is not valid JSON"):
        read(path)
    tracemalloc.start()
    skipped = Skipped(path, OnError.skip)
    rows = plain_rows(path, skipped)
    assert sum(1 for _, _ in zip(rows, range(20_000), strict=False)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # bytes: a few rows and the file's buffer


def test_an_empty_completion_is_scored_at_its_end_token_and_counted(run_dir: Path, tmp_path: Path) -> None:
    """A sample that ended at once is a sample: left out, a problem would seem to have fewer."""
    rows = [*foreign_rows(), {**GOOD, "completion": "", "correct": False}]
    file = write_rows(tmp_path / "t.jsonl", rows)
    out = tmp_path / "out"
    metrics = run_irl_evaluation(irl_config(f"run_dir={run_dir}", f"output_dir={out}", f"eval.traces={file}"))
    assert (metrics["n_empty"], metrics["n_skipped"]) == (1, 0)
    scored = read_rows(out / "traces.jsonl")[-1]
    assert (scored["tokens"], len(scored["token_rewards"])) == ([""], 1)
    assert np.isfinite(scored["score"])


def test_a_trace_beyond_the_reward_models_window_is_named_before_any_model_is_loaded(
    run_dir: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(run_dir / "checkpoint-10", checkpoint)
    config_file = checkpoint / "reward_model/config.json"
    config = json.loads(config_file.read_text())
    long = {**GOOD, "question": QUESTION, "completion": "<think>\n" + "3 + 4 = 7\n" * config["max_position_embeddings"]}
    n_prompt = len(read(write_rows(tmp_path / "one.jsonl", [GOOD]))[0].sequence.prompt_ids)
    file = write_rows(tmp_path / "t.jsonl", [*foreign_rows(), long])
    given = (
        "run_dir=null",
        f"model.reward_path={checkpoint / 'reward_model'}",
        f"eval.traces={file}",
        f"output_dir={tmp_path / 'out'}",
    )
    metrics = run_irl_evaluation(irl_config(*given, "eval.on_error=skip"))
    assert metrics["n_skipped"] == 1
    assert read_rows(tmp_path / "out/skipped.jsonl")[0]["line"] == 25
    (checkpoint / "reward_model/model.safetensors").unlink()  # were a model loaded, this would be what is told
    with pytest.raises(DataError, match=r"t\.jsonl:25: prompt and completion have \d+ tokens, more than .* window of"):
        run_irl_evaluation(irl_config(*given[:3], f"output_dir={tmp_path / 'other'}"))

    # To the token: as long as the window is let through.
    trace = read(write_rows(tmp_path / "one.jsonl", [GOOD]))[0]
    n_tokens = n_prompt + len(trace.sequence.completion_ids)
    assert len(read(tmp_path / "one.jsonl", window=n_tokens)) == 1
    with pytest.raises(
        DataError, match=f"have {n_tokens} tokens, more than the reward model's window of {n_tokens - 1}"
    ):
        read(tmp_path / "one.jsonl", window=n_tokens - 1)


def test_a_trace_with_a_score_that_is_no_number_is_left_out_with_all_its_values(run_dir: Path, tmp_path: Path) -> None:
    """Trap: values that stay where their trace is gone are the next trace's."""
    shutil.copytree(run_dir / "checkpoint-10", tmp_path / "checkpoint")
    folder = tmp_path / "checkpoint/reward_model"
    spec = RewardSpec(RewardHead.plain, Granularity.dense, 1)
    model = build_reward_model(str(tmp_path / "checkpoint"), spec, TOKENIZER)
    embedding = model.backbone.get_input_embeddings().weight
    with torch.no_grad():
        embedding[TOKENIZER.convert_tokens_to_ids("9")] = float("nan")
    model.save(folder)
    rows = foreign_rows()
    bad = {**GOOD, "question": QUESTION.replace("4", "40"), "completion": RIGHT.replace("7", "9")}
    file = write_rows(tmp_path / "t.jsonl", [*rows[:4], bad, *rows[4:]])
    given = ("run_dir=null", f"model.reward_path={folder}", "eval.batch_size=1")
    mixed = irl_config(*given, f"eval.traces={file}", f"output_dir={tmp_path / 'out'}", "eval.on_error=skip")
    rows_of_nine = [row for row in rows if "9" in row["question"]]
    assert rows_of_nine  # a question may hold the broken token as well
    metrics = run_irl_evaluation(mixed)
    skipped = read_rows(tmp_path / "out/skipped.jsonl")
    assert skipped[0]["line"] == 5
    assert "the reward (problem" in skipped[0]["reason"]
    assert metrics["n_skipped"] == 1 + len(rows_of_nine)
    clean = write_rows(tmp_path / "clean.jsonl", [row for row in rows if row not in rows_of_nine])
    run_irl_evaluation(irl_config(*given, f"eval.traces={clean}", f"output_dir={tmp_path / 'clean'}"))
    kept, expected = (read_rows(tmp_path / name / "traces.jsonl") for name in ("out", "clean"))
    for row, other in zip(kept, expected, strict=True):
        assert (row["completion"], row["token_rewards"]) == (other["completion"], other["token_rewards"])


def test_labels_of_one_class_have_metrics_that_say_why_they_are_undefined(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, correct in (("right", True), ("wrong", False)):
        rows = [{**row, "correct": correct, "id": f"p{at // 3}"} for at, row in enumerate(foreign_rows())]
        file = write_rows(tmp_path / f"{name}.jsonl", rows)
        out = tmp_path / name
        config = irl_config("run_dir=null", f"model.reward_path={run_dir / 'checkpoint-10/reward_model'}")
        config.eval.traces, config.output_dir = str(file), str(out)
        run_irl_evaluation(config)
        text = (out / "metrics.json").read_text()
        metrics = json.loads(text)
        assert "NaN" not in text
        for metric in ("auroc", "auroc_within_prompt", "auprc", "ece", "brier", "correlation"):
            assert metrics[f"reward/{metric}"] is None
            assert metrics[f"reward/{metric}/low"] is None
            assert metrics[f"reward/{metric}/note"].startswith("undefined: ")
            minus = f"reward_minus_length/{metric}"
            if minus in metrics:
                assert metrics[minus] is None
                assert f"{minus}/verdict" not in metrics
        assert metrics["reward/rerank@1|3"] == float(correct)
        assert "reward/auroc" in capsys.readouterr().out.split("Undefined\n")[1]


def test_traces_without_any_label_are_scored_all_the_same(run_dir: Path, tmp_path: Path) -> None:
    rows = [{**row, "correct": None} for row in foreign_rows()]
    file, out = write_rows(tmp_path / "t.jsonl", rows), tmp_path / "out"
    metrics = run_irl_evaluation(irl_config(f"run_dir={run_dir}", f"output_dir={out}", f"eval.traces={file}"))
    assert metrics["n_unlabelled"] == len(rows)
    assert metrics["reward/rerank@1"] is None
    assert metrics["reward/auroc"] is None
    assert all(np.isfinite(row["score"]) for row in read_rows(out / "traces.jsonl"))


# Other programs' shapes


def test_shapes_are_not_mixed_in_one_file(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"t\.jsonl:2: the row is MR-GSM8K-shaped, and those before it are ProcessBench"
    ):
        list(plain_rows(write_rows(tmp_path / "t.jsonl", [PROCESSBENCH, MR_GSM8K]), Skipped(tmp_path / "t.jsonl")))
    file = write_rows(tmp_path / "u.jsonl", [PROCESSBENCH, {"id": "b", "steps": ["a"], "label": 0}])
    with pytest.raises(DataError, match=r"u\.jsonl:2: "):
        list(plain_rows(file, Skipped(file)))


@pytest.mark.parametrize("row", [PROCESSBENCH, MR_GSM8K, FOUND])
def test_steps_of_other_sets_are_their_own(row: dict[str, Any], tmp_path: Path) -> None:
    (trace,) = read(write_rows(tmp_path / "t.jsonl", [row]))
    ((_, plain),) = plain_rows(tmp_path / "t.jsonl", Skipped(tmp_path / "t.jsonl"))
    assert trace.n_steps == len(plain["steps"])
    assert shown_steps(trace) == [step.split() for step in plain["steps"]]
    source, at_errors, _, _ = natural_errors([trace])
    assert at_errors == [0]
    assert source.errors[0].step == plain["first_error_step"]


def shown_steps(trace: Trace) -> list[list[str]]:
    """The words that the tokens of each step show."""
    text, spans = "".join(trace.pieces), spans_of(trace.pieces)
    places = [
        [span for span, step in zip(spans, trace.step_ids, strict=True) if step == n + 1] for n in range(trace.n_steps)
    ]
    return [text[of_step[0][0] : of_step[-1][1]].split() for of_step in places if of_step]


@pytest.mark.parametrize(
    "steps",
    [
        ["3 + 4 = 7", "3 + 4 = 7", "7"],  # the same step twice
        ["3 + 4\n= 7", "7 + 1 = 8"],  # as many steps as a line rule finds would be another number
        ["3 + 4 = 7", "7 + 1\n= 8"],  # joined by a space, as many as it finds, and others
        ["7", "7 7", "7 7 7"],  # each inside the next
    ],
)
@pytest.mark.parametrize("joint", ["\n", "\n\n", " "])
def test_the_steps_of_a_file_are_found_exactly(steps: list[str], joint: str, tmp_path: Path) -> None:
    """Trap: steps counted by our rule in a text that was cut by another one put the label on the wrong step."""
    row = {**GOOD, "completion": joint.join(steps), "steps": steps, "first_error_step": 2, "correct": False}
    (trace,) = read(write_rows(tmp_path / "t.jsonl", [row]))
    assert trace.n_steps == len(steps)
    assert shown_steps(trace) == [step.split() for step in steps]


def test_what_is_sound_goes_by_the_label_of_the_steps(tmp_path: Path) -> None:
    """Trap: a right answer after a wrong step is no sound trace, nor is a sound one right because nothing is wrong."""
    rows = [
        {**PROCESSBENCH, "label": label, "final_answer_correct": correct, "problem": f"{label} {correct}"}
        for label in (-1, 1)
        for correct in (True, False)
    ]
    traces = read(write_rows(tmp_path / "t.jsonl", rows))
    _, at_errors, at_sound, left_out = natural_errors(traces)
    assert (at_sound, at_errors, left_out) == ([0, 1], [2, 3], 0)
    assert [trace.correct for trace in traces] == [True, False, True, False]


def external_rows(n: int = 24) -> Iterator[dict[str, Any]]:
    for number in range(n):
        label = -1 if number % 2 else number % 3
        row = {**PROCESSBENCH, "id": f"gsm8k-{number}", "label": label, "final_answer_correct": label < 0}
        yield {**row, "problem": QUESTION.replace("4", str(4 + number // 2))}


def test_an_external_set_is_scored_whole(run_dir: Path, tmp_path: Path) -> None:
    file, out = write_rows(tmp_path / "t.jsonl", list(external_rows())), tmp_path / "out"
    config = irl_config("run_dir=null", f"model.reward_path={run_dir / 'checkpoint-10/reward_model'}")
    config.eval.traces, config.output_dir = str(file), str(out)
    metrics = run_irl_evaluation(config)
    # The two solutions of a problem are on one side, though each has an id of its own.
    assert metrics["n_test_problems"] + metrics["n_validation_problems"] == 12
    assert metrics["n_natural"] == metrics["n_natural_sound"] == metrics["n_test_problems"]
    assert metrics["chance/first_error_hit@1/natural"] == pytest.approx(1 / 3)
    for name in ("first_error_hit@1", "first_error_accuracy", "processbench_f1"):
        assert metrics[f"reward/{name}/natural"] is not None
    scored = read_rows(out / "traces.jsonl")
    assert [row["source_id"] for row in scored] == [f"gsm8k-{number}" for number in range(24)]
    # What was scored is a traces file like any other.
    config.eval.traces, config.output_dir = str(out / "traces.jsonl"), str(tmp_path / "again")
    again = run_irl_evaluation(config)
    assert again["reward/processbench_f1/natural"] == metrics["reward/processbench_f1/natural"]


# Memory


def test_traces_hold_what_scoring_needs_and_no_token_twice(tmp_path: Path) -> None:
    """Trap: rows kept whole, each with its own copy of the texts and numbers of its tokens, are most of the memory."""
    rows = [{**row, "notes": ["x" * 1000], "token_rewards": [0.5] * 9, "tokens": ["3"] * 9} for row in foreign_rows()]
    first, *others = read(write_rows(tmp_path / "t.jsonl", rows))
    for trace in others:
        assert set(trace.row) <= set(HELD)
    same = others[2]  # the next problem's first trace
    assert same.pieces == first.pieces
    assert all(a is b for a, b in zip(same.pieces, first.pieces, strict=True))
    assert all(a is b for a, b in zip(same.sequence.completion_ids, first.sequence.completion_ids, strict=True))
    assert others[0].sequence.prompt_ids is first.sequence.prompt_ids


def test_values_keep_nothing_of_their_batch() -> None:
    """Trap: a slice of a batch holds the whole batch, padding and all."""
    sequences = [TokenSequence((1,), (1,) * n) for n in (2, 50)]
    values = score_by_length(sequences, lambda batch: batch.completion_ids * 1.5, 0, 2, list)
    assert [(of_tokens.dtype, of_tokens.base) for of_tokens in values] == [(np.float32, None)] * 2
    assert [of_tokens.tolist() for of_tokens in values] == [[1.5] * 2, [1.5] * 50]
