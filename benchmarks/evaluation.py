"""What evaluation spends its time on: sampling and scoring, against the bare model."""

from typing import Any

import torch
from transformers import set_seed

from benchmarks.inputs import MAX_VALUE, irl_config, long_records, reward_model, saved_model, sequences
from benchmarks.measure import Figure, Size, Unit, medians
from reasoning_irl.config.schema import SamplingConfig
from reasoning_irl.data.loading import load_train
from reasoning_irl.data.tokens import TokenSequence, collate, encode_prompt
from reasoning_irl.eval.scoring.generation import on_best_device, sample
from reasoning_irl.models.batches import score_by_length
from reasoning_irl.models.embedded import build_tokenizer
from reasoning_irl.models.loading import load_policy, load_tokenizer

# A test set has thousands of traces; with few, batches of similar length cannot be made.
BATCH, TRACES_PER_SAMPLE = 32, 16


def scoring(size: Size) -> list[Figure]:
    """`score_by_length`, as evaluate_irl.py uses it, against forward passes over as many tokens of one length."""
    tokenizer = build_tokenizer(MAX_VALUE)
    model = reward_model(size, tokenizer)
    traces = sequences(TRACES_PER_SAMPLE * size.n_samples, size.length, tokenizer)
    length = round(sum(len(t.prompt_ids) + len(t.completion_ids) for t in traces) / len(traces))
    ids = torch.ones(len(traces), length, dtype=torch.long, device=model.device)

    @torch.no_grad()
    def bare() -> None:
        for part in ids.split(BATCH):
            model.backbone(input_ids=part, use_cache=False)

    def scored() -> None:
        score_by_length(traces, model.rewards, tokenizer.pad_token_id, BATCH, list, model.device)

    seconds = medians({"scoring": scored, "bare forward pass": bare}, size.repeats)
    return [
        *(Figure(name, value, Unit.seconds) for name, value in seconds.items()),
        Figure("bare forward pass / scoring", seconds["bare forward pass"] / seconds["scoring"], Unit.ratio, goal=0.9),
    ]


def sampling(size: Size) -> list[Figure]:
    """`sample`, as evaluate.py uses it, against transformers' `generate` on batches as large in the records' order.

    A random model ends each completion with the same small chance per token, so their lengths differ widely. The sides
    draw other tokens, so what is compared is the time per sampled token.
    """
    with saved_model(size, size.policy_layers) as folder:
        model, tokenizer = on_best_device(load_policy(folder)).eval(), load_tokenizer(folder)
    records = long_records(load_train(irl_config().dataset).train[: size.n_samples], size.length)
    config = SamplingConfig(
        n_samples=2,
        temperature=1.0,
        top_p=1.0,
        batch_size=BATCH,
        load_in_4bit=False,
        max_prompt_length=round(500 * size.length),
        max_completion_length=round(400 * size.length),
    )
    prompts = [TokenSequence(encode_prompt(tokenizer, r.prompt), ()) for r in records for _ in range(config.n_samples)]
    n_tokens: dict[str, list[int]] = {"sampling": [], "generate": []}
    generate: Any = model.generate

    def ours() -> None:
        set_seed(len(n_tokens["sampling"]))
        sampled = sample(model, tokenizer, records, config, list)
        n_tokens["sampling"].append(sum(len(s.completion_ids) for group in sampled for s in group))

    @torch.no_grad()
    def plain() -> None:
        set_seed(len(n_tokens["generate"]))
        n = 0
        for start in range(0, len(prompts), BATCH):
            batch = collate(prompts[start : start + BATCH], tokenizer.pad_token_id, model.device)
            output = generate(
                input_ids=batch.prompt_ids,
                attention_mask=batch.prompt_mask,
                do_sample=True,
                top_k=0,
                max_new_tokens=config.max_completion_length,
                pad_token_id=tokenizer.pad_token_id,
            )
            n += int((output[:, batch.prompt_ids.size(1) :] != tokenizer.pad_token_id).sum())
        n_tokens["generate"].append(n)

    seconds = medians({"sampling": ours, "generate": plain}, size.repeats)
    per_1000 = {name: 1000 * size.repeats * value / sum(n_tokens[name]) for name, value in seconds.items()}
    return [
        *(Figure(f"{name}, 1,000 tokens", value, Unit.seconds) for name, value in per_1000.items()),
        Figure("generate / sampling", per_1000["generate"] / per_1000["sampling"], Unit.ratio, goal=1.5),
    ]
