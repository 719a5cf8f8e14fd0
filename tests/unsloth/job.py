"""One training job in its own process, as the scripts run it: python job.py CONFIG OVERRIDE..."""

import sys

from reasoning_irl.training.run import run_training
from tests.helpers.configs import compose_any

if __name__ == "__main__":
    run_training(compose_any(*sys.argv[1:]))
    assert "unsloth" in sys.modules
