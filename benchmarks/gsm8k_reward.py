"""Which form of the reward learns what is wrong in the solutions of real models, on GSM8K, without a GPU.

    python benchmarks/gsm8k_reward.py --questions test.jsonl --samples samples.jsonl --model MODEL [--layer N]

`--questions` is a file of GSM8K with its own solutions, the experts. `--samples` are solutions of real models to the
same questions, as a traces file; their labels choose how rewards are read on validation problems and judge on test
problems, and no reward but the one called `labels` learns from them. Every reward is a linear head on the hidden states
of one layer of a frozen model, which are computed once, kept in `--folder` and used by all forms. An interrupted call
goes on where it was.
"""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from reasoning_irl.config.schema import (
    ClassifierLoss,
    DiscriminatorLogit,
    Granularity,
    PerturbationKind,
)
from reasoning_irl.data.gsm8k import gsm8k_record
from reasoning_irl.data.jsonl import read_jsonl
from reasoning_irl.data.perturbations import sample_perturbations
from reasoning_irl.data.records import Record, Row
from reasoning_irl.data.tokens import TokenSequence, collate, encode_completion, encode_prompt
from reasoning_irl.metrics.bootstrap import paired_bootstrap
from reasoning_irl.metrics.traces import Floats, auroc, best_of_n
from reasoning_irl.models.granularity import read_mask
from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.models.logprobs import token_logps
from reasoning_irl.training.discriminator import Origin
from reasoning_irl.training.losses import LOSSES, LossInputs
from reasoning_irl.utils.errors import DataError, UserError
from reasoning_irl.utils.run_folder import to_jsonl, write_atomically

EXPERTS_FILE = "experts.jsonl"
N_VALIDATION, N_TEST = 119, 150  # problems; the others are learnt from
N_EDITS = {"learn": 4, "validation": 2, "test": 2}  # of each expert
MAX_LENGTH = 300  # tokens of a solution
EXPERT_KINDS = [kind for kind in PerturbationKind if kind != PerturbationKind.other_option]
UPDATES, PROBLEMS_PER_UPDATE, LEARNING_RATE, WEIGHT_DECAY = 200, 8, 1e-3, 0.01
CLAMP = 6.0  # standard deviations; a few hidden dimensions of language models are very large
DRAWS = 1000  # of the bootstrap
SAMPLES, EDITS = Origin.policy, Origin.perturbed


@dataclass(frozen=True)
class Form:
    """A way to learn a reward: the loss, what is classified, where it is read, and the negatives."""

    loss: ClassifierLoss
    logit: DiscriminatorLogit
    granularity: Granularity
    negatives: frozenset[Origin]
    from_labels: bool = False  # right samples are positives, only wrong ones negatives; experts only with edits


def _form(loss: str, logit: str, granularity: str, *negatives: Origin, from_labels: bool = False) -> Form:
    return Form(
        ClassifierLoss(loss), DiscriminatorLogit(logit), Granularity(granularity), frozenset(negatives), from_labels
    )


FORMS = {
    "token bce (as published)": _form("bce", "token", "dense", SAMPLES, EDITS),
    "token bce, samples only": _form("bce", "token", "dense", SAMPLES),
    "token bce, edits only": _form("bce", "token", "dense", EDITS),
    "additive bce, dense": _form("bce", "additive", "dense", SAMPLES, EDITS),
    "additive bce, whole trace": _form("bce", "additive", "sparse", SAMPLES, EDITS),
    "additive pairs, samples only": _form("pairwise", "additive", "sparse", SAMPLES),
    "additive pairs, edits only": _form("pairwise", "additive", "sparse", EDITS),
    "additive pairs": _form("pairwise", "additive", "sparse", SAMPLES, EDITS),
    "labels": _form("pairwise", "additive", "sparse", SAMPLES, from_labels=True),
    "labels, experts and edits": _form("pairwise", "additive", "sparse", SAMPLES, EDITS, from_labels=True),
}
PUBLISHED = next(iter(FORMS))


@dataclass(frozen=True)
class Trace:
    origin: Origin
    correct: bool | None
    hidden: Tensor  # (T, H)
    logps: Tensor  # (T,) of the model


@dataclass(frozen=True)
class Problem:
    name: str
    split: str  # learn, validation or test
    traces: list[Trace]

    def of(self, *origins: Origin) -> list[Trace]:
        return [trace for trace in self.traces if trace.origin in origins]


