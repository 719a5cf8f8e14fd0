"""Which form of the reward learns what is wrong in the solutions of real models, on GSM8K, without a GPU.

    python benchmarks/gsm8k_reward.py --questions test.jsonl --samples samples.jsonl --model MODEL [--layer N]

`--questions` is a file of GSM8K with its own solutions, the experts. `--samples` are solutions of real models to the
same questions, as a traces file; their labels choose how rewards are read on validation problems and judge on test
problems, and no reward but those called `labels` learns from them. Problems are cross-validated: each is a test problem
in one fold, and in the other folds it is learnt from or chooses. Every reward is a linear head on the hidden states of
one layer of a frozen model, which are computed once, kept in `--folder` and used by all forms. An interrupted call goes
on where it was.
"""

import argparse
import hashlib
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

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
from reasoning_irl.data.tokens import encode_completion, encode_prompt
from reasoning_irl.metrics.bootstrap import paired_bootstrap
from reasoning_irl.metrics.traces import Floats, auroc, best_of_n
from reasoning_irl.models.granularity import read_mask
from reasoning_irl.models.loading import load_policy, load_tokenizer
from reasoning_irl.training.discriminator import Origin
from reasoning_irl.training.losses import LOSSES, LossInputs
from reasoning_irl.utils.errors import DataError, UserError
from reasoning_irl.utils.run_folder import to_jsonl, write_atomically

EXPERTS_FILE = "experts_{}.jsonl"  # by fold
N_FOLDS, N_VALIDATION = 3, 119  # validation problems of a fold; those in no other part are learnt from
N_EDITS = 4  # of each expert
MAX_LENGTH = 300  # tokens of a solution
EXPERT_KINDS = [kind for kind in PerturbationKind if kind != PerturbationKind.other_option]
UPDATES, PROBLEMS_PER_UPDATE, LEARNING_RATE, WEIGHT_DECAY = 200, 8, 1e-3, 0.01
CLAMP = 6.0  # standard deviations; a few hidden dimensions of language models are very large
DRAWS = 1000  # of the bootstrap
SAMPLES, EDITS = Origin.policy, Origin.perturbed
LOGPROB, SFT_LOGPROB = "log-probability", "log-probability of SFT"


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
PUBLISHED, CHOSEN = next(iter(FORMS)), "chosen by validation"


@dataclass(frozen=True)
class Trace:
    origin: Origin
    correct: bool | None
    hidden: Tensor  # (T, H)
    logps: dict[str, Tensor]  # (T,) by the name of the baseline; of samples only


@dataclass(frozen=True)
class Problem:
    name: str
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


Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    record: Record
    samples: list[tuple[str, bool]]  # completion and label


@dataclass(frozen=True)
class Fold(Generic[Item]):
    """The parts of a fold, of questions or of problems."""

    learn: list[Item]
    validation: list[Item]
    test: list[Item]


def folds_of(items: Sequence[Item]) -> list[Fold[Item]]:
    """Every item is tested in one fold. The first ones that are not choose how rewards are read; the rest teach."""
    folds = []
    for fold in range(N_FOLDS):
        others = [item for number, item in enumerate(items) if number % N_FOLDS != fold]
        folds.append(Fold(others[N_VALIDATION:], others[:N_VALIDATION], list(items[fold::N_FOLDS])))
    return folds


def read_questions(questions: Path, samples: Path, n: int | None) -> list[Question]:
    """The first n questions of a fixed shuffle of those with samples. Raises DataError if there are too few."""
    solutions: dict[str, list[tuple[str, bool]]] = {}
    for line, values in read_jsonl(samples):
        row = Row(f"{samples}:{line}", str(line), values)
        if values.get("correct") is not None:  # an unlabelled sample cannot be judged
            solutions.setdefault(row.text("question"), []).append((row.text("completion"), bool(values["correct"])))
    records = [
        gsm8k_record(Row(f"{questions}:{line}", str(line), values), "") for line, values in read_jsonl(questions)
    ]
    known = [record for record in records if record.question in solutions]
    random.Random(0).shuffle(known)
    taken = [Question(record, solutions[record.question]) for record in known[:n]]
    if not folds_of(taken)[0].learn:
        raise DataError(f"{len(taken)} questions of {questions} with samples in {samples}: too few to learn from")
    return taken


