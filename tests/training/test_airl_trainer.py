"""AIRL end to end on a tiny model: what each step may and may not change."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer
from trl import GRPOTrainer

from reasoning_irl.data.loading import load_train
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenBatch, TokenSequence, collate, encode_completion, encode_prompt
from reasoning_irl.models.reward_model import load_reward_model
from reasoning_irl.text.token_spans import decode, spans_of, token_pieces
from reasoning_irl.training import airl_trainer, jobs
from reasoning_irl.training.airl_trainer import AIRLTrainer, rows_with_experts
from reasoning_irl.training.discriminator import Discriminator, LabelledBatch, Origin, label_batch
from reasoning_irl.training.reward_checkpoint import load_training_state
from reasoning_irl.utils.errors import DataError, UserError
from tests.helpers.airl_runs import Run, logged, policy_weights, reward_weights, rows_of, same
from tests.helpers.configs import compose_tiny
from tests.helpers.models import save_tiny_model
from tests.helpers.tokenizers import byte_level
from tests.helpers.traces import read_rows, write_rows


def captured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Collects the inputs of the policy loss."""
    seen: list[dict[str, torch.Tensor]] = []
    original = AIRLTrainer._compute_loss

    def spy(self: AIRLTrainer, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        seen.append(inputs)
        return original(self, model, inputs)

    monkeypatch.setattr(AIRLTrainer, "_compute_loss", spy)
    return seen


def test_run_trains_both_models_and_logs_the_discriminator(run: Run) -> None:
    checkpoint = run("a")
    start = policy_weights(checkpoint.parent / "embedded")
    assert not same(start, policy_weights(checkpoint))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    learnt = load_reward_model(checkpoint / "reward_model", tokenizer).state_dict()
    initial = load_reward_model(checkpoint.parent / "reward_model_initial", tokenizer).state_dict()
    assert not same(learnt, initial)
    for name in ("expert", "policy", "perturbed"):
        assert logged(checkpoint, f"discriminator/accuracy_{name}")
    for name in ("discriminator/heldout_auroc", "policy/reward_length_correlation", "monitor/accuracy"):
        assert len(logged(checkpoint, name)) == 2


def test_training_never_reads_the_answer_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = policy_weights(run("with_answers"))
    original = Record.as_row
    monkeypatch.setattr(Record, "as_row", lambda self: original(self) | {"answer": "17"})
    assert same(first, policy_weights(run("other_answers")))


def test_equal_seeds_give_equal_runs(run: Run) -> None:
    assert same(policy_weights(run("a")), policy_weights(run("b")))


def test_without_reward_updates_the_discriminator_does_not_change(run: Run) -> None:
    checkpoint = run("frozen", "model.reward_updates_per_policy_step=0", "model.reward_warmup_steps=0")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    learnt = load_reward_model(checkpoint / "reward_model", tokenizer).state_dict()
    assert same(learnt, load_reward_model(checkpoint.parent / "reward_model_initial", tokenizer).state_dict())
    assert not same(policy_weights(checkpoint.parent / "embedded"), policy_weights(checkpoint))


@pytest.mark.parametrize("n", [1, 3])
def test_every_reward_update_is_an_optimiser_step(run: Run, n: int) -> None:
    checkpoint = run("n", f"model.reward_updates_per_policy_step={n}")
    state = torch.load(checkpoint / "discriminator_state.pt", weights_only=False)
    steps = {int(s["step"]) for s in state["discriminator"]["optimizer"]["state"].values()}
    assert steps == {2 + 2 * n}  # two are the warm-up


def test_guard_at_chance_changes_no_policy_weight(run: Run) -> None:
    # Momentum and weight decay change weights even if the gradient is zero.
    guard = ["guard.enabled=true", "guard.min_auroc=1.0", "training.weight_decay=0.5"]
    checkpoint = run("guarded", *guard)
    assert same(policy_weights(checkpoint.parent / "embedded"), policy_weights(checkpoint))
    assert logged(checkpoint, "policy/skipped") == [1.0, 1.0]


def test_skipped_step_makes_no_pass_of_the_policy_loss(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    read = airl_trainer.token_logps
    monkeypatch.setattr(airl_trainer, "token_logps", lambda *given: calls.append(1) or read(*given))
    run("skipped", "guard.enabled=true", "guard.min_auroc=1.0", "training.beta=0")
    assert calls == []


def test_library_makes_no_pass_of_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's old and reference log-probabilities lack the experts' rows and would be thrown away."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", fail)
    run("passes", "training.beta=0.1", "training.num_iterations=2", "training.save_steps=2")


def test_weights_of_samples_stay_in_their_rows_among_experts() -> None:
    ratio = torch.tensor([[0.5, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    found = rows_with_experts(ratio, torch.Size((6, 3)), n_generations=2)
    expected = [[0.5, 2, 1], [3, 4, 1], [1, 1, 1], [5, 6, 1], [7, 8, 1], [1, 1, 1]]
    assert found.tolist() == expected
    assert rows_with_experts(ratio, torch.Size((4, 2)), n_generations=2).tolist() == ratio.tolist()
    of_traces = rows_with_experts(ratio[:, :1], torch.Size((6, 2)), n_generations=2)
    assert of_traces.tolist() == [[0.5, 0.5], [3, 3], [1, 1], [5, 5], [7, 7], [1, 1]]


def labelled_batches(monkeypatch: pytest.MonkeyPatch) -> list[LabelledBatch]:
    """Collects the batches of the discriminator's updates."""
    seen: list[LabelledBatch] = []
    original = Discriminator.update

    def spy(self: Discriminator, batch: LabelledBatch) -> dict[str, float]:
        seen.append(batch)
        return original(self, batch)

    monkeypatch.setattr(Discriminator, "update", spy)
    return seen


def test_samples_meet_the_experts_of_their_own_prompts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: experts drawn independently of the rollouts, so that a pairwise loss compares different questions."""
    seen = labelled_batches(monkeypatch)
    run("a", "model.reward_warmup_steps=0", "model.replay_fraction=0", "model.reward_policy_batch_size=8")
    assert len(seen) == 4  # two steps of two updates
    for batch in seen:
        of_experts = batch.group[batch.is_expert].tolist()
        assert len(of_experts) == 4  # two of them further ones
        assert set(batch.group[batch.origin == Origin.policy].tolist()) <= set(of_experts)


def test_guard_measures_on_its_own_number_of_held_out_experts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: as many held-out experts as experts per update, which are 2 at the published batch size."""
    seen: list[int] = []
    original = AIRLTrainer._label

    def spy(self: AIRLTrainer, expert: list[TokenSequence], *rest: list[TokenSequence]) -> LabelledBatch:
        seen.append(len(expert))
        return original(self, expert, *rest)

    monkeypatch.setattr(AIRLTrainer, "_label", spy)
    run("a", "model.reward_batch_size=2", "model.reward_warmup_steps=0", "guard.n_experts=4")
    assert seen == [4, 2, 2] * 2  # per step: held out, then two updates


def test_warm_up_without_anything_to_perturb_is_an_error(run: Run) -> None:
    """Trap: an update without negatives, whose loss is NaN or which learns that everything is an expert."""
    with pytest.raises(DataError, match=r"none of \d+ experts offers a place to perturb.*neg_perturb_fns"):
        run("a", "model.neg_perturb_fns=[other_option]")


def test_rewards_stay_at_their_tokens_if_prompts_differ_in_length(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Packing rows or padding on another side would shift advantages to other tokens.
    seen = captured(monkeypatch)
    checkpoint = run(
        "aligned",
        "model.reward_updates_per_policy_step=0",
        "model.reward_warmup_steps=0",
        "training.max_steps=1",
        "training.save_steps=1",
        "model.dense_gamma=0",
        "model.advantage_baseline=group",
    )
    (inputs,) = seen
    assert inputs["prompt_mask"].sum(1).unique().numel() > 1
    assert inputs["advantages"].shape == inputs["completion_ids"].shape
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = load_reward_model(checkpoint / "reward_model", tokenizer)
    for row in range(len(inputs["advantages"])):
        prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()][None]
        mask = inputs["completion_mask"][row].bool()
        completion = inputs["completion_ids"][row][mask][None]
        alone = TokenBatch(prompt, torch.ones_like(prompt), completion, torch.ones_like(completion))
        with torch.no_grad():
            rewards = model.rewards(alone)[0]
        advantages = inputs["advantages"][row][mask]
        # With gamma 0, an advantage is the reward shifted and scaled by the group, so the two correlate perfectly.
        assert torch.corrcoef(torch.stack([rewards, advantages]))[0, 1] > 0.999
        assert (inputs["advantages"][row][~mask] == 0).all()


def test_policy_gradient_is_the_sum_over_single_sequences_if_prompts_differ_in_length(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: a loss that packs rows to the left shifts (B, T) advantages if prompts differ in length."""
    lengths: list[set[int]] = []
    original = AIRLTrainer._compute_loss

    def check(self: AIRLTrainer, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = original(self, model, inputs)
        parameters = [p for p in model.parameters() if p.requires_grad]
        tokens = TokenBatch(
            *(inputs[f"{part}_{kind}"] for part in ("prompt", "completion") for kind in ("ids", "mask"))
        )
        plain = torch.tensor(0.0)
        for sequence, advantages in zip(tokens.sequences(), inputs["advantages"], strict=True):
            prompt, completion = sequence.prompt_ids, sequence.completion_ids
            logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
            logps = (logits / 0.7).log_softmax(-1)[range(len(completion)), completion]
            plain = plain - (advantages[: len(completion)] * logps).sum()
        expected = torch.autograd.grad(plain / inputs["completion_mask"].sum(), parameters)
        found = torch.autograd.grad(loss, parameters, retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
        assert max(float(gradient.abs().max()) for gradient in expected) > 1e-4
        lengths.append({len(sequence.prompt_ids) for sequence in tokens.sequences()})
        return loss

    monkeypatch.setattr(AIRLTrainer, "_compute_loss", check)
    run("loss", "training.max_steps=1", "training.save_steps=1", "training.beta=0", "training.temperature=0.7")
    assert [len(different) > 1 for different in lengths] == [True]


def test_expert_is_added_to_the_group_of_its_own_prompt(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = captured(monkeypatch)
    checkpoint = run(
        "experts",
        "training.max_completion_length=48",
        "model.add_expert_to_policy_optim=true",
        "training.max_steps=1",
        "training.save_steps=1",
    )
    (inputs,) = seen
    assert len(inputs["advantages"]) == 2 * (4 + 1)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    prompts = tokenizer.batch_decode(inputs["prompt_ids"], skip_special_tokens=True)
    texts = tokenizer.batch_decode(inputs["completion_ids"], skip_special_tokens=True)
    for prompt in set(prompts):
        group = [text for p, text in zip(prompts, texts, strict=True) if p == prompt]
        assert len(group) == 5
        assert any(text.endswith("</answer>") for text in group)  # an untrained policy writes none
    assert int(inputs["num_items_in_batch"]) == int(inputs["completion_mask"].sum())


@pytest.fixture
def other_family(tmp_path: Path) -> Path:
    """A tiny Llama with another tokenizer than the embedded one: bytes and a few merges."""
    return save_tiny_model(tmp_path / "other", byte_level(300), tie_word_embeddings=True, initializer_range=0.02)


def test_reward_model_of_another_family_rewards_the_characters_of_the_policy(
    run: Run, other_family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap: rewards used by token position although the two models split text differently."""
    seen = captured(monkeypatch)
    checkpoint = run(
        "two_families",
        f"model.reward_name={other_family}",
        "model.reward_updates_per_policy_step=0",
        "model.reward_warmup_steps=0",
        "model.dense_gamma=0",
        "model.advantage_baseline=group",
        "model.normalize_advantages=false",
        "training.max_steps=1",
        "training.save_steps=1",
    )
    policy, reward = (AutoTokenizer.from_pretrained(f) for f in (checkpoint, checkpoint / "reward_model"))
    assert reward.get_vocab() == AutoTokenizer.from_pretrained(other_family).get_vocab() != policy.get_vocab()
    model = load_reward_model(checkpoint / "reward_model", reward)
    (inputs,) = seen
    records = {encode_prompt(policy, r.prompt): r for r in load_train(compose_tiny().dataset).train}
    rollouts = TokenBatch(*(inputs[f"{part}_{kind}"] for part in ("prompt", "completion") for kind in ("ids", "mask")))
    for advantages, sequence in zip(inputs["advantages"], rollouts.sequences(), strict=True):
        text = policy.decode(sequence.completion_ids, skip_special_tokens=True)
        encoded = reward(text, add_special_tokens=False, return_offsets_mapping=True)
        prompt = encode_prompt(reward, records[sequence.prompt_ids].prompt)
        with torch.no_grad():
            scores = model.rewards(collate([TokenSequence(prompt, tuple(encoded["input_ids"]))], 0))[0].tolist()
        characters = [
            [score for score, (a, b) in zip(scores, encoded["offset_mapping"], strict=True) if a <= c < b]
            for c in range(len(text))
        ]
        means = [sum(covering) / len(covering) for covering in characters]
        spans = spans_of(token_pieces(policy, sequence.completion_ids))
        expected = {at: sum(means[a:b]) / (b - a) for at, (a, b) in enumerate(spans) if b > a}
        first = min(expected)  # advantages are rewards minus the group's mean, which cancels in differences
        for at, value in expected.items():
            assert advantages[at] - advantages[first] == pytest.approx(value - expected[first], abs=1e-4)


def test_experts_are_cut_where_the_policy_is_cut(run: Run, other_family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: experts cut after equally many tokens of another tokenizer can be recognised by their cut."""
    seen: list[tuple[list[TokenSequence], ...]] = []

    def spy(expert: list[TokenSequence], policy: list[TokenSequence], perturbed: list[TokenSequence], *rest: object):
        seen.append((expert, policy, perturbed))
        return label_batch(expert, policy, perturbed, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(airl_trainer, "label_batch", spy)
    cut = ["training.max_completion_length=16", "model.reward_updates_per_policy_step=1"]
    checkpoint = run("cut", f"model.reward_name={other_family}", *cut)
    policy, reward = (AutoTokenizer.from_pretrained(f) for f in (checkpoint, checkpoint / "reward_model"))
    records = load_train(compose_tiny().dataset)
    targets = [encode_completion(policy, r.target, 16)[0] for r in [*records.train, *records.heldout]]
    expected = {reward.decode(reward(decode(policy, ids))["input_ids"]) for ids in targets}
    assert len(seen) == 2 + 2 * (1 + 1)  # 2 warm-up updates; per step, the held-out traces and one update
    for experts, samples, perturbed in seen:
        assert {decode(reward, sequence.completion_ids) for sequence in experts} <= expected
        for sequence in [*experts, *samples, *perturbed]:
            assert max(sequence.prompt_ids + sequence.completion_ids) < len(reward)
            n_policy = len(policy(decode(reward, sequence.completion_ids))["input_ids"])
            assert (sequence.completion_ids[-1] == reward.eos_token_id) == (n_policy < 16) or sequence in samples
    replayed = torch.load(checkpoint / "discriminator_state.pt", weights_only=False)["replay"]["samples"]
    assert set(replayed) == {sequence for _, samples, _ in seen for sequence in samples}


def test_airl_form_needs_a_shared_tokenizer(run: Run, other_family: Path) -> None:
    with pytest.raises(UserError, match="reward_form=airl"):
        run("form", f"model.reward_name={other_family}", "model.reward_form=airl", "model.reward_warmup_steps=0")


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.reward_form=airl"],
        ["model.discriminator_logit=additive"],
        ["model.reward_form=airl", "model.discriminator_logit=additive", "model.reward_granularity=step"],
        ["model.discriminator_logit=additive", "model.classifier_loss=wgan", "model.reward_lm_coef=0"],
        ["model.discriminator_logit=additive", "model.classifier_loss=pairwise", "model.reward_granularity=sparse"],
        [
            "model.classifier_loss=wgan",
            "model.gradient_penalty=10",
            "model.reward_head=plain",
            "model.reward_lm_coef=0",
        ],
        ["model.classifier_loss=pairwise"],
        ["model.reward_granularity=step"],
        ["model.dense_rewards=false", "model.advantage_calculation=trace_mean"],
        ["model.reward_granularity=interval", "model.advantage_calculation=prime"],
        ["training.num_iterations=2", "training.beta=0.1", "model.add_expert_to_policy_optim=true"],
        ["training.gradient_accumulation_steps=2", "training.per_device_train_batch_size=4"],
        ["model.num_neg_perturbations_per_expert=0", "model.reward_warmup_steps=0"],
        ["model.policy_lora.rank=4", "model.reward_lora.rank=2", "training.beta=0.1"],
        ["model.dtype=bfloat16", "training.gradient_checkpointing=true", "model.reward_lora.rank=2"],
    ],
    ids=lambda overrides: " ".join(overrides[:2]),
)
def test_every_variant_trains(run: Run, overrides: list[str]) -> None:
    checkpoint = run("variant", *overrides)
    assert all(torch.tensor(logged(checkpoint, "discriminator/loss")).isfinite())
    assert (checkpoint / "reward_model" / "reward_spec.json").is_file()


def test_gradient_accumulation_does_not_change_the_step(run: Run) -> None:
    whole = policy_weights(run("whole", "training.max_steps=1", "training.save_steps=1"))
    halves = run(
        "halves",
        "training.max_steps=1",
        "training.save_steps=1",
        "training.gradient_accumulation_steps=2",
        "training.per_device_train_batch_size=4",
    )
    for name, value in policy_weights(halves).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.policy_lora.rank=4", "model.reward_lora.rank=2", "training.beta=0.1", "training.learning_rate=0.01"],
        ["training.num_iterations=2", "training.gradient_accumulation_steps=2"],
        ["dataset.n_train=4"],  # two steps per epoch
    ],
    ids=["weights", "adapters", "iterations", "epochs"],
)
def test_resumed_run_equals_an_uninterrupted_one(run: Run, overrides: list[str]) -> None:
    """Both models, their optimisers, the expert stream, the replay buffer and all random states are restored.

    Traps: the library takes the reward model's adapter for the policy's, and repeats the first epoch's order.
    """
    steps = ["training.max_steps=4", "training.save_steps=2", "training.completions_steps=1", *overrides]
    straight = run("straight", *steps)
    expected, reward = policy_weights(straight), reward_weights(straight)
    end, rows = torch.load(straight / "discriminator_state.pt", weights_only=False), rows_of(straight.parent)
    (straight / "optimizer.pt").write_bytes(b"torn")  # as after a full disk: the older one is taken
    resumed = run("straight", *steps, "training.resume=true")
    again = torch.load(resumed / "discriminator_state.pt", weights_only=False)
    assert resumed.name == "checkpoint-4"
    assert again["experts"] == end["experts"]
    assert again["replay"] == end["replay"]
    assert same(expected, policy_weights(resumed))
    assert same(reward, reward_weights(resumed))
    assert rows_of(resumed.parent) == rows


def test_seconds_add_up_over_restarts(run: Run) -> None:
    checkpoint = run("long", "training.max_steps=1", "training.save_steps=1")
    log = checkpoint.parent / "train_log.jsonl"
    rows = read_rows(log)
    write_rows(log, [*rows[:-1], rows[-1] | {"seconds": 1000.0}])
    run("long", "training.max_steps=2", "training.save_steps=1", "training.resume=true")
    assert read_rows(log)[-1]["seconds"] > 1000
    assert json.loads((log.parent / "seconds.json").read_text())["airl"] > 1000


def test_run_that_was_killed_before_its_first_checkpoint_starts_again(run: Run) -> None:
    straight = run("straight", "training.max_steps=2")
    expected, rows = policy_weights(straight), rows_of(straight.parent)
    shutil.rmtree(straight)
    part = straight.parent / ".unfinished" / straight.name  # killed while it saved
    part.mkdir(parents=True)
    again = run("straight", "training.max_steps=2", "training.resume=true")
    assert same(expected, policy_weights(again))
    assert rows_of(again.parent) == rows
    assert not part.exists()


def test_run_that_was_killed_after_its_warm_start_ends_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap: new weights drawn from a stream that the warm start has moved on, which a resumed run skips."""
    words = ["warm_start.enabled=true", "warm_start.n_traces=16", "warm_start.epochs=1", "model.reward_head=plain"]
    words += ["model.reward_lm_coef=0", "model.policy_lora.rank=2"]
    straight = run("straight", *words)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_reward_model", killed)
        with pytest.raises(KeyboardInterrupt):
            run("again", *words)
    again = run("again", *words, "training.resume=true")
    assert same(policy_weights(straight), policy_weights(again))
    assert same(reward_weights(straight), reward_weights(again))


def test_state_with_code_in_it_is_not_run(run: Run) -> None:
    """Trap: a pickle from somebody else's run folder runs whatever it contains."""
    checkpoint = run("planted", "training.max_steps=1", "training.save_steps=1")
    state = torch.load(checkpoint / "discriminator_state.pt", weights_only=False)
    torch.save(state | {"replay": Planted(checkpoint / "ran")}, checkpoint / "discriminator_state.pt")
    with pytest.raises(UserError, match=r"discriminator_state\.pt cannot be read \(UnpicklingError\)"):
        load_training_state(checkpoint)
    assert not (checkpoint / "ran").exists()


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


def test_finished_run_is_not_trained_further_when_it_is_resumed(run: Run) -> None:
    """Trap: the library makes one step more if it was killed between its last checkpoint and its end."""
    checkpoint = run("done")
    before = (checkpoint / "checkpoint.json").read_bytes()
    assert run("done", "training.resume=true") == checkpoint
    assert (checkpoint / "checkpoint.json").read_bytes() == before
    assert [path.name for path in checkpoint.parent.glob("checkpoint-*")] == ["checkpoint-2"]


def test_time_limit_ends_with_a_checkpoint(run: Run) -> None:
    checkpoint = run("short", "training.max_seconds=0.001", "training.max_steps=4", "training.save_steps=4")
    assert checkpoint.name == "checkpoint-1"
    assert (checkpoint / "reward_model" / "reward_spec.json").is_file()


def test_folder_of_another_run_is_refused_and_not_changed(run: Run) -> None:
    checkpoint = run("a")
    before = (checkpoint.parent / "config.yaml").read_text()
    with pytest.raises(UserError, match=r"already contains a run.*training\.output_dir"):
        run("a", "seed=5")
    assert (checkpoint.parent / "config.yaml").read_text() == before
