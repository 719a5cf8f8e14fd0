"""The names that the package itself offers."""

import pytest

import reasoning_irl
from reasoning_irl.models.reward_function import RewardFunction
from reasoning_irl.models.reward_model import RewardModel, Scored
from tests.helpers.commands import run_python


def test_public_names_are_imported_when_used() -> None:
    assert (reasoning_irl.RewardFunction, reasoning_irl.RewardModel) == (RewardFunction, RewardModel)
    assert {name: getattr(reasoning_irl, name) for name in reasoning_irl.__all__}["Scored"] is Scored
    with pytest.raises(AttributeError, match="no attribute 'Reward'"):
        reasoning_irl.Reward  # noqa: B018


def test_importing_the_package_does_not_import_torch() -> None:
    done = run_python("-c", "import sys, reasoning_irl; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)")
    assert done.returncode == 0, done.stderr