def texts_of(question: Question) -> list[tuple[Origin, bool | None, str]]:
    """(origin, label, text) of all traces of a question: the expert, the samples, and edits of the expert."""
    record, rng = question.record, random.Random(question.record.id)
    edits = sample_perturbations(record.target, record.question, EXPERT_KINDS, N_EDITS, rng)
    return [
        (Origin.expert, None, record.target),
        *((SAMPLES, label, text) for text, label in question.samples),
        *((EDITS, None, edit.text) for edit in edits),
    ]


def without_last_layers(model: PreTrainedModel, n: int) -> PreTrainedModel:
    """The body of a model up to its layer n, without the norm at its end; it shares the weights."""
    body: Any = copy(model.base_model)
    body._modules = {**body._modules, "layers": body.layers[:n], "norm": nn.Identity()}
    return body


def prompt_output(question: Question, model: Any, tokenizer: PreTrainedTokenizerBase) -> Any:
    """The model's output on the question alone."""
    prompt = torch.tensor([encode_prompt(tokenizer, question.record.prompt)])
    return model(prompt, use_cache=True, output_hidden_states=True, logits_to_keep=1)


def completion_output(body: Any, prompt: Any, ids: Sequence[Tensor], every_layer: bool = False) -> Any:
    """The output of a model's body on completions, after what `prompt_output` gave: hidden states (B, T, H)."""
    padded = nn.utils.rnn.pad_sequence(list(ids), batch_first=True)
    cache = deepcopy(prompt.past_key_values)
    cache.batch_repeat_interleave(len(ids))
    positions = torch.arange(padded.size(1)).expand(len(ids), -1) + cache.get_seq_length()
    # Padding is on the right, where causal attention never sees it.
    return body(padded, past_key_values=cache, position_ids=positions, output_hidden_states=every_layer)


def logps_of(model: Any, prompt: Any, states: Tensor, ids: Sequence[Tensor]) -> list[Tensor]:
    """(T,) log-probabilities of each completion, from the last hidden states (B, T, H) of `completion_output`."""
    logps = []
    for row, own in zip(states, ids, strict=True):
        last = torch.cat([prompt.hidden_states[-1][0, -1:], row[: len(own) - 1]])
        scores = model.get_output_embeddings()(last)
        logps.append(scores.gather(1, own[:, None])[:, 0] - scores.logsumexp(1))
    return logps


@torch.inference_mode()
def computed(question: Question, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layer: int) -> Problem:
    """Runs the model on all traces of a question; the question itself is run once.

    Experts and edits stop at the layer whose hidden states are asked for: nobody reads their log-probability.
    """
    rows = texts_of(question)
    ids = [torch.tensor(encode_completion(tokenizer, text, MAX_LENGTH)[0]) for *_, text in rows]
    prompt = prompt_output(question, model, tokenizer)
    of_samples = [number for number, (origin, *_) in enumerate(rows) if origin == SAMPLES]
    of_others = [number for number in range(len(rows)) if number not in of_samples]
    lower = without_last_layers(model, layer)
    short = completion_output(lower, prompt, [ids[n] for n in of_others]).last_hidden_state
    full = completion_output(model.base_model, prompt, [ids[n] for n in of_samples], every_layer=True).hidden_states
    hidden = dict(zip([*of_others, *of_samples], [*short, *full[layer]], strict=True))
    logps = dict(zip(of_samples, logps_of(model, prompt, full[-1], [ids[n] for n in of_samples]), strict=True))
    traces = [
        Trace(origin, correct, hidden[n][: len(ids[n])].half(), {LOGPROB: logps[n]} if n in logps else {})
        for n, (origin, correct, _) in enumerate(rows)
    ]
    return Problem(question.record.id, traces)


def fingerprint(question: Question, arguments: argparse.Namespace) -> str:
    """Identifies what the stored hidden states of a question were computed from."""
    what = [str(Path(arguments.model).resolve()), arguments.layer, MAX_LENGTH, question.record.prompt]
    return hashlib.sha256(json.dumps([what, texts_of(question)]).encode()).hexdigest()


def samples_id(question: Question) -> str:
    """Identifies a question with its samples."""
    what = [question.record.prompt, [text for text, _ in question.samples]]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def save_problem(problem: Problem, of: str, path: Path) -> None:
    rows = [(int(t.origin), t.correct, t.hidden, t.logps) for t in problem.traces]
    part = path.with_suffix(".part")
    torch.save({"of": of, "name": problem.name, "traces": rows}, part)
    part.rename(path)


