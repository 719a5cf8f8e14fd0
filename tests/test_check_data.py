"""The check of one's own demonstrations."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from reasoning_irl.check_data import main

ROWS = [
    {"question": "Two and two?", "reasoning": "2 + 2 = 4", "answer": "4"},
    {"question": "Two and three?", "reasoning": "2 + 3 = 5\n5 = 5", "answer": 5},
    {"question": "Two and two?", "reasoning": "<think>2 + 2 = 5</think><answer>5</answer>", "answer": "4"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


def test_lengths_that_cut_nothing_are_suggested(
    file: Path, embedded_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(file), "--model", str(embedded_folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "3 usable records, 2 different questions"
    assert lines[1].startswith("1 traces end in another answer")
    (prompt, trace) = (int(line.split()[-1]) for line in lines[3:5])
    assert lines[5].endswith(f"training.max_prompt_length={prompt} training.max_completion_length={trace}")
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder)
    prompts = [[{"role": "user", "content": row["question"]}] for row in ROWS]
    assert prompt == max(
        len(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)) for turns in prompts
    )
    longest_trace = "<think>\n2 + 3 = 5\n5 = 5\n</think>\n<answer>\n5\n</answer>"
    assert trace == len(tokenizer(longest_trace, add_special_tokens=False)["input_ids"]) + 1  # and the end token


def test_without_a_model_lengths_are_in_characters(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(file)]) == 0
    assert "characters" in capsys.readouterr().out


def test_unusable_record_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(json.dumps({"question": "Two and two?", "answer": "4"}))
    assert main([str(file)]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("train.jsonl:1: the record has no 'reasoning'; every record needs a text under that key")
    )
