"""Reward models of every kind, against plain forward passes of single sequences in transformers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2ForTokenClassification,
    set_seed,
)

from reasoning_irl.config.schema import Granularity, RewardHead, RewardKind, ScorerConfig
from reasoning_irl.data.records import make_prompt
from reasoning_irl.data.tokens import NO_LIMIT, TokenSequence, encode_completion, encode_prompt
from reasoning_irl.eval.evaluate_irl import run_irl_evaluation
from reasoning_irl.eval.scoring.scorers import Qwen2ForProcessRewardModel, Stepped, find_scorer, load_scorer, step_ends
from reasoning_irl.eval.traces.trace_file import read_traces
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.text.token_spans import pieces_at, spans_of, step_ids
from reasoning_irl.text.trace import step_spans
from reasoning_irl.utils.errors import ConfigError, DataError, UserError
from tests.helpers.configs import irl_config
from tests.helpers.models import save_tiny_model
from tests.helpers.tokenizers import byte_level
from tests.helpers.traces import QUESTION, read_rows, write_rows

SEPARATOR = "<extra_0>"
TRACES = [
    "<think>\n3 + 4 = 7\n7 + 0 = 7\n\n7 - 0 = 7\n</think>\n<answer>\n7\n</answer>",
    "<think>\n3 + 4 = 8\n</think>\n<answer>\n8\n</answer>",
    "no tags, one line",
    "<think>\nnaïve café 👩‍👩‍👧\n数学は 42。\n</think>\n<answer>\nΩ≈7\n</answer>",
    f"<think>\nthe text contains {SEPARATOR} itself\n7\n</think>",
    "",
]


def settings(**given: Any) -> ScorerConfig:
    defaults: dict[str, Any] = {"reward_path": None, "reward_kind": RewardKind.auto, "step_separator": None}
    defaults |= {
        "positive_token": None,
        "negative_token": None,
        "frozen_path": None,
        "policy_path": None,
        "sft_path": None,
    }
    return ScorerConfig(**{**defaults, "load_in_4bit": False, **given})


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    """A byte-level BPE in which the last token of a step may contain its line break."""
    line_breaks = pre_tokenizers.Split(Regex(r" ?\S*\n+"), "isolated")
    tokenizer = byte_level(320, TRACES, line_breaks)
    tokenizer.add_special_tokens({"additional_special_tokens": [SEPARATOR]})
    return tokenizer


def stepped(tokenizer: PreTrainedTokenizerBase, text: str, ended: bool = True) -> Stepped:
    ids, spans = encode_completion(tokenizer, text, NO_LIMIT)
    if not ended:
        ids, spans = ids[:-1], spans[:-1]
    pieces = pieces_at(text, spans)
    prompt = encode_prompt(tokenizer, make_prompt(QUESTION, ""))
    return Stepped(TokenSequence(prompt, ids), pieces, step_ids(text, spans_of(pieces), step_spans(text)))


def scored(
    source: Path, given: ScorerConfig, texts: Sequence[str] = TRACES, ended: bool = True, batch_size: int = 4
) -> list[list[float]]:
    scorer, tokenizer = load_scorer(str(source), given)
    values = scorer([stepped(tokenizer, text, ended) for text in texts], batch_size, lambda rows: rows)
    return [list(of_tokens) for of_tokens in values]


@torch.no_grad()
def logits_of(model: PreTrainedModel, trace: Stepped, completion: Sequence[int] | None = None) -> torch.Tensor:
    """One forward pass without batch and padding."""
    ids = [*trace.sequence.prompt_ids, *(trace.sequence.completion_ids if completion is None else completion)]
    output: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return output


def assert_same(values: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> None:
    assert [len(row) for row in values] == [len(row) for row in expected]
    for row, other in zip(values, expected, strict=True):
        assert row == pytest.approx(list(other), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("n", "names", "positive"),
    [
        (1, None, 0),
        (2, None, 1),  # LABEL_0 and LABEL_1
        (2, {0: "POSITIVE", 1: "NEGATIVE"}, 0),
        (2, {0: "+", 1: "-"}, 0),
        (2, {0: "bad", 1: "x"}, 1),
        (2, {0: "x", 1: "incorrect"}, 0),
        (2, {0: "cat", 1: "dog"}, 1),
    ],
)
def test_token_head_scores_with_its_logit_or_log_odds(
    n: int, names: dict[int, str] | None, positive: int, words: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    named = {"id2label": names, "label2id": {v: k for k, v in names.items()}} if names else {"num_labels": n}
    folder = save_tiny_model(tmp_path / "m", words, LlamaForTokenClassification, **named)
    assert find_scorer(str(folder), settings()).kind == RewardKind.token
    model = LlamaForTokenClassification.from_pretrained(folder)
    expected = []
    for trace in (stepped(words, text) for text in TRACES):
        logits = logits_of(model, trace)[len(trace.sequence.prompt_ids) :]
        logps = torch.log_softmax(logits, -1)
        expected.append((logits[:, 0] if n == 1 else logps[:, positive] - logps[:, 1 - positive]).tolist())
    assert_same(scored(folder, settings()), expected)


KINDS: dict[str, tuple[type[PreTrainedModel], dict[str, Any], dict[str, Any]]] = {
    "token": (LlamaForTokenClassification, {"num_labels": 1}, {}),
    "sequence": (LlamaForSequenceClassification, {"num_labels": 1}, {}),
    "prm": (LlamaForTokenClassification, {"num_labels": 2}, {"step_separator": SEPARATOR}),
    "prm_of_qwen": (Qwen2ForProcessRewardModel, {"num_labels": 2}, {"step_separator": SEPARATOR}),
    "prm_of_words": (
        LlamaForCausalLM,
        {},
        {"step_separator": SEPARATOR, "positive_token": "+", "negative_token": "-"},
    ),
    "logprob": (LlamaForCausalLM, {}, {}),
}


@pytest.mark.parametrize("name", KINDS)
def test_scores_do_not_depend_on_batch_padding_or_order(
    name: str, words: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    cls, changes, given = KINDS[name]
    folder = save_tiny_model(tmp_path / "m", words, cls, **changes)
    one = scored(folder, settings(**given), batch_size=1)
    assert_same(scored(folder, settings(**given), batch_size=5), one)
    assert_same(scored(folder, settings(**given), TRACES[::-1])[::-1], one)
    own = AutoTokenizer.from_pretrained(folder)
    assert [len(row) for row in one] == [len(stepped(own, text).pieces) for text in TRACES]
    assert find_scorer(str(folder), settings(**given)).kind == name.partition("_")[0]
    truncated = scored(folder, settings(**given), TRACES[:4], ended=False)
    assert [len(row) for row in truncated] == [len(row) - 1 for row in one[:4]]


def of_prefixes(model: PreTrainedModel, trace: Stepped, end_id: int) -> list[float]:
    """The definition: each token gets the score of the prefix that ends its step, later tokens that of the whole."""
    ids, last = list(trace.sequence.completion_ids), max(trace.step_ids)
    values: list[float] = []
    for step in dict.fromkeys(step for step in trace.step_ids if 0 < step < last):
        end = max(at for at, of_token in enumerate(trace.step_ids) if of_token == step)
        score = logits_of(model, trace, [*ids[: end + 1], end_id])[0].item()
        values += [score] * (end + 1 - len(values))
    return values + [logits_of(model, trace)[0].item()] * (len(ids) - len(values))


@pytest.mark.parametrize("padding", ["own", "end", "none"])
def test_sequence_head_is_read_at_the_end_of_each_step(
    padding: str, words: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Trap: if the padding token is the end token or unknown, a batch is read at another token than a single text."""
    pad = {"own": words.pad_token_id, "end": words.eos_token_id, "none": None}[padding]
    folder = save_tiny_model(tmp_path / "m", words, LlamaForSequenceClassification, num_labels=1, pad_token_id=pad)
    model = LlamaForSequenceClassification.from_pretrained(folder)
    assert model.config.pad_token_id == pad
    expected = [of_prefixes(model, stepped(words, text), words.eos_token_id) for text in TRACES]
    assert_same(scored(folder, settings()), expected)
    assert len(set(expected[0])) == 4  # three lines and the answer
    assert len(set(expected[1])) == 2
    assert len(set(expected[2])) == 1