def load_problem(path: Path, of: str) -> Problem:
    """Raises DataError if the file was computed from anything else than `of` identifies."""
    saved = torch.load(path, weights_only=True)
    if saved["of"] != of:
        raise DataError(f"{path} is of another model, layer or set of samples: choose another --folder, or remove it")
    traces = [Trace(Origin(origin), *rest) for origin, *rest in saved["traces"]]
    return Problem(saved["name"], traces)


def all_problems(questions: Sequence[Question], arguments: argparse.Namespace) -> list[Problem]:
    """The hidden states of all questions, computed now as far as they are not in the folder."""
    paths = [arguments.folder / f"{question.record.id}.pt" for question in questions]
    if not all(path.is_file() for path in paths):
        tokenizer = load_tokenizer(arguments.model)
        model = load_policy(arguments.model).eval()  # in float32, the faster one on the CPU measured (docs/log.md)
        if not 1 <= arguments.layer < model.config.num_hidden_layers:
            # The states of the last layer are known after its norm only.
            raise UserError(f"--layer {arguments.layer}: choose one of 1 to {model.config.num_hidden_layers - 1}")
        for question, path in zip(tqdm(questions, desc="hidden states", unit="problem"), paths, strict=True):
            if not path.is_file():
                problem = computed(question, model, tokenizer, arguments.layer)
                save_problem(problem, fingerprint(question, arguments), path)
    return [
        load_problem(path, fingerprint(question, arguments)) for question, path in zip(questions, paths, strict=True)
    ]


