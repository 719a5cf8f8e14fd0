import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_irl.config import register, schema, to_config
from reasoning_irl.config.compose import CONFIGS, SCHEMAS
from reasoning_irl.config.main import explain
from reasoning_irl.config.validate import known_keys
from reasoning_irl.utils.errors import ConfigError, UserError

ROOT = CONFIGS.parent
SRC = ROOT / "src" / "reasoning_irl"
MAIN_CONFIGS = sorted(path.stem for path in CONFIGS.glob("config_*.yaml"))
# Every file that names a job: what a user may start.
EXPERIMENTS = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/*_config_*.yaml"))
VARIANTS = sorted(path.stem for path in (CONFIGS / "variant").glob("*.yaml"))
TinyConfig = Callable[..., schema.IRLTrainConfig]


def load(name: str, *overrides: str) -> object:
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return to_config(compose(name, overrides=list(overrides)), *SCHEMAS.values())


def mistake(*overrides: str) -> str:
    """What the user reads for these overrides of config_irl_train."""
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as caught:
        load("config_irl_train", *overrides)
    if isinstance(caught.value, UserError):
        return str(caught.value)
    return explain(caught.value, schema.IRLTrainConfig)


@pytest.mark.parametrize("name", MAIN_CONFIGS)
def test_every_main_config_composes_and_is_checked(name: str) -> None:
    assert load(name)


@pytest.mark.parametrize("name", ["base/eval", "base/irl_eval"])
def test_a_run_of_ones_own_is_evaluated_by_its_folder_or_by_its_name(name: str) -> None:
    for override in ("run_dir=outputs/own", "wandb.run_name=own"):
        config = load(name, override)
        assert isinstance(config, schema.EvalConfig | schema.IRLEvalConfig)
        assert (config.run_dir, config.output_dir) == ("outputs/own", "outputs/own")
        assert (config.wandb.run_name, config.wandb.group) == ("own", "own")
    with pytest.raises(OmegaConfBaseException) as caught:
        load(name)
    assert "set run_dir=FOLDER" in explain(caught.value, schema.EvalConfig)


def test_every_job_has_its_config() -> None:
    assert {"config_irl_train", "config_sft_train"} <= set(MAIN_CONFIGS)
    jobs = {"grpo_train" if name == "config_train" else name.removeprefix("config_") for name in MAIN_CONFIGS}
    assert jobs == set(SCHEMAS)


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", ["full", "smoke"])
def test_every_experiment_composes_at_both_scales(name: str, scale: str) -> None:
    if name.startswith("smollm2/"):
        pytest.skip("needs the converted model, and is a rehearsal itself")
    config = load(name, f"scale={scale}")
    if isinstance(config, schema.TrainConfig):
        assert (config.model.policy_name == "embedded") == (scale == "smoke")
        assert config.training.output_dir == ("outputs/" + "smoke/" * (scale == "smoke") + config.wandb.run_name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_the_run_and_nothing_it_does_not_name(variant: str) -> None:
    plain, changed = (
        OmegaConf.to_container(OmegaConf.structured(load("llama3b/3B_1B_config_irl_train", "scale=smoke", *more)))
        for more in ([], [f"variant=[{variant}]", *KEPT.get(variant, [])])
    )
    differing = {key for key in leaves(plain) if leaves(plain)[key] != leaves(changed)[key]}
    assert differing, variant
    assert differing <= {key.strip() for key in leaves(OmegaConf.load(CONFIGS / "variant" / f"{variant}.yaml"))}


# The smoke scale starts from no checkpoint; a variant about the start is seen on the command line's value.
KEPT = {"continued": ["model.checkpoint=src"]}


def leaves(node: object, prefix: str = "") -> dict[str, object]:
    """Dotted keys and values."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node)
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    return {key: value for name, child in node.items() for key, value in leaves(child, f"{prefix}{name}.").items()}


def layers(name: str, *overrides: str) -> list[tuple[str, set[str]]]:
    """The YAML files of a composition, in the order in which Hydra merges them, with the keys that each sets itself."""
    register()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        merged = hydra.config_loader.compute_defaults_list(name, list(overrides), RunMode.RUN).defaults
    files = []
    for part in merged:
        path = CONFIGS / f"{part.config_path}.yaml"
        if path.is_file():  # schemas are not files
            own = leaves(OmegaConf.load(path), f"{part.package}." if part.package else "")
            files.append((str(part.config_path), {key for key in own if not key.endswith("defaults")}))
    return files


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if not name.startswith("smollm2/")])
def test_no_experiment_sets_a_key_that_a_variant_or_a_scale_sets(name: str) -> None:
    """Trap: an experiment's own values are merged last, so such a key would silently cancel the variant."""
    is_airl = name.endswith("_irl_train")
    files = layers(name, "scale=smoke", *([f"variant=[{','.join(VARIANTS)}]"] if is_airl else []))
    chosen = [i for i, (path, _) in enumerate(files) if path.startswith(("variant/", "scale/"))]
    assert len(chosen) >= 2 + is_airl * len(VARIANTS)
    settable = set().union(*(keys for _, keys in files[chosen[0] : chosen[-1] + 1]))
    for path, keys in files[chosen[-1] + 1 :]:
        assert not keys & settable, f"configs/{path}.yaml sets {', '.join(keys & settable)}"


def test_no_experiment_is_a_copy_of_another() -> None:
    """Trap: whole YAML files copied; values that two experiments share belong in one file."""
    for name in EXPERIMENTS:
        lines = [line for line in (CONFIGS / f"{name}.yaml").read_text().splitlines() if not line.startswith("#")]
        assert len(lines) <= 26, name


def test_the_config_says_which_job_a_script_runs(tmp_path: Path) -> None:
    """The published commands start AIRL through sft_train.py, and evaluation configs are no training jobs."""
    done = run_python(
        str(ROOT / "sft_train.py"),
        "--config-path=configs/llama8b",
        "--config-name=3B_1B_config_irl_train",
        "--cfg=job",
        cwd=tmp_path,
    )
    assert "algorithm: airl" in done.stdout, done.stderr
    done = run_python(
        str(ROOT / "sft_train.py"), "--config-path=configs/llama8b", "--config-name=8B_1B_config_eval", cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == "error: this config is for evaluate.py: run it with that script\n"


@pytest.mark.parametrize(
    ("arguments", "run_name"),
    [
        ([], "llama3b_airl"),
        (["variant=wgan"], "llama3b_airl_wgan"),
        (["variant=[wgan,step]", "seed=3"], "llama3b_airl_wgan_step"),
        (["variant=wgan", "wandb.run_name=mine"], "mine"),
    ],
)
def test_a_run_is_named_by_its_variants(arguments: list[str], run_name: str, tmp_path: Path) -> None:
    """Trap: an ablation that writes into the folder of the plain run."""
    config = ["--config-path=configs/llama3b", "--config-name=3B_1B_config_irl_train"]
    done = run_python(str(ROOT / "irl_train.py"), *config, *arguments, "--cfg=job", "--resolve", cwd=tmp_path)
    assert f"run_name: {run_name}\n" in done.stdout, done.stderr
    assert f"output_dir: outputs/{run_name}\n" in done.stdout


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
def test_an_unknown_key_names_the_nearest(override: str, nearest: str) -> None:
    message = mistake(override)
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
def test_a_wrong_choice_names_the_key_and_what_there_is(key: str, value: str, allowed: list[str]) -> None:
    message = mistake(f"{key}={value}")
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
def test_a_wrong_type_names_the_key(key: str, value: str) -> None:
    message = mistake(f"{key}={value}")
    assert key in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value", "bound"),
    [
        ("model.dense_gamma", "1.01", "at least 0 and at most 1"),
        ("model.dense_gamma", "-0.1", "at least 0 and at most 1"),
        ("model.disc_temperature", "0", "above 0"),
        ("model.reward_learning_rate", "0", "above 0"),
        ("model.disc_label_smoothing", "1", "at most 0.999"),
        ("model.reward_batch_size", "0", "at least 1"),
        ("model.reward_updates_per_policy_step", "-1", "at least 0"),
        ("training.num_generations", "1", "at least 2"),
        ("training.max_seconds", "0", "above 0"),
        ("training.top_p", "1.5", "at most 1"),
        ("dataset.max_value", "10", "at least 20"),
        ("dataset.annotator.slip", "2", "at most 1"),
        ("model.embedded.layers", "0", "at least 1"),
        ("seed", "-1", "at least 0"),
    ],
)
def test_a_value_out_of_range_names_the_key_and_the_range(key: str, value: str, bound: str) -> None:
    message = mistake(f"{key}={value}")
    assert message.startswith(f"{key}={value}")
    assert bound in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["model.reward_lb=3", "model.reward_ub=2"], ["model.reward_lb", "model.reward_ub"]),
        (["model.reward_form=airl", "model.classifier_loss=wgan"], ["model.reward_form", "model.classifier_loss"]),
        (["model.neg_perturb_fns=[]"], ["model.neg_perturb_fns", "num_neg_perturbations_per_expert"]),
        (["model.num_neg_perturbations_per_expert=0"], ["model.reward_warmup_steps"]),
        (["training.num_generations=7"], ["training.num_generations"]),
        (["model.embedded.heads=7"], ["model.embedded.heads"]),
        (["dataset.name=jsonl"], ["dataset.path"]),
        (["dataset.name=jsonl", "dataset.path=nowhere.jsonl"], ["nowhere.jsonl"]),
        (["dataset.name=countdown", "dataset.n_train=null"], ["dataset.n_train"]),
        (["model.load_in_4bit=true"], ["model.load_in_4bit", "model.policy_lora.rank"]),
        (["model.load_in_4bit=true", "model.policy_lora.rank=8"], ["model.reward_lora.rank"]),
        (["model.policy_name=./nowhere"], ["model.policy_name"]),
        (["model.checkpoint=outputs/nowhere"], ["model.checkpoint", "outputs/nowhere"]),
        (["dataset.path=some.jsonl"], ["dataset.path"]),
        (["model.checkpoint=./nowhere"], ["model.checkpoint", "./nowhere"]),
        (["model.reward_name=./nowhere"], ["model.reward_name"]),
    ],
)
def test_keys_that_do_not_agree_are_named(overrides: list[str], named: list[str]) -> None:
    message = mistake(*overrides)
    assert all(name in message for name in named)
    assert "\n" not in message


def test_a_config_error_is_a_user_error(tiny_config: TinyConfig) -> None:
    with pytest.raises(ConfigError):
        tiny_config(["model.dense_gamma=2"])


@pytest.mark.parametrize(
    ("override", "granularity"),
    [("true", schema.Granularity.dense), ("false", schema.Granularity.sparse), ("null", schema.Granularity.step)],
)
def test_dense_rewards_is_an_alias(override: str, granularity: schema.Granularity, tiny_config: TinyConfig) -> None:
    config = tiny_config(["model.reward_granularity=step", f"model.dense_rewards={override}"])
    assert config.model.reward_granularity == granularity


def run_python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model.rewrad_head=plain", "did you mean model.reward_head?"),
        ("model.dense_gamma=2", "model.dense_gamma=2.0 is out of range"),
        ("model.classifier_loss=hinge", "pairwise"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_and_code_2(override: str, says: str, tmp_path: Path) -> None:
    done = run_python(str(ROOT / "irl_train.py"), override, cwd=tmp_path)
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
    ],
)
def test_a_config_that_is_not_there_is_one_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = run_python(str(ROOT / "irl_train.py"), *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_the_whole_trace_is_shown_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    done = subprocess.run(
        [sys.executable, str(ROOT / "irl_train.py"), "model.dense_gamma=2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_checking_a_config_does_not_import_torch(tmp_path: Path) -> None:
    """Trap: a typing mistake that costs a model library's import."""
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
    done = run_python(str(script), "seed=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] 5"


def test_another_config_path_still_reaches_the_bases(tmp_path: Path) -> None:
    """Trap: --config-path replaces the main search path, and with it the shared bases."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config_irl_train.yaml").write_text(
        "defaults:\n  - base/irl_train\n  - base/embedded\n  - _self_\ntraining:\n  output_dir: elsewhere\n"
    )
    overrides = [f"--config-path={tmp_path / 'mine'}", "--cfg", "job"]
    done = run_python(str(ROOT / "irl_train.py"), *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "output_dir: elsewhere" in done.stdout
    assert "dense_gamma: 0.9" in done.stdout


def leaf_keys() -> set[str]:
    return {key for node in SCHEMAS.values() for key in known_keys(node)}


def test_no_key_is_dead() -> None:
    """Trap: a knob that nothing reads. A check alone is no use, so validate.py counts for the alias only."""
    code = "\n".join(path.read_text() for path in SRC.rglob("*.py") if path.parent.name != "config")
    read = {*re.findall(r"\.(\w+)", code), *re.findall(r'\.get\("(\w+)"', code), "dense_rewards"}
    assert sorted(key for key in leaf_keys() if key.split(".")[-1] not in read) == []


def test_every_key_has_a_value_or_is_asked_for() -> None:
    for name in MAIN_CONFIGS:
        config = load(name)
        for key in known_keys(type(config)):
            node: object = config
            for part in key.split("."):
                node = getattr(node, part)
            assert node != "???", f"{name}: {key}"


@pytest.mark.parametrize(
    ("overrides", "run_dir", "output_dir"),
    [
        ([], "outputs/quickstart", "outputs/quickstart"),
        (["eval.traces=a/mine.jsonl"], "outputs/quickstart", "outputs/quickstart"),
        (["eval.traces=a/mine.jsonl", "model.reward_path=Qwen/PRM-7B"], None, "outputs/scored/mine-Qwen-PRM-7B"),
        (
            ["eval.traces=mine.jsonl", "model.reward_path=runs/q/checkpoint-20/reward_model"],
            None,
            "outputs/scored/mine-q-checkpoint-20",
        ),
        (["eval.traces=mine.jsonl", "model.reward_path=a/b", "output_dir=here"], None, "here"),
        (["eval.traces=mine.jsonl", "model.reward_path=a/b", "run_dir=outputs/r"], "outputs/r", "outputs/r"),
    ],
)
def test_a_file_and_a_reward_model_need_no_run(
    overrides: list[str], run_dir: str | None, output_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: somebody's traces scored beside the baselines of a run that has nothing to do with them."""
    monkeypatch.chdir(tmp_path)
    Path("runs/q/checkpoint-20/reward_model").mkdir(parents=True)
    config = load("config_irl_eval", *overrides)
    assert (config.run_dir, config.output_dir) == (run_dir, output_dir)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward_kind=prm"], r"set model\.step_separator"),
        (["reward_kind=token", "step_separator=x"], r"model\.step_separator is for a PRM"),
        (["step_separator=x", "positive_token=yes"], "set both"),
        (["positive_token=yes", "negative_token=no"], r"set model\.step_separator too"),
        (["reward_path=outputs/nowhere/reward_model"], "does not exist"),
    ],
)
def test_a_scorer_that_cannot_work_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("config_irl_eval", *(f"model.{override}" for override in overrides))
