"""Composing the configs of the repository: base files, experiments, variants and scales."""

import re
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reasoning_irl.config import register, schema
from reasoning_irl.config.compose import CONFIGS, SCHEMAS, load_dataset_config
from reasoning_irl.config.main import explain
from reasoning_irl.config.schema import EvalConfig
from reasoning_irl.config.validate import known_keys
from reasoning_irl.utils.errors import ConfigError, UserError
from reasoning_irl.utils.run_folder import record_run
from tests.helpers.commands import REPOSITORY, run_python
from tests.helpers.configs import compose_any, compose_config, compose_tiny

SRC = REPOSITORY / "src" / "reasoning_irl"
MAIN_CONFIGS = sorted(path.stem for path in CONFIGS.glob("config_*.yaml"))
# Every experiment that a user can start.
EXPERIMENTS = sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/*_config_*.yaml"))
VARIANTS = sorted(path.stem for path in (CONFIGS / "variant").glob("*.yaml"))
# The smoke scale removes the checkpoint that this variant is about, so it is given on the command line.
KEPT = {"continued": ["model.checkpoint=src"]}


def leaves(node: object, prefix: str = "") -> dict[str, object]:
    """The values by dotted key."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node)
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    return {key: value for name, child in node.items() for key, value in leaves(child, f"{prefix}{name}.").items()}


def layers(name: str, *overrides: str) -> list[tuple[str, set[str]]]:
    """The YAML files of a composition in the order in which Hydra merges them, with the keys that each one sets."""
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


@pytest.mark.parametrize("name", MAIN_CONFIGS)
def test_every_main_config_is_valid(name: str) -> None:
    assert compose_any(name)


@pytest.mark.parametrize("name", ["base/eval", "base/irl_eval"])
def test_own_run_can_be_evaluated_by_its_folder_or_name(name: str) -> None:
    for override in ("run_dir=outputs/own", "wandb.run_name=own"):
        config = compose_any(name, override)
        assert isinstance(config, schema.EvalConfig | schema.IRLEvalConfig)
        assert (config.run_dir, config.output_dir) == ("outputs/own", "outputs/own")
        assert (config.wandb.run_name, config.wandb.group) == ("own", "own")
    with pytest.raises(OmegaConfBaseException) as caught:
        compose_any(name)
    assert "set run_dir=FOLDER" in explain(caught.value, schema.EvalConfig)


def test_every_job_has_a_config() -> None:
    assert {"config_irl_train", "config_sft_train"} <= set(MAIN_CONFIGS)
    jobs = {"grpo_train" if name == "config_train" else name.removeprefix("config_") for name in MAIN_CONFIGS}
    assert jobs | {"offline_irl_train"} == set(SCHEMAS)


def test_offline_reward_needs_its_files_and_a_model(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").touch()
    files = [f"dataset.path={tmp_path}/data.jsonl", f"dataset.samples_path={tmp_path}/data.jsonl"]
    model = ["model.reward_name=some/model"]
    config = compose_any("offline_irl_train", *files, *model)
    changed = compose_any("offline_irl_train", *files, *model, "variant=[wgan,step]")
    assert isinstance(config, schema.OfflineTrainConfig)
    assert isinstance(changed, schema.OfflineTrainConfig)
    assert config.model.classifier_loss == schema.ClassifierLoss.pairwise
    assert config.model.reward_granularity == schema.Granularity.sparse
    assert changed.model.classifier_loss == schema.ClassifierLoss.wgan
    assert changed.model.reward_granularity == schema.Granularity.step
    small = compose_any("offline_irl_train", *files, *model, "scale=smoke")
    assert (small.training.max_steps, small.model.reward_name) == (2, "some/model")  # the user's own, in two updates
    assert small.training.output_dir.startswith("outputs/smoke/")
    for lacking, message in (
        ([*files, "model.reward_name=null"], "model.reward_name is missing"),
        ([*model, files[0], "dataset.samples_path=no.jsonl"], "dataset.samples_path=no.jsonl does not exist"),
        ([*model, files[1], "dataset.path=no.jsonl"], "dataset.path=no.jsonl does not exist"),
        ([*files, *model, "model.load_in_4bit=true", "model.reward_lora.rank=0"], "model.reward_lora.rank"),
        ([*files, *model, "model.reward_layers=3", "model.reward_head=likelihood"], "set model.reward_head=plain"),
        ([*files, *model, "model.reward_layers=3"], "set model.reward_lora.rank=0"),
        (
            [
                *files,
                *model,
                "model.reward_layers=3",
                "model.reward_lora.rank=0",
                "model.reward_frozen_layers=4",
            ],
            "is more than the model.reward_layers=3",
        ),
    ):
        with pytest.raises(UserError, match=message):
            compose_any("offline_irl_train", *lacking)


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("scale", ["full", "smoke"])
def test_every_experiment_is_valid_at_both_scales(name: str, scale: str) -> None:
    if name.startswith("smollm2/"):
        pytest.skip("needs the converted model, and already runs on a CPU")
    config = compose_any(name, f"scale={scale}")
    if isinstance(config, schema.TrainConfig):
        assert (config.model.policy_name == "embedded") == (scale == "smoke")
        assert config.training.output_dir == ("outputs/" + "smoke/" * (scale == "smoke") + config.wandb.run_name)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("config_irl_train", ["variant=[wgan,step]", "scale=smoke", "dataset=arithmetic"]),
        ("own_irl_train", ["variant=noper", "scale=smoke", "dataset=jsonl"]),
        ("config_sft_train", ["scale=smoke", "dataset=arithmetic"]),
        ("config_train", ["scale=smoke", "dataset=arithmetic"]),
        ("config_eval", ["scale=smoke"]),
        ("config_irl_eval", ["scale=smoke"]),
    ],
)
def test_groups_can_be_chosen_with_the_configs_for_own_use(name: str, overrides: list[str]) -> None:
    """Trap: `variant=` and `scale=` work with the published experiments only."""
    config = compose_any(name, *overrides)
    if isinstance(config, schema.TrainConfig):
        assert config.training.max_steps == 2
        assert config.training.output_dir.startswith("outputs/smoke/")
        assert not config.warm_start.enabled
    else:
        assert config.eval.bootstrap_draws == 20
    if isinstance(config, schema.IRLTrainConfig) and name == "config_irl_train":
        assert config.model.classifier_loss == schema.ClassifierLoss.wgan


@pytest.mark.parametrize("variant", VARIANTS)
def test_variant_changes_only_the_keys_that_it_names(variant: str) -> None:
    plain, changed = (
        OmegaConf.to_container(
            OmegaConf.structured(compose_any("llama3b/3B_1B_config_irl_train", "scale=smoke", *more))
        )
        for more in ([], [f"variant=[{variant}]", *KEPT.get(variant, [])])
    )
    differing = {key for key in leaves(plain) if leaves(plain)[key] != leaves(changed)[key]}
    assert differing, variant
    assert differing <= {key.strip() for key in leaves(OmegaConf.load(CONFIGS / "variant" / f"{variant}.yaml"))}


def test_continued_run_starts_from_the_sft_run_of_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs/llama3b_sft").mkdir(parents=True)
    config, sft = (
        compose_any(f"llama3b/{name}", *more)
        for name, more in (("3B_1B_config_irl_train", ["variant=continued"]), ("sft_3B_config_train", []))
    )
    assert isinstance(config, schema.IRLTrainConfig)
    assert isinstance(sft, schema.SFTTrainConfig)
    assert config.model.checkpoint == sft.training.output_dir == "outputs/llama3b_sft"


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if not name.startswith("smollm2/")])
def test_experiments_set_no_key_of_a_variant_or_scale(name: str) -> None:
    """Trap: an experiment's own values are merged last, so such a key would silently cancel the variant."""
    is_airl = name.endswith("_irl_train")
    files = layers(name, "scale=smoke", *([f"variant=[{','.join(VARIANTS)}]"] if is_airl else []))
    chosen = [i for i, (path, _) in enumerate(files) if path.startswith(("variant/", "scale/"))]
    assert len(chosen) >= 2 + is_airl * len(VARIANTS)
    settable = set().union(*(keys for _, keys in files[chosen[0] : chosen[-1] + 1]))
    for path, keys in files[chosen[-1] + 1 :]:
        assert not keys & settable, f"configs/{path}.yaml sets {', '.join(keys & settable)}"


def test_experiments_are_short() -> None:
    """Trap: copies of whole YAML files; values that experiments share belong in one file."""
    for name in EXPERIMENTS:
        lines = [line for line in (CONFIGS / f"{name}.yaml").read_text().splitlines() if not line.startswith("#")]
        assert len(lines) <= 26, name


@pytest.mark.parametrize(
    ("arguments", "run_name"),
    [
        ([], "llama3b_airl"),
        (["variant=wgan"], "llama3b_airl_wgan"),
        (["variant=[wgan,step]", "seed=3"], "llama3b_airl_wgan_step"),
        (["variant=wgan", "wandb.run_name=mine"], "mine"),
    ],
)
def test_runs_are_named_after_their_variants(arguments: list[str], run_name: str, tmp_path: Path) -> None:
    """Trap: an ablation that writes into the folder of the plain run."""
    config = ["--config-path=configs/llama3b", "--config-name=3B_1B_config_irl_train"]
    done = run_python(REPOSITORY / "irl_train.py", *config, *arguments, "--cfg=job", "--resolve", cwd=tmp_path)
    assert f"run_name: {run_name}\n" in done.stdout, done.stderr
    assert f"output_dir: outputs/{run_name}\n" in done.stdout


def test_another_config_path_still_finds_the_base_configs(tmp_path: Path) -> None:
    """Trap: --config-path replaces the main search path, which has the base configs."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config_irl_train.yaml").write_text(
        "defaults:\n  - base/irl_train\n  - base/embedded\n  - _self_\ntraining:\n  output_dir: elsewhere\n"
    )
    overrides = [f"--config-path={tmp_path / 'mine'}", "--cfg", "job"]
    done = run_python(REPOSITORY / "irl_train.py", *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "output_dir: elsewhere" in done.stdout
    assert "dense_gamma: 0.9" in done.stdout


def test_every_key_is_read_somewhere() -> None:
    """Trap: a key that nothing uses; being checked in validate.py does not count, except for the alias.

    `wandb.run_prefix` is read by other keys of the configs.
    """
    code = "\n".join(path.read_text() for path in SRC.rglob("*.py") if path.parent.name != "config")
    read = {*re.findall(r"\.(\w+)", code), *re.findall(r'\.get\("(\w+)"', code), "dense_rewards", "run_prefix"}
    keys = {key for node in SCHEMAS.values() for key in known_keys(node)}
    assert sorted(key for key in keys if key.split(".")[-1] not in read) == []


def test_every_key_has_a_value_in_every_main_config() -> None:
    for name in MAIN_CONFIGS:
        config = compose_any(name)
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
def test_traces_and_a_reward_model_need_no_run(
    overrides: list[str], run_dir: str | None, output_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: comparing foreign traces with the baselines of an unrelated run."""
    monkeypatch.chdir(tmp_path)
    Path("runs/q/checkpoint-20/reward_model").mkdir(parents=True)
    config = compose_any("config_irl_eval", *overrides)
    assert (config.run_dir, config.output_dir) == (run_dir, output_dir)


def test_dataset_config_is_read_from_the_run(tmp_path: Path) -> None:
    config = compose_any("config_irl_train", "dataset.max_value=30")
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    assert load_dataset_config(tmp_path) == config.dataset
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserError, match="has no `dataset`"):
        load_dataset_config(tmp_path)
    (tmp_path / "config.yaml").write_text("dataset: {name: arithmetic, max_value: many}\n")
    with pytest.raises(UserError, match=r"`dataset` cannot be read: .*'many'"):
        load_dataset_config(tmp_path)


@pytest.mark.parametrize("added", ["+foo=1", "+model.clasifier_loss=wgan", "+model.embedded.x=2", "+new.group.key=1"])
def test_keys_that_are_added_but_unknown_are_refused(added: str) -> None:
    """Trap: Hydra takes a mistyped key with + in front of it, and nothing reads it."""
    key = added[1:].partition("=")[0]
    named = "new" if key == "new.group.key" else key  # a group is named, not what is in it
    with pytest.raises(ConfigError, match=re.escape(f"there is no key {named}")):
        compose_any("config_irl_train", added)


def test_mistyped_added_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"did you mean model\.classifier_loss\?"):
        compose_any("config_irl_train", "+model.clasifier_loss=wgan")


def test_a_run_is_sampled_with_the_lengths_that_it_was_trained_with(tmp_path: Path) -> None:
    """Trap: a run trained on long traces, sampled with the short ones of the embedded default, is always wrong."""
    record_run(compose_tiny(["training.max_completion_length=77", "training.max_prompt_length=55"]), tmp_path)
    for name in ("config_eval", "base/eval"):
        sampling = compose_config(name, EvalConfig, f"run_dir={tmp_path}").sampling
        assert (sampling.max_prompt_length, sampling.max_completion_length) == (55, 77)
    given = compose_config("config_eval", EvalConfig, f"run_dir={tmp_path}", "sampling.max_completion_length=5")
    assert given.sampling.max_completion_length == 5


def test_run_can_be_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_run").mkdir()
    monkeypatch.chdir(tmp_path / "my_run")
    assert compose_any("base/eval", "run_dir=.").wandb.run_name == "my_run"
