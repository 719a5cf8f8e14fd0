"""The entry point of the scripts: mistakes end in one line that names the key, before anything heavy loads."""

import re
from pathlib import Path

import pytest

from reasoning_irl.config.compose import CONFIGS
from reasoning_irl.config.main import find_config_path
from reasoning_irl.utils.errors import ConfigError
from tests.helpers.commands import REPOSITORY, run_python
from tests.helpers.configs import config_error


def test_config_decides_which_job_a_script_runs(tmp_path: Path) -> None:
    """The published commands start AIRL with sft_train.py; a config of another script is an error."""
    done = run_python(
        REPOSITORY / "sft_train.py",
        "--config-path=configs/llama8b",
        "--config-name=3B_1B_config_irl_train",
        "--cfg=job",
        cwd=tmp_path,
    )
    assert "algorithm: airl" in done.stdout, done.stderr
    done = run_python(
        REPOSITORY / "sft_train.py", "--config-path=configs/llama8b", "--config-name=8B_1B_config_eval", cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == "error: this config is for another program: run python evaluate.py\n"


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("model.rewrad_head=plain", "model.reward_head"),
        ("model.classifer_loss=bce", "model.classifier_loss"),
        ("training.max_step=3", "training.max_steps"),
        ("dataset.max_valu=30", "dataset.max_value"),
        ("sed=1", "seed"),
        ("model.gradient_penaltyy=1", "model.gradient_penalty"),
        ("disc_temperature=1", "model.disc_temperature"),  # the right name in the wrong place
    ],
)
def test_unknown_key_suggests_the_closest_one(override: str, nearest: str) -> None:
    message = config_error(override)
    assert override.split("=")[0] in message
    assert f"did you mean {nearest}?" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("model.classifier_loss", "hinge", ["bce", "wgan", "pairwise"]),
        ("model.reward_granularity", "token", ["sparse", "step", "interval", "dense"]),
        ("model.advantage_calculation", "gae", ["grpo", "prime", "trace_mean"]),
        ("dataset.name", "math", ["arithmetic", "gsm8k", "jsonl"]),
        ("wandb.mode", "on_line", ["online", "offline", "disabled"]),
        ("training.lr_scheduler_type", "cosin", ["cosine", "linear"]),
        ("model.neg_perturb_fns", "[operator_flop]", ["operator_flip", "nearby_answer"]),
    ],
)
def test_wrong_choice_names_the_key_and_the_choices(key: str, value: str, allowed: list[str]) -> None:
    message = config_error(f"{key}={value}")
    assert key in message
    assert all(name in message for name in allowed)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.max_steps", "many"),
        ("training.max_steps", "1.5"),
        ("model.dense_gamma", "high"),
        ("model.class_balance", "sometimes"),
        ("seed", "abc"),
        ("dataset.n_train", "[1]"),
        ("model.embedded.layers", "two"),
    ],
)
def test_wrong_type_names_the_key(key: str, value: str) -> None:
    message = config_error(f"{key}={value}")
    assert key in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.rewrad_head=plain", "did you mean model.reward_head?"),
        ("model.dense_gamma=2", "model.dense_gamma=2.0 is out of range"),
        ("model.classifier_loss=hinge", "pairwise"),
    ],
)
def test_mistake_on_the_command_line_is_one_line_and_exit_code_2(override: str, says: str, tmp_path: Path) -> None:
    done = run_python(REPOSITORY / "irl_train.py", override, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config-path=configs/llama3b", "--config-name=3B_1B_config_irl_train", "variant=foo"], "variant from"),
        (["--config-path=configs/llama3b", "--config-name=nowhere"], "there is no config nowhere"),
        (["--config-path=configs/nowhere", "--config-name=x"], "--config-path"),
        (["backbone=llama3b"], "this config has no group backbone to choose from"),
    ],
)
def test_missing_config_is_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = run_python(REPOSITORY / "irl_train.py", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_help_lists_the_groups_and_keys_that_a_user_sets(tmp_path: Path) -> None:
    done = run_python(REPOSITORY / "irl_train.py", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    groups, _, keys = done.stdout.partition("== Keys")
    assert re.findall(r"^([a-z_]+)  ", groups, re.MULTILINE) == [
        "scale",
        "variant",
        "dataset",
        "backbone",
        "reward_backbone",
    ]
    assert "additive, airl_form" in groups
    assert "docs/config.md" in keys
    assert "reward_warmup_steps: 240" in keys


def test_full_traceback_is_shown_on_request(tmp_path: Path) -> None:
    done = run_python(REPOSITORY / "irl_train.py", "model.dense_gamma=2", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_checking_a_config_does_not_import_torch(tmp_path: Path) -> None:
    """Trap: a typing mistake is reported only after importing the model libraries."""
    script = tmp_path / "job.py"
    script.write_text(
        "import sys\n"
        "from reasoning_irl.config import hydra_main\n"
        "from reasoning_irl.config.schema import IRLTrainConfig\n"
        "@hydra_main('config_irl_train', IRLTrainConfig)\n"
        "def main(config):\n"
        "    assert type(config) is IRLTrainConfig\n"
        "    print(sorted({'torch', 'transformers', 'trl'} & set(sys.modules)), config.seed)\n"
        "main()\n"
    )
    done = run_python(script, "seed=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] 5"


@pytest.mark.parametrize("words", [["--config-path=configs/qwen3b"], ["seed=1", "--config-path", "configs/qwen3b"]])
def test_config_path_alone_names_the_configs_of_the_folder(words: list[str]) -> None:
    """Trap: the embedded default would run, whatever the folder is."""
    with pytest.raises(ConfigError, match=r"--config-name too: one of 3B_1B_config_eval, "):
        find_config_path(words, "config_irl_train")
    found = find_config_path([*words, "--config-name=3B_1B_config_eval"], "config_irl_train")
    assert found[-2:] == [f"--config-path={CONFIGS}/qwen3b", "--config-name=3B_1B_config_eval"]
    assert find_config_path(["seed=1"], "config_irl_train") == ["seed=1"]


def test_config_path_is_of_the_working_directory_before_that_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: an installed program finds the package's configs alone, or those of the working directory alone."""
    (tmp_path / "configs" / "llama3b").mkdir(parents=True)
    (tmp_path / "configs" / "llama3b" / "config_irl_train.yaml").touch()
    monkeypatch.chdir(tmp_path)
    own, packaged = (
        find_config_path(["-cp", f"configs/{folder}", "-cn=x"], "config_irl_train") for folder in ("llama3b", "qwen3b")
    )
    assert own == [f"--config-path={tmp_path}/configs/llama3b", "-cn=x"]
    assert packaged == [f"--config-path={CONFIGS}/qwen3b", "-cn=x"]
    assert find_config_path(["-cp=configs/llama3b"], "config_irl_train") == [
        f"--config-path={tmp_path}/configs/llama3b"
    ]