def test_prefixes_of_a_truncated_trace_get_no_end_token(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "m", words, LlamaForSequenceClassification, num_labels=2)
    model = LlamaForSequenceClassification.from_pretrained(folder)
    trace = stepped(words, TRACES[0], ended=False)
    first = step_ends(trace)[0]
    logits = logits_of(model, trace, trace.sequence.completion_ids[: first + 1])
    assert scored(folder, settings(), TRACES[:1], ended=False)[0][0] == pytest.approx(
        (logits[1] - logits[0]).item(), rel=1e-4
    )


def test_encoder_does_not_see_padding(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    set_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    config.num_labels, config.initializer_range, config.pad_token_id = 1, 0.5, words.pad_token_id
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    last = [row[-1] for row in scored(tmp_path, settings())]
    whole = [logits_of(model, stepped(words, text))[0].item() for text in TRACES]
    assert last == pytest.approx(whole, abs=1e-5)


def marked_by_hand(text: str) -> str:
    """Each step with the separator right after it, up to the last step."""
    pieces, at = [], 0
    for start, end in step_spans(text) or [(0, len(text))]:
        inner = text[at:start] + text[start:end].rstrip()
        pieces.append(inner + SEPARATOR)
        at = start + len(text[start:end].rstrip())
    return "".join(pieces)


def probabilities_by_hand(
    text: str, tokenizer: PreTrainedTokenizerBase, read: Callable[[torch.Tensor], torch.Tensor], model: PreTrainedModel
) -> list[float]:
    """The probability at each inserted separator, found by counting separators."""
    trace, marked = stepped(tokenizer, text), marked_by_hand(text)
    ids = tokenizer(marked, add_special_tokens=False)["input_ids"]
    places = [at for at, i in enumerate(ids) if i == tokenizer.convert_tokens_to_ids(SEPARATOR)]
    if SEPARATOR in text:
        places = places[1:]  # the first one is part of the trace
    logits = logits_of(model, trace, ids)[len(trace.sequence.prompt_ids) :]
    return [read(logits[at]).item() for at in places]


def back_filled(trace: Stepped, of_steps: Sequence[float]) -> list[float]:
    values: list[float] = []
    for end, value in zip(step_ends(trace), of_steps, strict=True):
        values += [value] * (end + 1 - len(values))
    return values + [of_steps[-1]] * (len(trace.pieces) - len(values))


@pytest.mark.parametrize("name", ["prm", "prm_of_qwen", "prm_of_words"])
def test_process_reward_model_is_read_after_each_step(
    name: str, words: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Traps: a separator in the trace itself, a last token of a step with its line break, no steps."""
    cls, changes, given = KINDS[name]
    folder = save_tiny_model(tmp_path / "m", words, cls, **changes)
    model: Any = cls.from_pretrained(folder)
    own = AutoTokenizer.from_pretrained(folder)  # not `words`: transformers splits text differently for Qwen2
    answers = [1, 0]
    if name == "prm_of_words":
        answers = [own.encode(word, add_special_tokens=False)[0] for word in "+-"]
    expected = [
        back_filled(
            stepped(own, text),
            probabilities_by_hand(text, own, lambda logits: logits[answers].softmax(-1)[0], model),
        )
        for text in TRACES
    ]
    assert_same(scored(folder, settings(**given)), expected)
    assert any("\n" in piece and piece.strip() for piece in stepped(words, TRACES[0]).pieces)
    assert len(set(expected[0])) == 4
    assert all(0 < value < 1 for row in expected for value in row)


def test_head_of_qwens_process_reward_model(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Its two layers have the names of the published files."""
    folder = save_tiny_model(tmp_path / "m", words, Qwen2ForProcessRewardModel, num_labels=2)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForProcessRewardModel"]
    # The published folder also refers to its own code, which is never run.
    code = {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel", "AutoConfig": "configuration_qwen2_rm.C"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": code}))
    tensors = load_file(folder / "model.safetensors")
    own = AutoTokenizer.from_pretrained(folder)
    trace = stepped(own, TRACES[1])
    ids = [*trace.sequence.prompt_ids, *own(marked_by_hand(TRACES[1]), add_special_tokens=False)["input_ids"]]
    model = Qwen2ForProcessRewardModel.from_pretrained(folder)
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    inner = torch.relu(tensors["score.0.weight"] @ hidden + tensors["score.0.bias"])
    logits = tensors["score.2.weight"] @ inner + tensors["score.2.bias"]
    values = scored(folder, settings(step_separator=SEPARATOR), [TRACES[1]])
    assert values[0][-1] == pytest.approx(logits.softmax(-1)[1].item(), rel=1e-4)


