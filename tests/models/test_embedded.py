import random
import re
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from reasoning_irl.config.schema import AnnotatorConfig
from reasoning_irl.data.arithmetic import annotate, generate_problems, write_trace
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import encode_completion, encode_prompt

MAX_VALUE = 40


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Questions, and the traces of experts and of the annotator."""
    rng, found = random.Random(0), []
    for problem in islice(generate_problems(7, MAX_VALUE, 4, 0.5), 300):
        found += [problem.question, write_trace(problem.start, problem.steps)]
        found.append(annotate(problem, rng, AnnotatorConfig(misread=0.5, distracted=0.2, slip=0.06), MAX_VALUE))
    return found


@pytest.fixture(params=["built", "reloaded"])
def either(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast, tmp_path: Path):
    if request.param == "built":
        return tokenizer
    tokenizer.save_pretrained(tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def test_decoding_restores_the_text(either: PreTrainedTokenizerFast, texts: list[str]) -> None:
    """Trap: checks would read another trace than the one that was written."""
    for text in texts:
        ids = either(text, add_special_tokens=False)["input_ids"]
        assert either.unk_token_id not in ids
        assert either.decode(ids) == text


def test_every_number_is_one_token(either: PreTrainedTokenizerFast, texts: list[str]) -> None:
    for number in range(MAX_VALUE + 1):
        (token,) = either(str(number), add_special_tokens=False)["input_ids"]
        assert either.decode([token]) == str(number)
    for text in texts[:60]:
        encoded = either(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = {tuple(span) for span in encoded["offset_mapping"]}
        assert {match.span() for match in re.finditer("[0-9]+", text)} <= spans


def test_chat_template_and_our_encoding_agree(either: PreTrainedTokenizerFast, records: list[Record]) -> None:
    """Trap: a second end token, or a line break of the template counted as reasoning."""
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


def test_saved_model_is_an_ordinary_checkpoint(embedded_folder: Path, records: list[Record]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    model = AutoModelForCausalLM.from_pretrained(embedded_folder)
    ids = torch.tensor([encode_prompt(tokenizer, records[0].prompt)])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)
    assert output.size(1) > ids.size(1)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.padding_side == "left"
