"""The benchmark of reward forms on real solutions: its hidden states, its folds, and that it reads no labels."""

import argparse
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gsm8k_reward
from benchmarks.gsm8k_reward import EDITS, FORMS, LOGPROB, SAMPLES, SFT_LOGPROB, Problem, Trace
from reasoning_irl.data.tokens import TokenSequence, collate, encode_completion, encode_prompt
from reasoning_irl.models.loading import load_policy
from reasoning_irl.models.logprobs import token_logps
from reasoning_irl.training.discriminator import Origin
from reasoning_irl.utils.errors import DataError, UserError
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
    monkeypatch.setattr(gsm8k_reward, "DRAWS", 20)


def arguments(files: tuple[Path, Path], folder: Path, model: str) -> argparse.Namespace:
    return argparse.Namespace(questions=files[0], samples=files[1], model=model, layer=1, folder=folder, n=None)


def made_problem(name: str, seed: int) -> Problem:
    """Traces of noise in which one token of a wrong one has a low first dimension."""
    generator = torch.Generator().manual_seed(seed)

    def trace(origin: Origin, correct: bool | None, length: int) -> Trace:
        hidden = 0.3 * torch.randn(length, 5, generator=generator)
        if origin == EDITS or correct is False:
            hidden[length // 2, 0] -= 3
        logps = {LOGPROB: -torch.rand(length, generator=generator)} if origin == SAMPLES else {}
        return Trace(origin, correct, hidden.half(), logps)

    samples = [trace(SAMPLES, right, 9 + seed % 3) for right in (True, False, True, False)]
    edits = [trace(EDITS, None, 7), trace(EDITS, None, 8)]
    return Problem(name, [trace(Origin.expert, None, 8), *samples, *edits])


def test_every_question_is_judged_once_and_never_learnt_from_in_that_fold(files: tuple[Path, Path]) -> None:
    """Trap: a reward that is judged on problems it has learnt from, or read by labels of problems that judge it."""
    questions = gsm8k_reward.read_questions(*files, None)
    assert len({q.record.question for q in questions}) == N
    assert all(len(q.samples) == 3 for q in questions)
    folds = gsm8k_reward.folds_of([q.record.id for q in questions])
    assert sorted(name for fold in folds for name in fold.test) == sorted(q.record.id for q in questions)
    for fold in folds:
        assert sorted([*fold.learn, *fold.validation, *fold.test]) == sorted(q.record.id for q in questions)
        assert len(fold.validation) == 4
    few = gsm8k_reward.read_questions(*files, 10)
    assert [q.record.id for q in few] == [q.record.id for q in questions[:10]]


def test_too_few_questions_are_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="6 questions"):
        gsm8k_reward.read_questions(*files, 6)