def test_language_model_scores_with_log_probabilities(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "m", words, LlamaForCausalLM)
    model = LlamaForCausalLM.from_pretrained(folder)
    expected = []
    for trace in (stepped(words, text) for text in TRACES):
        ids = torch.tensor(trace.sequence.completion_ids)
        logps = torch.log_softmax(logits_of(model, trace), -1)[len(trace.sequence.prompt_ids) - 1 : -1]
        expected.append(logps.gather(-1, ids[:, None])[:, 0].tolist())
    assert_same(scored(folder, settings()), expected)


def test_separator_of_several_tokens_is_read_at_the_last_one(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "m", words, LlamaForTokenClassification, num_labels=2)
    separator = " ки"
    assert len(words(separator, add_special_tokens=False)["input_ids"]) > 1
    model = LlamaForTokenClassification.from_pretrained(folder)
    text = TRACES[1]
    ids = words(marked_by_hand(text).replace(SEPARATOR, separator), add_special_tokens=False)["input_ids"]
    expected = logits_of(model, stepped(words, text), ids)[-1].softmax(-1)[1].item()
    assert scored(folder, settings(step_separator=separator), [text])[0][-1] == pytest.approx(expected, rel=1e-4)


def test_our_model_is_found_by_run_checkpoint_or_folder(
    make_reward_model: Callable[..., RewardModel], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """A run, its checkpoint and the model's folder give the same scores, also when read as a plain token head."""
    run = tmp_path / "run"
    model = make_reward_model(RewardHead.plain)
    folder = run / "checkpoint-3" / "reward_model"
    folder.mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    model.save(folder)
    tokenizer.save_pretrained(folder)
    texts = TRACES[:3]
    expected = [model.eval().score(QUESTION, text).rewards for text in texts]
    for place in (run, run / "checkpoint-3", folder):
        assert find_scorer(str(place), settings()).kind == RewardKind.airl
        assert_same(scored(place, settings(), texts), expected)
        assert_same(scored(place, settings(reward_kind=RewardKind.token), texts), expected)
    with pytest.raises(ConfigError, match="is for a PRM"):
        find_scorer(str(run), settings(step_separator="\n"))


def test_our_model_with_more_than_a_head_is_not_read_as_a_token_head(
    make_reward_model: Callable[..., RewardModel], tmp_path: Path
) -> None:
    """Trap: without its likelihood, or read at every token, it would give plausible but wrong scores."""
    for name, model in (
        ("likelihood", make_reward_model(RewardHead.likelihood)),
        ("step", make_reward_model(RewardHead.plain, Granularity.step)),
    ):
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
        with pytest.raises(ConfigError, match=r"set model\.reward_kind=airl"):
            find_scorer(str(tmp_path / name), settings(reward_kind=RewardKind.token))


@dataclass(frozen=True)
class Mistake:
    cls: type[PreTrainedModel]
    given: dict[str, Any]
    message: str
    changes: dict[str, Any] | None = None


MISTAKES = [
    Mistake(LlamaForTokenClassification, {"reward_kind": RewardKind.sequence}, "its kind is token"),
    Mistake(LlamaForCausalLM, {"reward_kind": RewardKind.token}, "its kind is logprob"),
    Mistake(LlamaForCausalLM, {"reward_kind": RewardKind.airl}, "is not a reward model"),
    Mistake(LlamaForSequenceClassification, {"step_separator": "\n"}, "cannot be read as model.reward_kind=prm"),
    Mistake(Qwen2ForProcessRewardModel, {}, "read after each step", {"num_labels": 2}),
    Mistake(LlamaForCausalLM, {"step_separator": "\n"}, "give model.positive_token"),
    Mistake(
        Qwen2ForTokenClassification,
        {"step_separator": "\n", "positive_token": "+", "negative_token": "-"},
        "take away model.positive_token",
    ),
    Mistake(LlamaForTokenClassification, {}, "has 3 labels", {"num_labels": 3}),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.message)
def test_wrong_kind_of_model_is_named_before_it_loads(
    mistake: Mistake, words: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path / "m", words, mistake.cls, **(mistake.changes or {}))
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=mistake.message) as caught:
        find_scorer(str(folder), settings(**mistake.given))
    assert "\n" not in str(caught.value)


