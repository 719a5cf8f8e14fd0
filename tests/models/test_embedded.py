import random
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from reasoning_irl.data.arithmetic import AnnotatorErrors, annotate, generate_problems, write_trace
from reasoning_irl.data.records import Record, make_prompt
from reasoning_irl.data.tokens import encode_completion, encode_prompt

MAX_VALUE = 40


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Questions, experts' traces and the annotator's."""
    rng, found = random.Random(0), []
    for problem in islice(generate_problems(7, MAX_VALUE, 4, 0.5), 300):
        found += [problem.question, write_trace(problem.start, problem.steps)]
        found.append(annotate(problem, rng, AnnotatorErrors(), MAX_VALUE))
    return found


@pytest.fixture(params=["built", "reloaded"])
def either(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    if request.param == "built":
        return tokenizer
    tokenizer.save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def test_text_survives_the_round_trip(either: PreTrainedTokenizerFast, texts: list[str]) -> None:
    """Trap: a trace that decodes to other text than was written; checks would read another trace."""
    for text in texts:
        ids = either(text, add_special_tokens=False)["input_ids"]
        assert either.unk_token_id not in ids
        assert either.decode(ids) == text


def test_a_number_is_one_token(either: PreTrainedTokenizerFast, texts: list[str]) -> None:
    for number in range(MAX_VALUE + 1):
        (token,) = either(str(number), add_special_tokens=False)["input_ids"]
        assert either.decode([token]) == str(number)
    for text in texts[:60]:
        encoded = either(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = {tuple(span) for span in encoded["offset_mapping"]}
        assert {match.span() for match in re.finditer("[0-9]+", text)} <= spans


def test_the_chat_template_and_our_own_encoding_agree(either: PreTrainedTokenizerFast, records: list[Record]) -> None:
    """Trap: an end token too many, or the template's trailing newline counted as reasoning."""
    for record in records:
        completion, spans = encode_completion(either, record.target, 200)
        ours = [*encode_prompt(either, record.prompt), *completion]
        chat = [*record.prompt, {"role": "assistant", "content": record.target}]
        assert ours == either.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
        assert ours.count(either.eos_token_id) == 1
        assert ours[-1] == either.eos_token_id
        assert either.decode(completion[:-1]) == record.target
        for token, (start, end) in zip(completion[:-1], spans[:-1], strict=True):
            assert either.decode([token]) == record.target[start:end]
        assert spans[-1] == (len(record.target), len(record.target))


def test_a_system_prompt_is_rendered(tokenizer: PreTrainedTokenizerFast) -> None:
    question = "How many coins are there now?"
    with_system = encode_prompt(tokenizer, make_prompt(question, "Tom has coins."))
    assert len(with_system) > len(encode_prompt(tokenizer, make_prompt(question, "")))
    assert with_system[-1] == tokenizer.convert_tokens_to_ids("<|assistant|>")


def test_a_truncated_trace_gets_no_end_token(tokenizer: PreTrainedTokenizerFast, records: list[Record]) -> None:
    """Trap: an end token on a cut trace teaches that stopping there is what experts do."""
    whole, _ = encode_completion(tokenizer, records[0].target, 1000)
    for length in range(1, len(whole)):
        cut, spans = encode_completion(tokenizer, records[0].target, length)
        assert cut == whole[:length]
        assert len(spans) == length
        assert tokenizer.eos_token_id not in cut
    assert encode_completion(tokenizer, records[0].target, len(whole))[0] == whole


def test_a_saved_model_is_an_ordinary_checkpoint(embedded_folder: Path, records: list[Record]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    model = AutoModelForCausalLM.from_pretrained(embedded_folder)
    ids = torch.tensor([encode_prompt(tokenizer, records[0].prompt)])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)
    assert output.size(1) > ids.size(1)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.padding_side == "left"
