"""The benchmark of reward forms on real solutions: its hidden states, its splits, and that it reads no labels."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gsm8k_reward
from benchmarks.gsm8k_reward import EDITS, FORMS, SAMPLES, Problem, Trace
from reasoning_irl.data.tokens import TokenSequence, collate, encode_completion, encode_prompt
from reasoning_irl.models.loading import load_policy
from reasoning_irl.models.logprobs import token_logps
from reasoning_irl.training.discriminator import Origin
from reasoning_irl.utils.errors import DataError
from tests.helpers.models import save_tiny_model
from tests.helpers.tokenizers import COARSE
from tests.helpers.traces import write_rows

N = 14


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Questions with solutions, and three samples of each: one right, one wrong, one without an equation."""
    questions, samples = [], []
    for n in range(N):
        question = f"Tom has {n} apples. Tom finds 4 more. How many apples are there?"
        questions.append({"question": question, "answer": f"Tom has {n} + 4 = <<{n}+4={n + 4}>>{n + 4}\n#### {n + 4}"})
        for text, right in ((f"{n} + 4 = {n + 4}", True), (f"{n} * 4 = {n + 9}", False), ("I guess.", False)):
            completion = f"<think>\n{text}\n</think>\n<answer>\n{n + 4}\n</answer>"
            samples.append({"question": question, "completion": completion, "correct": right})
    return write_rows(tmp_path / "questions.jsonl", questions), write_rows(tmp_path / "samples.jsonl", samples)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k_reward, "N_VALIDATION", 4)
    monkeypatch.setattr(gsm8k_reward, "N_TEST", 4)
    monkeypatch.setattr(gsm8k_reward, "DRAWS", 20)


def arguments(files: tuple[Path, Path], folder: Path, model: str) -> argparse.Namespace:
    return argparse.Namespace(questions=files[0], samples=files[1], model=model, layer=1, folder=folder, n_learn=None)