Values = Callable[[Trace], Floats]  # a value for each token (T,), higher is better
AGGREGATIONS: dict[str, Callable[[Floats], float]] = {
    "sum": lambda values: float(values.sum()),
    "mean": lambda values: float(values.mean()),
    "min": lambda values: float(values.min()),
}


# ---- data and hidden states


@dataclass(frozen=True)
class Question:
    split: str
    record: Record
    samples: list[tuple[str, bool]]  # completion and label


def read_questions(questions: Path, samples: Path, n_learn: int | None) -> list[Question]:
    """The questions that have samples, split by a fixed shuffle. Raises DataError if there are too few."""
    solutions: dict[str, list[tuple[str, bool]]] = {}
    for line, values in read_jsonl(samples):
        row = Row(f"{samples}:{line}", str(line), values)
        if values.get("correct") is not None:  # an unlabelled sample cannot be judged
            solutions.setdefault(row.text("question"), []).append((row.text("completion"), bool(values["correct"])))
    records = [
        gsm8k_record(Row(f"{questions}:{line}", str(line), values), "") for line, values in read_jsonl(questions)
    ]
    known = [record for record in records if record.question in solutions]
    if len(known) <= N_VALIDATION + N_TEST:
        raise DataError(f"{len(known)} questions of {questions} have samples in {samples}: too few to learn from")
    random.Random(0).shuffle(known)
    names = ["validation"] * N_VALIDATION + ["test"] * N_TEST + ["learn"] * (n_learn or len(known))
    return [Question(split, record, solutions[record.question]) for split, record in zip(names, known, strict=False)]


def texts_of(question: Question) -> list[tuple[Origin, bool | None, str]]:
    """(origin, label, text) of all traces of a question: the expert, the samples, and edits of the expert."""
    record, rng = question.record, random.Random(question.record.id)
    edits = sample_perturbations(record.target, record.question, EXPERT_KINDS, N_EDITS[question.split], rng)
    return [
        (Origin.expert, None, record.target),
        *((SAMPLES, label, text) for text, label in question.samples),
        *((EDITS, None, edit.text) for edit in edits),
    ]


@torch.inference_mode()
def computed(question: Question, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layer: int) -> Problem:
    """Runs the model on all traces of a question; the question itself is run once."""
    rows = texts_of(question)
    prompt = torch.tensor([encode_prompt(tokenizer, question.record.prompt)])
    ids = [torch.tensor(encode_completion(tokenizer, text, MAX_LENGTH)[0]) for *_, text in rows]
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)  # (B, T)
    run: Any = model
    asked = run(prompt, use_cache=True, output_hidden_states=True, logits_to_keep=1)
    asked.past_key_values.batch_repeat_interleave(len(ids))
    positions = torch.arange(prompt.size(1), prompt.size(1) + padded.size(1)).expand(len(ids), -1)
    # Padding is on the right, where causal attention never sees it.
    body = run.base_model(
        padded, past_key_values=asked.past_key_values, position_ids=positions, output_hidden_states=True
    )
    traces = []
    for row, ((origin, correct, _), own) in enumerate(zip(rows, ids, strict=True)):
        hidden = body.hidden_states[layer][row, : len(own)].half()
        logps = torch.zeros(0)
        if question.split != "learn" and origin == SAMPLES:  # the only ones whose log-probability is asked for
            last = torch.cat([asked.hidden_states[-1][0, -1:], body.hidden_states[-1][row, : len(own) - 1]])
            scores = run.get_output_embeddings()(last).float()
            logps = scores.gather(1, own[:, None])[:, 0] - scores.logsumexp(1)
        traces.append(Trace(origin, correct, hidden.clone(), logps))
    return Problem(question.record.id, question.split, traces)


def fingerprint(question: Question, arguments: argparse.Namespace) -> str:
    """Identifies what the stored hidden states of a question were computed from."""
    what = [str(Path(arguments.model).resolve()), arguments.layer, MAX_LENGTH, question.split, question.record.prompt]
    return hashlib.sha256(json.dumps([what, texts_of(question)]).encode()).hexdigest()


def save_problem(problem: Problem, of: str, path: Path) -> None:
    rows = [(int(t.origin), t.correct, t.hidden, t.logps) for t in problem.traces]
    part = path.with_suffix(".part")
    torch.save({"of": of, "name": problem.name, "split": problem.split, "traces": rows}, part)
    part.rename(path)


def load_problem(path: Path, of: str) -> Problem:
    """Raises DataError if the file was computed from anything else than `of` identifies."""
    saved = torch.load(path, weights_only=True)
    if saved["of"] != of:
        raise DataError(f"{path} is of another model, layer or set of samples: choose another --folder, or remove it")
    traces = [Trace(Origin(origin), *rest) for origin, *rest in saved["traces"]]
    return Problem(saved["name"], saved["split"], traces)


