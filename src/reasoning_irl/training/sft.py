"""Supervised fine-tuning on demonstrations, with TRL's SFTTrainer: the warm start and the baseline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import encode_record
from reasoning_irl.models import cpu_logprobs
from reasoning_irl.training.non_finite import NonFiniteSteps, SkipsNonFinite
from reasoning_irl.training.retention import Retention
from reasoning_irl.training.speed import LogsSpeed
from reasoning_irl.training.step_table import SFT, show_steps
from reasoning_irl.training.whole_checkpoints import WholeCheckpoints


def sft_rows(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, max_completion_length: int
) -> list[dict[str, list[int]]]:
    """Prompts and demonstrations as ids, with the loss on the demonstrations only.

    The same functions feed the discriminator, so the baseline learns exactly the same tokens: the model's own chat
    template, and one end token with nothing after it.
    """
    rows = []
    for record in records:
        sequence = encode_record(tokenizer, record, record.target, max_completion_length)
        rows.append(
            {
                "input_ids": [*sequence.prompt_ids, *sequence.completion_ids],
                "completion_mask": [0] * len(sequence.prompt_ids) + [1] * len(sequence.completion_ids),
            }
        )
    return rows


class _SFTTrainer(SkipsNonFinite, WholeCheckpoints, SFTTrainer, LogsSpeed):
    """SFTTrainer that skips gradients that are not finite, and whose checkpoints appear when they are whole."""


def run_sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    max_completion_length: int,
    run_dir: Path,
    callbacks: list[TrainerCallback],
    resume_from: Path | None = None,
    max_seconds: float | None = None,
    retention: Retention | None = None,
    non_finite: NonFiniteSteps | None = None,
    **arguments: Any,
) -> Path:
    """Fine-tunes and returns the folder of the final checkpoint; `arguments` go to TRL's SFTConfig.

    `max_seconds` is only shown: a callback ends the training then. `non_finite` keeps batches elsewhere than in
    `run_dir`.
    """
    cpu_logprobs.install()
    args = SFTConfig(
        output_dir=str(run_dir),
        completion_only_loss=True,
        max_length=None,  # demonstrations are already truncated
        **{"report_to": "none"} | arguments,
    )
    trainer = _SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(sft_rows(records, tokenizer, max_completion_length)),
        processing_class=tokenizer,
        callbacks=callbacks,
        retention=retention,
    )
    if non_finite is not None:
        trainer.non_finite = non_finite
    show_steps(trainer, SFT, max_seconds)
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    checkpoint = run_dir / f"checkpoint-{trainer.state.global_step}"
    if not checkpoint.is_dir():
        trainer._save_checkpoint(model, trial=None)
    return checkpoint