def made_problem(name: str, split: str, seed: int) -> Problem:
    """Traces of noise in which one token of a wrong one has a low first dimension."""
    generator = torch.Generator().manual_seed(seed)

    def trace(origin: Origin, correct: bool | None, length: int) -> Trace:
        hidden = 0.3 * torch.randn(length, 5, generator=generator)
        if origin == EDITS or correct is False:
            hidden[length // 2, 0] -= 3
        return Trace(origin, correct, hidden.half(), -torch.rand(length, generator=generator))

    samples = [trace(SAMPLES, right, 9 + seed % 3) for right in (True, False, True, False)]
    edits = [trace(EDITS, None, 7), trace(EDITS, None, 8)]
    return Problem(name, split, [trace(Origin.expert, None, 8), *samples, *edits])


def test_every_question_is_in_one_split(files: tuple[Path, Path]) -> None:
    questions = gsm8k_reward.read_questions(*files, None)
    assert [q.split for q in questions].count("learn") == N - 8
    assert len({q.record.question for q in questions}) == N
    assert all(len(q.samples) == 3 for q in questions)
    few = gsm8k_reward.read_questions(*files, 2)
    assert [q.record.id for q in few] == [q.record.id for q in questions[:10]]


def test_too_few_questions_are_refused(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k_reward, "N_TEST", 10)
    with pytest.raises(DataError, match="14 questions"):
        gsm8k_reward.read_questions(*files, None)


def test_hidden_states_and_log_probabilities_are_those_of_a_plain_pass(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Trap: solutions that continue a stored prompt at the wrong positions."""
    model = load_policy(str(save_tiny_model(tmp_path / "model", COARSE, initializer_range=0.3))).eval()
    question = gsm8k_reward.read_questions(*files, None)[0]
    problem = gsm8k_reward.computed(question, model, COARSE, layer=1)
    rows = gsm8k_reward.texts_of(question)
    assert [(t.origin, t.correct) for t in problem.traces] == [(origin, correct) for origin, correct, _ in rows]
    prompt = encode_prompt(COARSE, question.record.prompt)
    for trace, (origin, _, text) in zip(problem.traces, rows, strict=True):
        ids, _ = encode_completion(COARSE, text, 300)
        with torch.no_grad():
            hidden = model(torch.tensor([[*prompt, *ids]]), output_hidden_states=True).hidden_states[1][0]
            logps, _ = token_logps(model, collate([TokenSequence(prompt, ids)], COARSE.pad_token_id))
        torch.testing.assert_close(trace.hidden.float(), hidden[len(prompt) :], atol=5e-3, rtol=5e-3)
        if origin == SAMPLES:
            torch.testing.assert_close(trace.logps, logps[0], atol=1e-4, rtol=1e-4)


def test_an_interrupted_call_goes_on_and_a_finished_one_needs_no_model(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    model = str(save_tiny_model(tmp_path / "model", COARSE))
    folder = tmp_path / "states"
    folder.mkdir()
    questions = gsm8k_reward.read_questions(*files, None)
    known = arguments(files, folder, model)
    first = gsm8k_reward.all_problems(questions, known)
    (folder / f"{questions[3].record.id}.pt").unlink()
    again = gsm8k_reward.all_problems(questions, known)
    shutil.rmtree(model)
    finished = gsm8k_reward.all_problems(questions, known)
    other = argparse.Namespace(**{**vars(known), "layer": 2})
    with pytest.raises(DataError, match="another model, layer or set of samples"):
        gsm8k_reward.all_problems(questions, other)
    for a, b, c in zip(first, again, finished, strict=True):
        assert a.name == b.name == c.name
        assert all(
            torch.equal(x.hidden, y.hidden) and torch.equal(x.hidden, z.hidden)
            for x, y, z in zip(a.traces, b.traces, c.traces, strict=True)
        )


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if not form.from_labels])
def test_rewards_learn_the_planted_error_and_no_label(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k_reward, "UPDATES", 60)
    monkeypatch.setattr(gsm8k_reward, "LEARNING_RATE", 1e-2)
    problems = [made_problem(str(seed), "learn", seed) for seed in range(12)]
    test = [made_problem(f"test {seed}", "test", 100 + seed) for seed in range(6)]
    values = gsm8k_reward.learn(problems, FORMS[name], seed=0)
    judged = gsm8k_reward.judge(test, lambda trace: float(values(trace).min()))
    assert np.nanmean(judged.within) > 0.9
    turned = [
        replace(p, traces=[replace(t, correct=None if t.correct is None else not t.correct) for t in p.traces])
        for p in problems
    ]
    same = gsm8k_reward.learn(turned, FORMS[name], seed=0)
    assert all((values(trace) == same(trace)).all() for problem in test for trace in problem.traces)


def test_labels_are_the_only_form_that_reads_labels() -> None:
    assert all(form.from_labels == name.startswith("labels") for name, form in FORMS.items())


def test_problems_with_one_class_are_not_learnt_from_labels() -> None:
    """Trap: wrong samples compared with right ones of other problems, which no other form does."""
    problem = made_problem("0", "learn", 0)
    wrong = replace(
        problem, traces=[replace(t, correct=False if t.origin == SAMPLES else None) for t in problem.traces]
    )
    assert gsm8k_reward.rows_of(wrong, FORMS["labels"]) == []
    assert len(gsm8k_reward.rows_of(problem, FORMS["labels"])) == 4
    assert [is_positive for _, is_positive in gsm8k_reward.rows_of(wrong, FORMS["labels, experts and edits"])] == [
        True,
        *[False] * 6,
    ]


def test_table_has_every_form_and_baseline_with_their_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k_reward, "UPDATES", 3)
    splits = ["learn"] * 9 + ["validation"] * 3 + ["test"] * 4
    problems = [made_problem(str(n), split, n) for n, split in enumerate(splits)]
    lines = gsm8k_reward.table(problems, [0, 1], {"log-probability of SFT": lambda trace: trace.logps.numpy() * 2.0})
    names = [line.split("|")[1].strip() for line in lines[2:]]
    baselines = ["random", "length", "log-probability", "log-probability of SFT", "oracle"]
    both = "log-probability + log-probability of SFT"
    assert names == [*baselines, *FORMS, *(f"{name} + {both}" for name in FORMS)]
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in lines[4].split("|")]
    own = [place for place, cell in enumerate(lines[0].split("|")) if cell.strip() == "minus log-probability"]
    assert [cells[place] for place in own] == ["+0.000 [+0.000, +0.000]"] * 2  # log-probability against itself