def test_unsupported_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaModel"]}))
    with pytest.raises(UserError, match="is a LlamaModel: give"):
        find_scorer(str(tmp_path), settings())


def test_head_without_weights_is_rejected(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Trap: transformers initialises missing weights at random and only warns."""
    folder = save_tiny_model(tmp_path / "m", words, LlamaForTokenClassification, num_labels=1)
    tensors = load_file(folder / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"has no weights for score\.weight; random ones"):
        scored(folder, settings())


def test_separator_or_answer_outside_the_vocabulary_is_named(
    tokenizer: PreTrainedTokenizerBase, words: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path / "embedded", tokenizer, LlamaForTokenClassification, num_labels=2)
    with pytest.raises(ConfigError, match=r"model\.step_separator='<extra_0>' is not in"):
        scored(folder, settings(step_separator=SEPARATOR), TRACES[:1])
    folder = save_tiny_model(tmp_path / "words", words, LlamaForCausalLM)
    with pytest.raises(ConfigError, match=r"model\.negative_token='wrong' is \d tokens"):
        scored(folder, settings(step_separator=SEPARATOR, positive_token="+", negative_token="wrong"), TRACES[:1])


def test_separators_that_exceed_the_window_are_named(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    n_tokens = sum(map(len, (stepped(words, TRACES[0]).pieces, stepped(words, TRACES[0]).sequence.prompt_ids)))
    folder = save_tiny_model(
        tmp_path / "m", words, LlamaForTokenClassification, num_labels=2, max_position_embeddings=n_tokens - 12
    )
    with pytest.raises(DataError, match="window of"):
        scored(folder, settings(step_separator=SEPARATOR), TRACES[:1])


def test_prompt_without_a_chat_template_is_the_question(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    save_tiny_model(tmp_path, words, LlamaForTokenClassification, num_labels=1)
    (tmp_path / "chat_template.jinja").unlink()
    tokenizer = find_scorer(str(tmp_path), settings()).load_tokenizer()
    assert tokenizer.decode(list(encode_prompt(tokenizer, make_prompt(QUESTION, "")))) == f"{QUESTION}\n"


@pytest.mark.parametrize("name", KINDS)
def test_evaluation_needs_only_a_file_and_a_model(
    name: str,
    words: PreTrainedTokenizerBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cls, changes, given = KINDS[name]
    folder = save_tiny_model(tmp_path / "models" / name, words, cls, **changes)
    monkeypatch.chdir(tmp_path)
    rows = [
        {
            "question": f"{QUESTION} {n}",
            "completion": text,
            "correct": text == TRACES[0],
            "first_error_step": None if text == TRACES[0] else 1,
        }
        for n in range(8)
        for text in TRACES[:2]
    ]
    write_rows(Path("mine.jsonl"), rows)
    separators = (f"model.{key}='{value}'" for key, value in given.items())
    config = irl_config("eval.traces=mine.jsonl", f"model.reward_path={folder}", *separators)
    assert config.run_dir is None
    assert config.output_dir == f"outputs/scored/mine-models-{name}"
    metrics = run_irl_evaluation(config)
    assert capsys.readouterr().out.endswith(f"report: {config.output_dir}\n")
    assert metrics["choice/reward/kind"] == name.partition("_")[0]
    assert metrics["reward/auroc"] is not None
    assert metrics["logprob/auroc"] is None
    assert metrics["reward/first_error_hit@1/natural"] is not None
    written = read_rows(Path(config.output_dir, "traces.jsonl"))
    expected = scored(folder, settings(**given), TRACES[:2])
    lengths = {row["completion"]: len(row["token_rewards"]) for row in written}
    assert lengths == {text: len(values) for text, values in zip(TRACES[:2], expected, strict=True)}
    assert (Path(config.output_dir) / "report.html").is_file()
    with pytest.raises(UserError, match="already exists"):
        run_irl_evaluation(config)


def test_constant_score_finds_the_first_error_at_chance(
    words: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: if ties go to the first step, a constant score finds every error in the first step."""
    folder = save_tiny_model(tmp_path / "m", words, LlamaForSequenceClassification, num_labels=1)
    tensors = load_file(folder / "model.safetensors")
    tensors["score.weight"].zero_()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.chdir(tmp_path)
    rows = [
        {"question": str(n), "completion": TRACES[0], "correct": False, "first_error_step": 1 + n % 4}
        for n in range(12)
    ]
    rows += [{**row, "first_error_step": None, "correct": True} for row in rows]
    write_rows(Path("mine.jsonl"), rows)
    config = irl_config("eval.traces=mine.jsonl", f"model.reward_path={folder}")
    metrics = run_irl_evaluation(config)
    assert metrics["choice/reward/aggregation"] == "mean"  # all are equal on validation, so the first is chosen
    for metric in ("first_error_hit@1", "first_error_hit@3", "first_error_map", "first_error_token_auroc"):
        assert metrics[f"reward/{metric}/natural"] == pytest.approx(metrics[f"chance/{metric}/natural"])
    assert metrics["reward/auroc"] == 0.5


def test_without_labels_a_sequence_head_ranks_by_the_score_of_the_whole_trace(
    words: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: the mean over steps is not the model's score of the trace."""
    folder = save_tiny_model(tmp_path / "m", words, LlamaForSequenceClassification, num_labels=1)
    monkeypatch.chdir(tmp_path)
    rows = [{"question": str(n), "completion": text, "correct": None} for n in range(4) for text in TRACES[:2]]
    write_rows(Path("mine.jsonl"), rows)
    config = irl_config("eval.traces=mine.jsonl", f"model.reward_path={folder}")
    run_irl_evaluation(config)
    written = read_rows(Path(config.output_dir, "traces.jsonl"))
    assert [row["score"] for row in written] == pytest.approx([row["token_rewards"][-1] for row in written], abs=1e-5)
    assert written[0]["score"] != pytest.approx(sum(written[0]["token_rewards"]) / len(written[0]["tokens"]))


def test_questions_get_the_system_prompt_of_training(
    make_reward_model: Callable[..., RewardModel], tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Trap: bare questions, scored by a model that was trained with a system prompt."""
    model = make_reward_model(RewardHead.plain)
    model.spec = replace(model.spec, system_prompt="How many ?")
    model.save(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    source = find_scorer(str(tmp_path), settings())
    file = write_rows(tmp_path / "t.jsonl", [{"question": QUESTION, "completion": TRACES[1], "correct": True}])
    traces = read_traces(file, source.load_tokenizer(), 0.0, 0, system_prompt=source.system_prompt)
    assert traces[0].sequence.prompt_ids == encode_prompt(tokenizer, make_prompt(QUESTION, "How many ?"))
    values = source.load(tokenizer)([Stepped(traces[0].sequence, traces[0].pieces, traces[0].step_ids)], 1, list)
    assert list(values[0]) == pytest.approx(model.eval().score(QUESTION, TRACES[1]).rewards, abs=1e-5)
