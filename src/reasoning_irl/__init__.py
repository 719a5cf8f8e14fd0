"""Learn a dense reasoning reward from expert demonstrations (adversarial inverse RL)."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from reasoning_irl.models.reward_function import RewardFunction
    from reasoning_irl.models.reward_model import RewardModel, Scored
else:

    def __getattr__(name: str) -> object:
        """Imports the public classes when they are first used, because they need torch."""
        from importlib import import_module

        modules = {"RewardFunction": "reward_function", "RewardModel": "reward_model", "Scored": "reward_model"}
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.models.{modules[name]}"), name)


__all__ = ["RewardFunction", "RewardModel", "Scored"]
