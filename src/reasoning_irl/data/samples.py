"""Reads sampled solutions, the negatives of an offline reward, from a traces file. Labels are not read."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from reasoning_irl.data.jsonl import read_jsonl
from reasoning_irl.data.records import Row, make_prompt
from reasoning_irl.data.tokens import TokenSequence, encode_completion, encode_prompt
from reasoning_irl.utils.errors import DataError


def read_samples(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    system_prompt: str,
    max_prompt_length: int,
    max_completion_length: int,
) -> list[TokenSequence]:
    """The samples of a file with one JSON object per line: `question`, `completion` and, if cut off, `truncated`.

    Texts are encoded as those of the experts are, with the same system prompt and the same limit of tokens, so that
    neither gives a sample away. Repeated samples of a question stay. Raises DataError, naming the line, for a row
    without the two texts or with a prompt that is too long, and for a file without samples.
    """
    prompts: dict[str, tuple[int, ...]] = {}
    samples = []
    for line, values in read_jsonl(path):
        row = Row(f"{path}:{line}", str(line), values)
        question, completion = row.text("question"), values.get("completion")
        if not isinstance(completion, str):
            raise DataError(f"{row.where}: the record has no 'completion'; every record needs a text under that key")
        if question not in prompts:
            prompts[question] = encode_prompt(tokenizer, make_prompt(question, system_prompt))
            if len(prompts[question]) > max_prompt_length:
                raise DataError(
                    f"{row.where}: the prompt has {len(prompts[question])} tokens, more than "
                    f"training.max_prompt_length={max_prompt_length}: raise it, or remove the row"
                )
        ids, _ = encode_completion(tokenizer, completion, max_completion_length)
        was_cut_off = values.get("truncated") is True and ids[-1] == tokenizer.eos_token_id
        if was_cut_off and len(ids) == 1:
            raise DataError(f"{row.where}: 'completion' is empty and truncated: it has no tokens")
        samples.append(TokenSequence(prompts[question], ids[:-1] if was_cut_off else ids))
    if not samples:
        raise DataError(f"{path} has no samples: write one JSON object per line, with question and completion")
    return samples
