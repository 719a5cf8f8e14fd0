"""Checks your own demonstrations, and suggests the lengths to train with: `python -m reasoning_irl.check_data FILE`.

With `--model MODEL` lengths are in that model's tokens, with its chat template; without it, in characters.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

from reasoning_irl.utils.errors import UserError


def report(path: str, model: str | None) -> str:
    """What is in a file of demonstrations, one fact per line. Raises UserError for the first unusable one."""
    from reasoning_irl.data.jsonl import own_record
    from reasoning_irl.data.sources import read_rows, to_records
    from reasoning_irl.data.tokens import NO_LIMIT, encode_record
    from reasoning_irl.rewards.checking import is_right
    from reasoning_irl.text.trace import extract_answer

    records = to_records(read_rows(path, None, "train", "FILE"), own_record, "")
    lines = [f"{len(records)} usable records, {len({record.question for record in records})} different questions"]
    n_wrong = sum(
        not is_right(extract_answer(record.target), record.answer, record.answer_kind, record.question)
        for record in records
    )
    if n_wrong:
        lines.append(f"{n_wrong} traces end in another answer than their record's: they are learnt from as they are")
    if model is None:
        unit = "characters"
        lengths = [(len(record.question), len(record.target)) for record in records]
    else:
        from reasoning_irl.models.loading import load_tokenizer

        unit, tokenizer = "tokens", load_tokenizer(model)
        sequences = [encode_record(tokenizer, record, record.target, NO_LIMIT) for record in records]
        lengths = [(len(sequence.prompt_ids), len(sequence.completion_ids)) for sequence in sequences]
    lines.append(f"{unit:<12} {'median':>8} {'longest':>8}")
    longest = []
    for name, values in zip(("prompt", "trace"), zip(*lengths, strict=True), strict=True):
        longest.append(max(values))
        lines.append(f"{name:<12} {statistics.median(values):8.0f} {max(values):8d}")
    if model is None:
        lines.append("add --model MODEL for lengths in tokens and the settings that fit them")
    else:
        prompt, trace = longest
        lines.append(f"nothing is cut with training.max_prompt_length={prompt} training.max_completion_length={trace}")
        lines.append("(without a system prompt: dataset.system_prompt adds its own tokens to each prompt)")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reasoning_irl.check_data", description="Checks demonstrations.")
    parser.add_argument("file", metavar="FILE", help="jsonl with question, reasoning and answer on each line")
    parser.add_argument("--model", help="folder or hub name of the model whose tokens are counted")
    chosen = parser.parse_args(argv)
    try:
        print(report(chosen.file, chosen.model))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
