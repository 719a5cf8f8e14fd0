"""Exports a run's reward model as a plain transformers folder: `python -m reasoning_irl.export RUN DIR`.

Adapters are merged into the weights. A reward model with a plain head then loads with
`AutoModelForTokenClassification.from_pretrained`; one with a likelihood head keeps its two numbers (and the output
matrix, if it is not the embedding matrix) in a separate file, and the model card says how to add them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasoning_irl.utils.errors import UserError
from reasoning_irl.utils.programs import command
from reasoning_irl.utils.run_folder import check_can_write, load_run_config


def export(run: Path, target: Path, licence: str | None = None) -> None:
    """Writes the folder. Raises UserError if the run has no reward model or the folder is not empty.

    What the run's evaluation chose is saved with the model; `licence` is for the model card.
    """
    check_can_write(target)
    if target.is_file():
        raise UserError(f"{target} is a file: choose another folder")
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} is not empty and would be overwritten: choose another folder")
    load_run_config(run)
    from peft import PeftModel

    from reasoning_irl.model_card import write_reward_card
    from reasoning_irl.models.reward_model import RewardModel

    model = RewardModel.from_run(run)
    if isinstance(model.backbone, PeftModel):
        merged: Any = model.backbone.merge_and_unload()
        model.backbone = merged
    target.mkdir(parents=True, exist_ok=True)
    model.save(target)
    model.tokenizer.save_pretrained(target)
    write_reward_card(run, target, licence)


def check_upload(repository: str) -> None:
    """Raises UserError if the name is not one of the hub, or nobody is logged in."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UserError(f"--push-to-hub {repository} is not a name of the hub: write NAMESPACE/NAME") from None
    if get_token() is None:
        raise UserError("--push-to-hub needs a login: run `hf auth login`, or set HF_TOKEN")


def upload(folder: Path, repository: str) -> None:
    """Uploads the folder to the hub; a repository that does not exist yet is created, private."""
    from httpx import HTTPError
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Reward model")
    except (OSError, HTTPError) as error:
        line = str(error).strip().splitlines()[0]
        raise UserError(f"{folder} is written, but cannot be uploaded to {repository}: {line}") from error


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=command("-m reasoning_irl.export"), description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("run", type=Path, help="run folder of a training run")
    parser.add_argument("target", type=Path, help="new folder for the reward model")
    parser.add_argument("--license", help="the licence that the model card names, as the hub writes it: apache-2.0")
    parser.add_argument("--push-to-hub", metavar="NAMESPACE/NAME", help="also upload the folder to this repository")
    arguments = parser.parse_args(given)
    try:
        if arguments.push_to_hub:
            check_upload(arguments.push_to_hub)
        export(arguments.run, arguments.target, arguments.license)
        print(f"reward model and card: {arguments.target}")
        if arguments.push_to_hub:
            upload(arguments.target, arguments.push_to_hub)
            print(f"uploaded to {arguments.push_to_hub}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