def in_bfloat16(name: str) -> PreTrainedModel:
    model: Any = load_policy(name)
    converted: PreTrainedModel = model.to(torch.bfloat16).eval()
    return converted


def all_problems(questions: Sequence[Question], arguments: argparse.Namespace) -> list[Problem]:
    """The hidden states of all questions, computed now as far as they are not in the folder."""
    paths = [arguments.folder / f"{question.record.id}.pt" for question in questions]
    if not all(path.is_file() for path in paths):
        tokenizer = load_tokenizer(arguments.model)
        # Half the memory and, on a CPU that has it, a third of the time.
        model = in_bfloat16(arguments.model)
        for question, path in zip(tqdm(questions, desc="hidden states", unit="problem"), paths, strict=True):
            if not path.is_file():
                problem = computed(question, model, tokenizer, arguments.layer)
                save_problem(problem, fingerprint(question, arguments), path)
    return [
        load_problem(path, fingerprint(question, arguments)) for question, path in zip(questions, paths, strict=True)
    ]


@torch.inference_mode()
def sft_logprobs(questions: Sequence[Question], name: str) -> dict[str, list[Tensor]]:
    """(T,) log-probabilities of the judged samples of each problem under the policy in the folder `name`.

    They are kept in that folder, so that they go when it does.
    """
    path = Path(name) / "benchmark_logprobs.pt"
    known: dict[str, list[Tensor]] = torch.load(path, weights_only=True) if path.is_file() else {}
    lacking = [q for q in questions if q.split != "learn" and q.record.id not in known]
    if lacking:
        tokenizer, model = load_tokenizer(name), in_bfloat16(name)
        for question in tqdm(lacking, desc="SFT", unit="problem"):
            prompt = encode_prompt(tokenizer, question.record.prompt)
            ids = [encode_completion(tokenizer, text, MAX_LENGTH)[0] for text, _ in question.samples]
            batch = collate([TokenSequence(prompt, own) for own in ids], tokenizer.pad_token_id)
            values = token_logps(model, batch)[0].float()
            known[question.record.id] = [row[: len(own)].clone() for row, own in zip(values, ids, strict=True)]
            torch.save(known, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    return known


# ---- learning


class Standardised(nn.Module):
    """Hidden states (..., H) with mean 0 and deviation 1 over the tokens of the given traces, clamped."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, traces: Sequence[Trace]) -> None:
        super().__init__()
        hidden = torch.cat([trace.hidden for trace in traces]).float()
        self.register_buffer("mean", hidden.mean(0))
        self.register_buffer("deviation", hidden.std(0) + 1e-3)

    def forward(self, hidden: Tensor) -> Tensor:
        return ((hidden.float() - self.mean) / self.deviation).clamp(-CLAMP, CLAMP)


def rows_of(problem: Problem, form: Form) -> list[tuple[Trace, bool]]:
    """(trace, is it a positive) of the rows that a form learns from; none if there is nothing to compare."""
    traces = problem.of(Origin.expert, *form.negatives)
    if not form.from_labels:
        return [(trace, trace.origin == Origin.expert) for trace in traces]
    if EDITS not in form.negatives:
        traces = problem.of(SAMPLES)
    rows = [(trace, trace.origin == Origin.expert or bool(trace.correct)) for trace in traces]
    return rows if len({is_positive for _, is_positive in rows}) == 2 else []


def learn(problems: Sequence[Problem], form: Form, seed: int) -> Values:
    """Trains a linear head and returns its rewards."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    standardised = Standardised([trace for problem in problems for trace in problem.of(Origin.expert, SAMPLES)])
    usable = [problem for problem in problems if rows_of(problem, form)]
    head = nn.Linear(problems[0].traces[0].hidden.size(1), 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    order: list[Problem] = []
    for _ in range(UPDATES):
        if len(order) < PROBLEMS_PER_UPDATE:
            order = rng.sample(usable, len(usable))
        rows: list[tuple[Trace, bool]] = []
        group: list[int] = []
        for number in range(min(PROBLEMS_PER_UPDATE, len(order))):
            own = rows_of(order.pop(), form)
            rows += own
            group += [number] * len(own)
        hidden = nn.utils.rnn.pad_sequence([standardised(trace.hidden) for trace, _ in rows], batch_first=True)
        lengths = torch.tensor([len(trace.hidden) for trace, _ in rows])
        mask = (torch.arange(hidden.size(1)) < lengths[:, None]).long()  # (B, T)
        logits = head(hidden)[..., 0] * mask
        if form.logit == DiscriminatorLogit.additive:
            logits = logits.cumsum(1)
        is_expert = torch.tensor([expert for _, expert in rows])
        read = read_mask(mask, form.granularity, interval=1)
        inputs = LossInputs(logits, read, is_expert, torch.tensor(group), 0.0, True)
        LOSSES[form.loss](inputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    known: dict[int, Floats] = {}  # by the identity of the trace

    @torch.no_grad()
    def values(trace: Trace) -> Floats:
        if id(trace) not in known:
            known[id(trace)] = head(standardised(trace.hidden))[:, 0].numpy().astype(np.float64)
        return known[id(trace)]

    return values


# ---- judging


@dataclass(frozen=True)
class Judged:
    """Per problem: the AUROC within it (NaN if its samples are all right or all wrong), and the chosen sample."""

    within: NDArray[np.float64]  # (P,)
    best_of_4: NDArray[np.float64]  # (P,)


def judge(problems: Sequence[Problem], score: Callable[[Trace], float]) -> Judged:
    within, best = [], []
    for problem in problems:
        samples = problem.of(SAMPLES)
        scores, labels = [score(trace) for trace in samples], [bool(trace.correct) for trace in samples]
        value = auroc(scores, labels)
        within.append(np.nan if value is None else value)
        best.append(best_of_n(scores, labels, len(samples)))
    return Judged(np.array(within), np.array(best))


def share_above(problems: Sequence[Problem], score: Callable[[Trace], float], origin: Origin) -> float:
    """The share of pairs of a problem's expert and its traces of `origin` in which the expert scores higher."""
    pairs = [score(problem.of(Origin.expert)[0]) > score(trace) for problem in problems for trace in problem.of(origin)]
    return float(np.mean(pairs))


def read_values(values: Values, validation: Sequence[Problem]) -> tuple[str, Callable[[Trace], float]]:
    """The aggregation with the highest AUROC within a problem of the validation problems, and the score it gives."""

    def scored_by(name: str) -> Callable[[Trace], float]:
        return lambda trace: AGGREGATIONS[name](values(trace))

    best = max(AGGREGATIONS, key=lambda name: within(validation, scored_by(name)))
    return best, scored_by(best)


def standardised_by(score: Callable[[Trace], float], validation: Sequence[Problem]) -> Callable[[Trace], float]:
    known = [score(trace) for problem in validation for trace in problem.of(SAMPLES)]
    mean, deviation = float(np.mean(known)), float(np.std(known)) or 1.0
    return lambda trace: (score(trace) - mean) / deviation


def mean_of(judged: Sequence[Judged]) -> Judged:
    return Judged(np.mean([j.within for j in judged], axis=0), np.mean([j.best_of_4 for j in judged], axis=0))


def row(
    name: str, read: str, validation: str, own: Judged, against: dict[str, Judged], pairs: tuple[str, str] = ("", "")
) -> str:
    """A line of the table: the two metrics, each with paired differences from the rows `against`."""
    rng = np.random.default_rng(0)
    mixed = ~np.isnan(own.within)
    cells = [name, read, validation]
    for metric, keep in (("within", mixed), ("best_of_4", np.ones_like(mixed))):
        mine = getattr(own, metric)[keep]
        cells.append(f"{mine.mean():.3f}")
        for other in against.values():
            difference, low, high = paired_bootstrap(mine, getattr(other, metric)[keep], rng, DRAWS)
            cells.append(f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    return "| " + " | ".join([*cells, *pairs]) + " |"


@dataclass
class Learnt:
    """A form with each seed; all lists are by seed."""

    judged: list[Judged] = field(default_factory=list)
    summed: list[Judged] = field(default_factory=list)  # with the log-probabilities
    validation: list[float] = field(default_factory=list)  # AUROC within a problem
    summed_validation: list[float] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    over_edit: list[float] = field(default_factory=list)
    over_sample: list[float] = field(default_factory=list)


def table(problems: Sequence[Problem], seeds: Sequence[int], others: dict[str, Values]) -> list[str]:
    """Learns every form and returns the table's lines; `others` are further baselines.

    A form is to be chosen by the column `validation`. Intervals are over test problems; seeds are averaged first.
    """
    learnt_from, validation, test = (
        [problem for problem in problems if problem.split == split] for split in ("learn", "validation", "test")
    )
    scores: dict[str, tuple[str, Callable[[Trace], float]]] = {
        "random": ("", lambda _trace: 0.0),
        "length": ("shorter", lambda trace: -float(len(trace.hidden))),
    }
    log_probabilities = {"log-probability": _logprobs, **others}
    for name, values in log_probabilities.items():
        scores[name] = read_values(values, validation)
    parts = [standardised_by(scores[name][1], validation) for name in log_probabilities]
    learnt = {name: Learnt() for name in FORMS}
    for name, form in FORMS.items():
        for seed in tqdm(seeds, desc=name, unit="seed"):
            values, of = learn(learnt_from, form, seed), learnt[name]
            read, score = read_values(values, validation)
            own = standardised_by(score, validation)
            total = partial(_sum, parts=[own, *parts])
            of.read.append(read)
            of.judged.append(judge(test, score))
            of.validation.append(within(validation, score))
            of.summed.append(judge(test, total))
            of.summed_validation.append(within(validation, total))
            of.over_edit.append(share_above(test, score, EDITS))
            of.over_sample.append(share_above(test, score, SAMPLES))

    baselines = {name: judge(test, score) for name, (_, score) in scores.items()}
    against = {name: judged for name, judged in baselines.items() if name != "random"}
    against["published form"] = mean_of(learnt[PUBLISHED].judged)
    columns = ["test", *(f"minus {name}" for name in against)]
    heads = ["reward", "read by", "validation", *columns, "best of 4", *columns[1:], "expert over edit", "over sample"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, judged in baselines.items():
        read, score = scores[name]
        lines.append(row(name, read, f"{within(validation, score):.3f}", judged, against))
    blank = " |" * len(against)
    lines.append(f"| oracle | | 1.000 | 1.000 |{blank} {best_possible(test):.3f} |{blank} | |")
    for name, of in learnt.items():
        shares = f"{np.mean(of.over_edit):.2f}", f"{np.mean(of.over_sample):.2f}"
        read = ", ".join(dict.fromkeys(of.read))
        lines.append(row(name, read, f"{np.mean(of.validation):.3f}", mean_of(of.judged), against, shares))
    for name, of in learnt.items():
        title = " + ".join([name, *log_probabilities])
        lines.append(row(title, "z-sum", f"{np.mean(of.summed_validation):.3f}", mean_of(of.summed), against))
    return lines


def within(problems: Sequence[Problem], score: Callable[[Trace], float]) -> float:
    """The mean AUROC within a problem, over problems with right and wrong samples."""
    return float(np.nanmean(judge(problems, score).within))


def _sum(trace: Trace, parts: Sequence[Callable[[Trace], float]]) -> float:
    return sum(part(trace) for part in parts)


def best_possible(problems: Sequence[Problem]) -> float:
    """The share of problems with a right sample."""
    return float(np.mean([any(trace.correct for trace in problem.of(SAMPLES)) for problem in problems]))


def _logprobs(trace: Trace) -> Floats:
    values: Floats = trace.logps.numpy().astype(np.float64)
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--model", default="models/smollm2-135m")
    parser.add_argument("--sft", default=None, help="the model after SFT on the experts, as a further baseline")
    parser.add_argument("--layer", type=int, default=18)
    parser.add_argument("--folder", type=Path, default=Path("outputs/gsm8k_reward"))
    parser.add_argument("--n-learn", type=int, default=None, help="problems to learn from; default: all that are left")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    try:
        run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(arguments: argparse.Namespace) -> None:
    questions = read_questions(arguments.questions, arguments.samples, arguments.n_learn)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    # In the form that sft_train.py reads, for the baseline of `--sft`.
    experts = [q.record for q in questions if q.split == "learn"]
    rows = [{"question": e.question, "reasoning": e.target, "answer": e.answer} for e in experts]
    write_atomically(arguments.folder / EXPERTS_FILE, to_jsonl(rows))
    problems = all_problems(questions, arguments)
    others: dict[str, Values] = {}
    if arguments.sft:
        of_sft = sft_logprobs(questions, arguments.sft)
        by_trace = {
            id(trace): logps
            for problem in problems
            for trace, logps in zip(problem.of(SAMPLES), of_sft.get(problem.name, []), strict=False)
        }
        others["log-probability of SFT"] = lambda trace: by_trace[id(trace)].numpy().astype(np.float64)
    lines = table(problems, arguments.seeds, others)
    counts = {split: sum(problem.split == split for problem in problems) for split in ("learn", "validation", "test")}
    lines.append(f"\n{json.dumps({'model': arguments.model, 'layer': arguments.layer, **counts})}")
    print("\n".join(lines))
    write_atomically(arguments.folder / "table.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
