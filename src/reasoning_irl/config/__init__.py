"""Configuration: typed Hydra schemas, the search path, range checks, and error messages that name the key."""

from reasoning_irl.config.compose import register, to_config
from reasoning_irl.config.main import hydra_main

__all__ = ["hydra_main", "register", "to_config"]
