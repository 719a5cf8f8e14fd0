"""A reward learnt from files: what it is compared with, that it learns, resumes exactly and starts an AIRL run."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reasoning_irl.config.schema import IRLEvalConfig, OfflineTrainConfig
from reasoning_irl.data.perturbations import sample_perturbations
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence
from reasoning_irl.eval.scoring.inputs import find_inputs
from reasoning_irl.export import export
from reasoning_irl.models.reward_model import RewardModel
from reasoning_irl.training.experts import SamplePool
from reasoning_irl.training.jobs import train_airl, train_offline
from reasoning_irl.training.offline import N_HELDOUT_SAMPLES, split_samples
from reasoning_irl.utils.errors import DataError, UserError
from tests.helpers.configs import compose_config, compose_tiny
from tests.helpers.traces import read_rows, write_rows

SMALL = [
    "dataset.name=arithmetic",
    "dataset.system_prompt=''",
    "dataset.n_train=40",
    "dataset.n_heldout=4",
    "model.reward_lora.rank=0",
    "model.reward_head=likelihood",
    "model.reward_lr_scheduler_type=constant",
    "model.reward_learning_rate=1e-3",
    "model.classifier_loss=bce",
    "model.discriminator_logit=token",
    "model.reward_granularity=dense",
    "model.reward_batch_size=8",
    "model.reward_policy_batch_size=8",
    "model.neg_perturb_fns=[operator_flip,nearby_answer]",
    "model.num_neg_perturbations_per_expert=1",
    "training.max_prompt_length=96",
    "training.max_completion_length=48",
    "training.eval_steps=2",
    "training.save_steps=2",
]
FROZEN = ["model.reward_frozen_layers=1"]
HEAD_ONLY = ["model.reward_layers=1", "model.reward_head=plain", *FROZEN]
Run = Callable[..., Path]


def prompts(*names: int) -> list[TokenSequence]:
    """Samples whose prompt is the given number; each is different."""
    return [TokenSequence((name,), (index,)) for index, name in enumerate(names)]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> Path:
    """Wrong solutions of every problem, and of problems that no expert has."""
    rng = random.Random(0)
    rows = []
    for record in records:
        for perturbation in sample_perturbations(record.target, record.question, ["operator_flip"], 2, rng):  # type: ignore[list-item]
            rows.append({"question": record.question, "completion": perturbation.text, "correct": True})
    return write_rows(tmp_path_factory.mktemp("samples") / "samples.jsonl", rows)


@pytest.fixture
def run(tmp_path: Path, embedded_folder: Path, samples: Path) -> Run:
    def train(name: str, *overrides: str) -> Path:
        paths = [f"dataset.samples_path={samples}", f"training.output_dir={tmp_path / name}"]
        start = [] if any(o.startswith("model.reward_name=") for o in overrides) else [str(embedded_folder)]
        named = [f"model.reward_name={folder}" for folder in start]
        config = compose_config("offline_irl_train", OfflineTrainConfig, *SMALL, *paths, *named, *overrides)
        return train_offline(config)

    return train


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return RewardModel.from_run(checkpoint).state_dict()


def test_draws_samples_of_the_experts_problems_only() -> None:
    """Trap: filled up with samples of other prompts, each of which pairs compare with every expert."""
    pool = SamplePool(prompts(1, 1, 2, 3, 3, 3), seed=0)
    assert {s.prompt_ids for s in pool.draw(2, [(3,)])} == {(3,)}
    drawn = pool.draw(5, [(2,), (3,), (7,)])
    assert sorted(s.prompt_ids for s in drawn) == [(2,), (3,), (3,), (3,)]
    assert len(set(drawn)) == 4


def test_draws_every_other_sample_in_turn_if_the_experts_problems_have_none() -> None:
    pool = SamplePool(prompts(*range(10)), seed=0)
    drawn = [sample for _ in range(5) for sample in pool.draw(2, [(99,)])]
    assert len(set(drawn)) == 10
    assert len(pool.draw(99, [])) == 10


def test_sample_pool_resumes_at_the_same_place() -> None:
    pool, resumed = SamplePool(prompts(*range(10)), seed=0), SamplePool(prompts(*range(10)), seed=7)
    pool.draw(3, [(99,)])
    resumed.load_state_dict(pool.state_dict())
    assert [pool.draw(4, [(99,)]) for _ in range(5)] == [resumed.draw(4, [(99,)]) for _ in range(5)]


def test_no_sample_of_a_held_out_problem_is_learnt_from() -> None:
    split = split_samples(prompts(1, 2, 1, 3, *[2] * 9), {(2,), (8,)}, seed=0)
    assert [s.prompt_ids for s in split.train] == [(1,), (1,), (3,)]
    assert [s.prompt_ids for s in split.heldout] == [(2,)] * N_HELDOUT_SAMPLES


def test_other_problems_are_held_out_if_samples_have_other_problems_than_experts() -> None:
    everything = prompts(*range(30), *range(30))
    split = split_samples(everything, {(100,), (101,)}, seed=0)
    held = {s.prompt_ids for s in split.heldout}
    assert len(held) == 2
    assert not held & {s.prompt_ids for s in split.train}
    assert len(split.train) + len(split.heldout) == 60


def test_samples_of_held_out_problems_only_are_refused() -> None:
    with pytest.raises(DataError, match=r"dataset\.n_heldout"):
        split_samples(prompts(1, 1), {(1,)}, seed=0)


@pytest.mark.parametrize("loss", ["bce", "pairwise", "wgan"])
@pytest.mark.parametrize("logit", ["token", "additive"])
def test_learns_to_tell_experts_from_samples(run: Run, samples: Path, loss: str, logit: str) -> None:
    questions = dict.fromkeys(row["question"] for row in read_rows(samples))
    wrong = [{"question": question, "completion": "<think>\n1 + 1 = 2\n</think>"} for question in questions]
    easy = write_rows(samples.with_name("easy.jsonl"), wrong)
    of_test = ["training.max_steps=20", "training.eval_steps=20", "model.reward_learning_rate=1e-2"]
    choice = [f"model.classifier_loss={loss}", f"model.discriminator_logit={logit}"]
    checkpoint = run("run", *of_test, *choice, f"dataset.samples_path={easy}")
    last = read_rows(checkpoint.parent / "train_log.jsonl")[-1]
    assert last["step"] == 20
    assert last["discriminator/heldout_auroc"] > 0.9


@pytest.mark.parametrize("more", [[], ["model.classifier_loss=wgan"], ["model.reward_lora.rank=2"], FROZEN, HEAD_ONLY])
def test_resumed_run_equals_an_uninterrupted_one(run: Run, more: list[str]) -> None:
    more = [*more, "model.reward_lr_scheduler_type=linear"]
    straight = run("straight", *more, "training.max_steps=4")
    expected, log = weights(straight), read_rows(straight.parent / "train_log.jsonl")
    shutil.rmtree(straight)
    lines = [row for row in log if row["step"] <= 2]
    (straight.parent / "train_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    resumed = run("straight", *more, "training.max_steps=4", "training.resume=true")
    found = weights(resumed)
    assert resumed.name == "checkpoint-4"
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    again = read_rows(resumed.parent / "train_log.jsonl")
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in log]


def test_frozen_layers_stay_as_they_were(run: Run) -> None:
    checkpoint = run("run", "training.max_steps=3", *FROZEN)
    start, end = RewardModel.from_run(checkpoint.parent / "reward_model_initial").state_dict(), weights(checkpoint)
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert any("layers.1." in name for name in changed)
    assert not any("layers.0." in name or "embed" in name for name in changed)


def test_labels_are_not_read(run: Run, samples: Path) -> None:
    with_labels = weights(run("labelled", "training.max_steps=2"))
    rows = [{"question": row["question"], "completion": row["completion"]} for row in read_rows(samples)]
    bare = write_rows(samples.with_name("bare.jsonl"), rows)
    without = weights(run("bare", "training.max_steps=2", f"dataset.samples_path={bare}"))
    assert all(torch.equal(with_labels[name], without[name]) for name in with_labels)


def test_time_limit_saves_what_was_learnt(run: Run) -> None:
    checkpoint = run("run", "training.max_steps=1000", "training.max_seconds=1e-3")
    assert checkpoint.name == "checkpoint-1"
    assert weights(checkpoint)


def test_evaluation_of_the_run_finds_the_reward_but_no_policy(run: Run, tmp_path: Path) -> None:
    checkpoint = run("run", "training.max_steps=1")
    traces = write_rows(tmp_path / "traces.jsonl", [])
    config = compose_config("config_irl_eval", IRLEvalConfig, f"run_dir={tmp_path / 'run'}", f"eval.traces={traces}")
    inputs = find_inputs(config)
    assert inputs.policy is None
    assert inputs.frozen == tmp_path / "run/reward_model_initial"
    assert checkpoint.is_dir()


def test_goes_on_from_a_trained_reward_model(run: Run) -> None:
    first = run("first", "training.max_steps=2")
    second = run("second", "training.max_steps=1", f"model.reward_name={first.parent}")
    start = RewardModel.from_run(second.parent / "reward_model_initial").state_dict()
    expected = weights(first)
    assert all(torch.equal(expected[name], start[name]) for name in expected)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.discriminator_logit=additive", "model.discriminator_logit=token"),
        ("model.reward_granularity=step", "model.reward_granularity=dense"),
        ("model.reward_lora.rank=4", "model.reward_lora.rank=0"),
        ("model.reward_layers=1", "model.reward_layers=null"),
    ],
)
def test_trained_reward_model_is_not_read_in_another_way(run: Run, override: str, key: str) -> None:
    head = ["model.reward_head=plain"] if "layers" in override else []
    first = run("first", "training.max_steps=1", *head)
    with pytest.raises(UserError, match=key):
        run("second", "training.max_steps=1", f"model.reward_name={first.parent}", override, *head)
    assert not (first.parent.parent / "second").exists()  # the mended command finds no run there


def test_run_that_could_not_start_leaves_nothing(run: Run, tmp_path: Path) -> None:
    """Trap: a run that is recorded before its samples are read, so that the mended command refuses to run."""
    broken = write_rows(tmp_path / "broken.jsonl", [{"question": "3 + 4"}])
    with pytest.raises(DataError, match=r"broken\.jsonl:1"):
        run("run", "training.max_steps=1", f"dataset.samples_path={broken}")
    assert run("run", "training.max_steps=1").name == "checkpoint-1"


def test_starts_from_the_newest_checkpoint_of_a_run_without_a_reward_model(run: Run, tmp_path: Path) -> None:
    first = run("first", "training.max_steps=1")
    sft = tmp_path / "sft"
    shutil.copytree(first / "reward_model", sft / "checkpoint-3")
    (sft / "checkpoint-3" / "reward_spec.json").unlink()
    (sft / "config.yaml").touch()
    assert run("second", "training.max_steps=1", f"model.reward_name={sft}").name == "checkpoint-1"


def test_samples_in_another_format_are_warned_of(run: Run, samples: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = [{"question": row["question"], "completion": "1 + 1 = 2"} for row in read_rows(samples)]
    run("run", "training.max_steps=1", f"dataset.samples_path={write_rows(samples.with_name('bare.jsonl'), bare)}")
    assert "are not written as" in caplog.text


def test_airl_starts_from_an_offline_reward(run: Run, tmp_path: Path, embedded_folder: Path) -> None:
    offline = run("offline", "training.max_steps=3")
    config = compose_tiny(
        [
            f"model.policy_name={embedded_folder}",
            f"model.reward_name={offline.parent}",
            "warm_start.enabled=false",
            "model.reward_warmup_steps=0",
            "training.max_steps=1",
            "training.save_steps=1",
            "training.per_device_train_batch_size=4",
            "training.num_generations=4",
            f"training.output_dir={tmp_path / 'airl'}",
        ]
    )
    train_airl(config)
    start, expected = RewardModel.from_run(tmp_path / "airl/reward_model_initial").state_dict(), weights(offline)
    assert all(torch.equal(expected[name], start[name]) for name in expected)


def test_model_card_says_what_the_reward_was_learnt_from(run: Run, tmp_path: Path) -> None:
    checkpoint = run("run", "training.max_steps=1", "model.discriminator_logit=additive")
    export(checkpoint.parent, tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "| supervision | demonstrations and unlabelled samples |" in card
    assert "| read at | all tokens, likelihood head |" in card


def test_airl_without_a_reward_name_starts_a_new_reward_model(run: Run, tmp_path: Path, embedded_folder: Path) -> None:
    """Trap: a policy's checkpoint lies next to a reward model, which a new run must not go on from unasked."""
    offline = run("offline", "training.max_steps=3")
    run_dir = tmp_path / "earlier"
    shutil.copytree(embedded_folder, run_dir / "checkpoint-1")
    shutil.copytree(offline / "reward_model", run_dir / "checkpoint-1" / "reward_model")
    (run_dir / "config.yaml").touch()
    config = compose_tiny(
        [
            f"model.checkpoint={run_dir}",
            "warm_start.enabled=false",
            "model.reward_warmup_steps=0",
            "training.max_steps=1",
            "training.save_steps=1",
            "training.per_device_train_batch_size=4",
            "training.num_generations=4",
            f"training.output_dir={tmp_path / 'airl'}",
        ]
    )
    train_airl(config)
    start, old = RewardModel.from_run(tmp_path / "airl/reward_model_initial").state_dict(), weights(offline)
    assert any(not torch.equal(old[name], start[name]) for name in old)


def test_missing_samples_file_is_refused_before_anything_loads(run: Run) -> None:
    with pytest.raises(UserError, match=r"dataset.samples_path=no.jsonl does not exist"):
        run("run", "dataset.samples_path=no.jsonl")
