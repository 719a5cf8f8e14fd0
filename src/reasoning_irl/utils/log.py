"""The package's logger."""

import logging

logger = logging.getLogger("reasoning_irl")