def test_hidden_states_and_log_probabilities_are_those_of_a_plain_pass(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Traps: solutions that continue a stored prompt at the wrong positions, or after one another's; the final norm."""
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
            torch.testing.assert_close(trace.logps[LOGPROB], logps[0], atol=1e-4, rtol=1e-4)
        else:
            assert trace.logps == {}


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
    problems = [made_problem(str(seed), seed) for seed in range(12)]
    test = [made_problem(f"test {seed}", 100 + seed) for seed in range(6)]
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
    problem = made_problem("0", 0)
    wrong = replace(
        problem, traces=[replace(t, correct=False if t.origin == SAMPLES else None) for t in problem.traces]
    )
    assert gsm8k_reward.rows_of(wrong, FORMS["labels"]) == []
    assert len(gsm8k_reward.rows_of(problem, FORMS["labels"])) == 4
    assert [is_positive for _, is_positive in gsm8k_reward.rows_of(wrong, FORMS["labels, experts and edits"])] == [
        True,
        *[False] * 6,
    ]


def test_hidden_states_are_standardised_by_those_learnt_from() -> None:
    """Trap: test problems that decide how they are read themselves."""
    [fold, *_] = gsm8k_reward.folds_of([made_problem(str(n), n) for n in range(12)])
    ready = gsm8k_reward.standardised(fold)
    known = torch.cat([t.hidden for p in ready.learn for t in p.of(Origin.expert, SAMPLES)]).float()
    torch.testing.assert_close(known.mean(0), torch.zeros(5), atol=0.02, rtol=0)
    moved = replace(fold, test=[gsm8k_reward.with_hidden(p, lambda hidden: hidden + 100) for p in fold.test])
    again = gsm8k_reward.standardised(moved)
    for one, other in zip(ready.learn, again.learn, strict=True):
        assert all(torch.equal(a.hidden, b.hidden) for a, b in zip(one.traces, other.traces, strict=True))
    assert all((t.hidden == gsm8k_reward.CLAMP).all() for p in again.test for t in p.traces)


def test_log_probabilities_of_sft_belong_to_their_sample(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = str(save_tiny_model(tmp_path / "model", COARSE, initializer_range=0.3))
    questions = gsm8k_reward.read_questions(*files, None)
    known = arguments(files, tmp_path / "states", model)
    known.folder.mkdir()
    problems = gsm8k_reward.all_problems(questions, known)
    [fold, *_], [asked, *_] = gsm8k_reward.folds_of(problems), gsm8k_reward.folds_of(questions)
    # With the model itself in place of one after SFT, both baselines agree.
    added = gsm8k_reward.with_sft(fold, asked, model)
    assert added.learn == fold.learn
    for problem in [*added.validation, *added.test]:
        for trace in problem.of(SAMPLES):
            torch.testing.assert_close(trace.logps[SFT_LOGPROB], trace.logps[LOGPROB], atol=1e-4, rtol=1e-4)


def test_layers_whose_states_are_not_comparable_are_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Trap: of the last layer, samples would have the state after the final norm, experts the one before."""
    model = str(save_tiny_model(tmp_path / "model", COARSE))
    questions = gsm8k_reward.read_questions(*files, None)
    for layer in (-1, 0, 2):
        known = argparse.Namespace(**{**vars(arguments(files, tmp_path, model)), "layer": layer})
        with pytest.raises(UserError, match="choose one of 1 to 1"):
            gsm8k_reward.all_problems(questions, known)


def test_log_probabilities_of_other_samples_are_not_used(files: tuple[Path, Path], tmp_path: Path) -> None:
    model = str(save_tiny_model(tmp_path / "model", COARSE))
    [question, *_] = gsm8k_reward.read_questions(*files, None)
    changed = replace(question, samples=[("<think>\n9 + 9 = 9\n</think>", True)])
    first = gsm8k_reward.sft_logprobs([question], model)
    both = gsm8k_reward.sft_logprobs([changed], model)
    assert set(first) < set(both)
    assert len(both[gsm8k_reward.samples_id(changed)]) == 1


def test_table_has_every_form_and_baseline_with_their_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k_reward, "UPDATES", 3)

    def with_second_baseline(problem: Problem) -> Problem:
        traces = [
            replace(t, logps={name: 2 * v for name in (LOGPROB, SFT_LOGPROB) for v in t.logps.values()})
            for t in problem.traces
        ]
        return replace(problem, traces=traces)

    problems = [with_second_baseline(made_problem(str(n), n)) for n in range(15)]
    lines = gsm8k_reward.table(gsm8k_reward.folds_of(problems), [0, 1])
    names = [line.split("|")[1].strip() for line in lines[2:]]
    baselines = ["random", "length", LOGPROB, SFT_LOGPROB, "oracle"]
    assert names == [
        *baselines,
        *FORMS,
        "chosen by validation",
        *(f"{name} + {LOGPROB} + {SFT_LOGPROB}" for name in FORMS),
    ]
    assert len({line.count("|") for line in lines}) == 1
    cells = [cell.strip() for cell in lines[4].split("|")]
    own = [place for place, cell in enumerate(lines[0].split("|")) if cell.strip() == f"minus {LOGPROB}"]
    assert [cells[place] for place in own] == ["+0.000 [+0.000, +0.000]"] * 2  # log-probability against itself


def test_each_fold_chooses_its_own_form_without_labels() -> None:
    """Traps: one form for all folds, chosen by problems that some of them test; a form that has seen labels."""
    rows: dict[str, gsm8k_reward.Scored] = defaultdict(gsm8k_reward.Scored)
    for fold, best in enumerate(["additive pairs", "token bce, edits only"]):
        for number, name in enumerate(FORMS):
            value = 0.9 if name == "labels" else 0.7 if name == best else 0.5
            rows[name].validation += [value, value]
            rows[name].judged.append(gsm8k_reward.Judged(np.array([float(number + 100 * fold)]), np.array([0.0])))
        gsm8k_reward.add_chosen(rows, n_seeds=2)
    chosen, names = rows[gsm8k_reward.CHOSEN], list(FORMS)
    assert chosen.read == ["additive pairs", "token bce, edits only"]
    assert [float(j.within[0]) for j in chosen.judged] == [
        names.index("additive pairs"),
        100 + names.index("token bce, edits only"),
    ]
    assert chosen.validation == [0.7] * 4


def test_a_row_has_each_problem_of_each_fold_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k_reward, "UPDATES", 1)
    rows: dict[str, gsm8k_reward.Scored] = defaultdict(gsm8k_reward.Scored)
    for fold in gsm8k_reward.folds_of([made_problem(str(n), n) for n in range(14)]):
        gsm8k_reward.score_fold(fold, [0, 1], rows)
    for scored in rows.values():
        assert [len(judged.within) for judged in scored.judged] == [5, 5, 4]
    assert len(rows["length"].validation) == 3
    assert len(rows["token bce (as published)"].validation) == 6
