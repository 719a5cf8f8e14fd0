"""Watches a run for collapse: running means of a few measures, their limits, and what is done beyond a limit."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from reasoning_irl.config.schema import GuardConfig, Reaction
from reasoning_irl.utils.log import logger

MOST_ROLLBACKS = 3  # in a run
AUROC, LENGTH_CORRELATION, ENTROPY, WELL_FORMED = "auroc", "length_correlation", "entropy", "well_formed"
NAMES = {
    AUROC: "held-out AUROC of the discriminator",
    LENGTH_CORRELATION: "correlation of reward and length",
    ENTROPY: "entropy of the policy",
    WELL_FORMED: "share of well-formed samples",
}


class RunningMean:
    """Exponential running mean; without a `start`, it is settled once its first value no longer dominates."""

    def __init__(self, smoothing: float, start: float | None = None) -> None:
        self._smoothing = smoothing
        self._has_start = start is not None
        self.value = start
        self.n = 0

    def update(self, value: float) -> None:
        self.n += 1
        self.value = value if self.value is None else self._smoothing * self.value + (1 - self._smoothing) * value

    @property
    def is_settled(self) -> bool:
        return self._has_start or self.n >= round(1 / (1 - self._smoothing))


class Limit(NamedTuple):
    key: str  # of the config, in `guard`
    measure: str
    value: float | None
    reaction: Reaction
    is_upper: bool
    of_magnitude: bool = False  # the sign of the measure does not matter


class CollapseGuard:
    """Compares running means with their limits, and says at each step how to react.

    A mean starts at its first value and counts once it has settled. If steps are skipped at chance, that of the AUROC
    starts there and counts at once, so that one lucky draw does not open the guard.
    """

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self.n_experts = config.n_experts
        c = config
        limits = (
            Limit("min_auroc", AUROC, c.min_auroc, c.on_min_auroc, is_upper=False),
            Limit("max_auroc", AUROC, c.max_auroc, c.on_max_auroc, is_upper=True),
            Limit(
                "max_length_correlation",
                LENGTH_CORRELATION,
                c.max_length_correlation,
                c.on_max_length_correlation,
                is_upper=True,
                of_magnitude=True,
            ),
            Limit("min_entropy", ENTROPY, c.min_entropy, c.on_min_entropy, is_upper=False),
            Limit("min_well_formed", WELL_FORMED, c.min_well_formed, c.on_min_well_formed, is_upper=False),
        )
        self._limits = [limit for limit in limits if limit.value is not None]
        start = 0.5 if c.on_min_auroc == Reaction.skip else None
        self._means = {name: RunningMean(c.smoothing, start if name == AUROC else None) for name in NAMES}
        self._known: set[str] = set()  # the alarms of the last step, each of which is told once
        self.n_rollbacks = 0

    def update(self, **measures: float | None) -> None:
        """Takes a step's measures by name; those that are None or not finite are left out."""
        for name, value in measures.items():
            if value is not None and math.isfinite(value):
                self._means[name].update(value)

    @property
    def means(self) -> dict[str, float]:
        """The running means that have a value."""
        return {name: mean.value for name, mean in self._means.items() if mean.value is not None}

    def alarms(self) -> dict[str, Limit]:
        """The limits that are exceeded, by what is wrong."""
        if not self._config.enabled:
            return {}
        return {text: limit for limit in self._limits if (text := self._exceeded(limit)) is not None}

    def decide(self) -> dict[Reaction, str]:
        """The reactions that this step needs, each with its reasons. Warns of an alarm when it begins.

        A skipped step throttles nothing: without either update nothing would ever change again.
        """
        alarms = self.alarms()
        for text, limit in alarms.items():
            if limit.key not in self._known and limit.reaction != Reaction.skip:  # which is told at each skipped step
                logger.warning("guard: %s (guard.on_%s=%s)", text, limit.key, limit.reaction)
        self._known = {limit.key for limit in alarms.values()}
        reasons: dict[Reaction, list[str]] = {}
        for text, limit in alarms.items():
            reasons.setdefault(limit.reaction, []).append(text)
        if Reaction.skip in reasons:
            reasons.pop(Reaction.throttle, None)
        return {reaction: "; ".join(texts) for reaction, texts in reasons.items()}

    def is_good(self, state: Mapping[str, Any]) -> bool:
        """Whether a run can go back to a saved state: whether it would neither be rolled back nor stopped there."""
        there = CollapseGuard(self._config)
        there.load_state_dict(state)
        return not any(limit.reaction in (Reaction.roll_back, Reaction.stop) for limit in there.alarms().values())

    def roll_back(self, state: Mapping[str, Any]) -> None:
        """Takes the state of an earlier checkpoint, and counts that this was done."""
        n = self.n_rollbacks + 1
        self.load_state_dict(state)
        self.n_rollbacks = n

    def _exceeded(self, limit: Limit) -> str | None:
        mean = self._means[limit.measure]
        assert limit.value is not None
        if mean.value is None or not mean.is_settled:
            return None
        value = abs(mean.value) if limit.of_magnitude else mean.value
        if value <= limit.value if limit.is_upper else value >= limit.value:
            return None
        side = "above" if limit.is_upper else "below"
        return f"{NAMES[limit.measure]} is {mean.value:.3f}, {side} guard.{limit.key}={limit.value}"

    def state_dict(self) -> dict[str, Any]:
        """All that the decisions of later steps depend on, as JSON can hold it."""
        return {
            "rollbacks": self.n_rollbacks,
            "known": sorted(self._known),
            "means": {name: [mean.value, mean.n] for name, mean in self._means.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.n_rollbacks = state["rollbacks"]
        self._known = set(state["known"])
        for name, (value, n) in state["means"].items():
            self._means[name].value, self._means[name].n = value, n