@torch.inference_mode()
def sft_logprobs(questions: Sequence[Question], name: str) -> dict[str, list[Tensor]]:
    """(T,) log-probabilities of the samples of each question, by `samples_id`, under the policy in the folder `name`.

    They are kept in that folder, so that they go when it does.
    """
    path = Path(name) / "benchmark_logprobs.pt"
    known: dict[str, list[Tensor]] = torch.load(path, weights_only=True) if path.is_file() else {}
    lacking = [question for question in questions if samples_id(question) not in known]
    if lacking:
        tokenizer, model = load_tokenizer(name), load_policy(name).eval()
        for question in tqdm(lacking, desc="SFT", unit="problem"):
            ids = [torch.tensor(encode_completion(tokenizer, text, MAX_LENGTH)[0]) for text, _ in question.samples]
            prompt = prompt_output(question, model, tokenizer)
            states = completion_output(model.base_model, prompt, ids).last_hidden_state
            known[samples_id(question)] = logps_of(model, prompt, states, ids)
            torch.save(known, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    return known


# ---- learning


def with_hidden(problem: Problem, change: Callable[[Tensor], Tensor]) -> Problem:
    return replace(problem, traces=[replace(trace, hidden=change(trace.hidden)) for trace in problem.traces])


def standardised(fold: Fold[Problem]) -> Fold[Problem]:
    """Hidden states with mean 0 and deviation 1 over the tokens of those learnt from, clamped.

    Edits are not counted: they repeat their expert.
    """
    known = torch.cat([t.hidden for problem in fold.learn for t in problem.of(Origin.expert, SAMPLES)]).float()
    mean, deviation = known.mean(0), known.std(0) + 1e-3

    def change(hidden: Tensor) -> Tensor:
        return ((hidden.float() - mean) / deviation).clamp(-CLAMP, CLAMP).half()

    return Fold(*([with_hidden(p, change) for p in part] for part in (fold.learn, fold.validation, fold.test)))


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
        hidden = nn.utils.rnn.pad_sequence([trace.hidden for trace, _ in rows], batch_first=True).float()
        lengths = torch.tensor([len(trace.hidden) for trace, _ in rows])
        mask = (torch.arange(hidden.size(1)) < lengths[:, None]).long()  # (B, T)
        logits = head(hidden)[..., 0] * mask
        if form.logit == DiscriminatorLogit.additive:
            logits = logits.cumsum(1)
        is_expert = torch.tensor([expert for _, expert in rows])
        read = read_mask(mask, form.granularity, interval=1)
        inputs = LossInputs(logits, read, is_expert, torch.tensor(group), 0.0, True, 0.0)
        LOSSES[form.loss](inputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    known: dict[int, Floats] = {}  # by the identity of the trace

    @torch.no_grad()
    def values(trace: Trace) -> Floats:
        if id(trace) not in known:
            known[id(trace)] = head(trace.hidden.float())[:, 0].numpy().astype(np.float64)
        return known[id(trace)]

    return values


# ---- judging


@dataclass(frozen=True)
class Judged:
    """Per problem: the AUROC within it (NaN if its samples are all right or all wrong), and the chosen sample."""

    within: NDArray[np.float64]  # (P,)
    best_of_4: NDArray[np.float64]  # (P,)


METRICS = [metric.name for metric in fields(Judged)]


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


@dataclass
class Scored:
    """What is known of a row of the table."""

    judged: list[Judged] = field(default_factory=list)  # of the test problems of each fold, seeds averaged
    validation: list[float] = field(default_factory=list)  # AUROC within a problem, of each fold and seed
    read: list[str] = field(default_factory=list)
    over_edit: list[float] = field(default_factory=list)
    over_sample: list[float] = field(default_factory=list)

    def add(self, fold: Fold[Problem], scores: Sequence[Callable[[Trace], float]], read: Sequence[str]) -> None:
        """Adds a fold: a score for each seed, and how its values are read."""
        of_seeds = [judge(fold.test, score) for score in scores]
        self.judged.append(Judged(*(np.mean([getattr(j, m) for j in of_seeds], axis=0) for m in METRICS)))
        self.validation += [within(fold.validation, score) for score in scores]
        self.read += read


def row(name: str, scored: Scored, own: Judged, against: dict[str, Judged]) -> str:
    """A line of the table: the two metrics, each with paired differences from the rows `against`."""
    rng = np.random.default_rng(0)
    mixed = ~np.isnan(own.within)
    cells = [name, ", ".join(dict.fromkeys(scored.read)), f"{np.mean(scored.validation):.3f}"]
    for metric, keep in zip(METRICS, (mixed, np.ones_like(mixed)), strict=True):
        mine = getattr(own, metric)[keep]
        cells.append(f"{mine.mean():.3f}")
        for other in against.values():
            difference, low, high = paired_bootstrap(mine, getattr(other, metric)[keep], rng, DRAWS)
            cells.append(f"{difference:+.3f} [{low:+.3f}, {high:+.3f}]")
    shares = [f"{np.mean(shares):.2f}" if shares else "" for shares in (scored.over_edit, scored.over_sample)]
    return "| " + " | ".join([*cells, *shares]) + " |"


def score_fold(fold: Fold[Problem], seeds: Sequence[int], rows: dict[str, Scored]) -> None:
    """Learns every form on a fold and adds it, its sum with all log-probabilities, and the baselines to their rows."""
    fold = standardised(fold)
    rows["random"].add(fold, [lambda _trace: 0.0], [""])
    rows["length"].add(fold, [lambda trace: -float(len(trace.hidden))], ["shorter"])
    parts = []
    names = list(fold.test[0].of(SAMPLES)[0].logps)
    for name in names:
        read, score = read_values(partial(_logprobs, name=name), fold.validation)
        rows[name].add(fold, [score], [read])
        parts.append(standardised_by(score, fold.validation))
    for name, form in FORMS.items():
        scores, sums, how = [], [], []
        for seed in tqdm(seeds, desc=name, unit="seed"):
            read, score = read_values(learn(fold.learn, form, seed), fold.validation)
            scores.append(score)
            sums.append(partial(_sum, parts=[standardised_by(score, fold.validation), *parts]))
            how.append(read)
        rows[name].add(fold, scores, how)
        rows[name].over_edit += [share_above(fold.test, score, EDITS) for score in scores]
        rows[name].over_sample += [share_above(fold.test, score, SAMPLES) for score in scores]
        rows[" + ".join([name, *names])].add(fold, sums, ["z-sum"])


def add_chosen(rows: dict[str, Scored], n_seeds: int) -> None:
    """Adds the last fold to the row `chosen`: that of the form without labels that is best on its validation problems.

    To choose by the column `validation` would be to choose by labels of problems that other folds test.
    """
    last = {name: rows[name].validation[-n_seeds:] for name, form in FORMS.items() if not form.from_labels}
    best = max(last, key=lambda name: float(np.mean(last[name])))
    rows[CHOSEN].judged.append(rows[best].judged[-1])
    rows[CHOSEN].validation += last[best]
    rows[CHOSEN].read.append(best)


def table(folds: Sequence[Fold[Problem]], seeds: Sequence[int]) -> list[str]:
    """Learns every form on every fold and returns the table's lines.

    Intervals are over test problems, after averaging the seeds.
    """
    rows: dict[str, Scored] = defaultdict(Scored)
    for fold in folds:
        score_fold(fold, seeds, rows)
        add_chosen(rows, len(seeds))
    judged = {
        name: Judged(*(np.concatenate([getattr(j, m) for j in of.judged]) for m in METRICS))
        for name, of in rows.items()
    }
    sums = [name for name in rows if name.partition(" + ")[0] in FORMS and name not in FORMS]
    baselines = [name for name in rows if name not in FORMS and name not in [*sums, CHOSEN]]
    against = {name: judged[name] for name in baselines if name != "random"} | {"published form": judged[PUBLISHED]}
    columns = ["test", *(f"minus {name}" for name in against)]
    heads = ["reward", "read by", "validation", *columns, "best of 4", *columns[1:], "expert over edit", "over sample"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    blank, possible = " |" * len(against), best_possible([problem for fold in folds for problem in fold.test])
    oracle = f"| oracle | | 1.000 | 1.000 |{blank} {possible:.3f} |{blank} | |"
    lines += [row(name, rows[name], judged[name], against) for name in baselines]
    lines += [oracle, *(row(name, rows[name], judged[name], against) for name in [*FORMS, CHOSEN, *sums])]
    return lines


def within(problems: Sequence[Problem], score: Callable[[Trace], float]) -> float:
    """The mean AUROC within a problem, over problems with right and wrong samples."""
    return float(np.nanmean(judge(problems, score).within))


def _sum(trace: Trace, parts: Sequence[Callable[[Trace], float]]) -> float:
    return sum(part(trace) for part in parts)


def best_possible(problems: Sequence[Problem]) -> float:
    """The share of problems with a right sample."""
    return float(np.mean([any(trace.correct for trace in problem.of(SAMPLES)) for problem in problems]))


def _logprobs(trace: Trace, name: str) -> Floats:
    values: Floats = trace.logps[name].numpy().astype(np.float64)
    return values


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--model", default="models/smollm2-135m")
    parser.add_argument("--sft", nargs=N_FOLDS, help="for each fold, a model after SFT on its experts: a baseline")
    parser.add_argument("--states-only", action="store_true", help="compute the hidden states and learn nothing yet")
    parser.add_argument("--layer", type=int, default=18)
    parser.add_argument("--folder", type=Path, default=Path("outputs/gsm8k_reward"))
    parser.add_argument("--n", type=int, default=None, help="number of problems; default: all that have samples")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    try:
        run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(arguments: argparse.Namespace) -> None:
    questions = read_questions(arguments.questions, arguments.samples, arguments.n)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    parts = folds_of(questions)
    for number, part in enumerate(parts):
        # In the form that sft_train.py reads, for the baseline of `--sft`.
        experts = [question.record for question in part.learn]
        rows = [{"question": e.question, "reasoning": e.target, "answer": e.answer} for e in experts]
        write_atomically(arguments.folder / EXPERTS_FILE.format(number), to_jsonl(rows))
    problems = all_problems(questions, arguments)
    if arguments.states_only:
        return
    folds = folds_of(problems)
    if arguments.sft:
        folds = [with_sft(*known) for known in zip(folds, parts, arguments.sft, strict=True)]
    lines = table(folds, arguments.seeds)
    sizes = {"model": arguments.model, "layer": arguments.layer, "problems": len(questions), "folds": len(folds)}
    lines.append(f"\n{json.dumps({**sizes, 'learnt from in a fold': len(folds[0].learn)})}")
    print("\n".join(lines))
    write_atomically(arguments.folder / "table.md", "\n".join(lines) + "\n")


def with_sft(fold: Fold[Problem], questions: Fold[Question], name: str) -> Fold[Problem]:
    """Adds the log-probabilities of the policy in the folder `name` to the samples that are judged or choose."""
    known = sft_logprobs([*questions.validation, *questions.test], name)
    ids = {question.record.id: samples_id(question) for question in [*questions.validation, *questions.test]}

    def added(problem: Problem) -> Problem:
        of_samples = iter(known[ids[problem.name]])
        traces = [
            replace(trace, logps={**trace.logps, SFT_LOGPROB: next(of_samples)}) if trace.origin == SAMPLES else trace
            for trace in problem.traces
        ]
        return replace(problem, traces=traces)

    return Fold(fold.learn, [added(p) for p in fold.validation], [added(p) for p in fold.test])


if __name__ == "__main__":
    raise SystemExit(main())
