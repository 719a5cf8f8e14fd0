"""What the discriminator compares: experts with perturbed copies, and samples from a file or a replay buffer."""

import random
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from reasoning_irl.config.schema import PerturbationKind
from reasoning_irl.data.perturbations import sample_perturbations
from reasoning_irl.data.records import Record
from reasoning_irl.data.tokens import TokenSequence, encode_completion, encode_prompt
from reasoning_irl.utils.errors import DataError

MAX_DRAWS = 100  # of experts, to find one that can be perturbed


class ExpertPool:
    """Draws experts without replacement, epoch after epoch, with fresh perturbations each time.

    Only the first `n_drawn` records are drawn (None: all); the others are held out but can be encoded and perturbed.
    With `keeps_copies`, an expert's first perturbed copies are used ever after, for a model that keeps what it computes
    for a sequence. Seeded; with its `state_dict`, the same stream of draws continues after a restart.
    """

    def __init__(
        self,
        records: Sequence[Record],
        tokenizer: PreTrainedTokenizerBase,
        max_completion_length: int,
        kinds: Sequence[PerturbationKind],
        max_value: int | None,
        seed: int,
        n_drawn: int | None = None,
        keeps_copies: bool = False,
    ) -> None:
        n_drawn = len(records) if n_drawn is None else n_drawn
        if n_drawn < 1:
            raise DataError("there is no expert to learn from: the data set is empty")
        self._n_drawn = n_drawn
        self._records = list(records)
        self._tokenizer = tokenizer
        self._max_completion_length = max_completion_length
        self._kinds = list(kinds)
        self._max_value = max_value
        self._rng = random.Random(seed)
        self._order: list[int] = []
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._kept: dict[TokenSequence, list[TokenSequence]] | None = {} if keeps_copies else None

    def __getitem__(self, index: int) -> Record:
        return self._records[index]

    def draw(self, n: int) -> list[Record]:
        """The next n experts."""
        drawn = []
        for _ in range(n):
            if not self._order:
                self._order = list(range(self._n_drawn))
                self._rng.shuffle(self._order)
            drawn.append(self._records[self._order.pop()])
        return drawn

    def sequence(self, record: Record) -> TokenSequence:
        """The demonstration as tokens."""
        return self._encode(record, record.target)

    def perturbed(self, record: Record, n: int) -> list[TokenSequence]:
        """Up to n perturbed copies; fewer if the demonstration has too few places to perturb before it is truncated."""
        own = self.sequence(record)
        if self._kept is not None and own in self._kept:
            return self._kept[own]
        perturbations = sample_perturbations(
            record.target, record.question, self._kinds, n, self._rng, max_value=self._max_value
        )
        copies = dict.fromkeys(self._encode(record, perturbation.text) for perturbation in perturbations)
        copies.pop(own, None)  # the error is in the part that was truncated
        if self._kept is not None:
            self._kept[own] = list(copies)
        return list(copies)

    def with_copies(self, records: list[Record], n: int, *, required: bool) -> tuple[list[Record], list[TokenSequence]]:
        """The records and up to n perturbed copies of each.

        If copies are `required` and none of the records offers a place to perturb, as many others are drawn instead.
        Raises DataError if that never helps.
        """
        for _ in range(MAX_DRAWS):
            copies = [copy for record in records for copy in self.perturbed(record, n)] if n else []
            if copies or not required:
                return records, copies
            records = self.draw(len(records))
        raise DataError(
            f"none of {MAX_DRAWS * len(records)} experts offers a place to perturb, so there is nothing to tell "
            "experts from: choose other model.neg_perturb_fns, or set model.reward_warmup_steps=0"
        )

    def _encode(self, record: Record, trace: str) -> TokenSequence:
        ids, _ = encode_completion(self._tokenizer, trace, self._max_completion_length)
        if record.id not in self._prompts:
            self._prompts[record.id] = encode_prompt(self._tokenizer, record.prompt)
        return TokenSequence(self._prompts[record.id], ids)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self._rng.getstate(), "order": list(self._order), "kept": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rng.setstate(state["rng"])
        self._order = list(state["order"])
        self._kept = state.get("kept", self._kept)  # older checkpoints lack it


class SamplePool:
    """A fixed set of policy samples, drawn without replacement, epoch after epoch; seeded."""

    def __init__(self, samples: Sequence[TokenSequence], seed: int) -> None:
        self._samples = list(samples)
        self._rng = random.Random(seed)
        self._order: list[int] = []
        self._of_prompt: dict[tuple[int, ...], list[int]] = {}
        for index, sample in enumerate(self._samples):
            self._of_prompt.setdefault(sample.prompt_ids, []).append(index)

    def __len__(self) -> int:
        return len(self._samples)

    def draw(self, n: int, prompts: Sequence[tuple[int, ...]]) -> list[TokenSequence]:
        """Up to n samples of the given prompts or, if there are none, the next n of all.

        Nothing is filled up with samples of other prompts, which pairs would compare with experts of these.
        """
        own = [index for prompt in dict.fromkeys(prompts) for index in self._of_prompt.get(prompt, [])]
        chosen = self._rng.sample(own, min(n, len(own)))
        while not own and len(chosen) < min(n, len(self._samples)):
            if not self._order:
                self._order = list(range(len(self._samples)))
                self._rng.shuffle(self._order)
            chosen.append(self._order.pop())
        return [self._samples[index] for index in chosen]

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self._rng.getstate(), "order": list(self._order)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rng.setstate(state["rng"])
        self._order = list(state["order"])


class ReplayBuffer:
    """The latest `capacity` policy samples; drawing is seeded."""

    def __init__(self, capacity: int, seed: int) -> None:
        self._capacity = capacity
        self._rng = random.Random(seed)
        self._samples: list[TokenSequence] = []

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, samples: Sequence[TokenSequence]) -> None:
        self._samples = [*self._samples, *samples][max(0, len(self._samples) + len(samples) - self._capacity) :]

    def draw(self, n: int) -> list[TokenSequence]:
        """n different samples, or all if there are fewer."""
        return self._rng.sample(self._samples, min(n, len(self._samples)))

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self._rng.getstate(), "samples": list(self._samples)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rng.setstate(state["rng"])
        self._samples = list(state["samples"])
