"""The package's logger, and what the libraries show in the terminal."""

import logging
import os
import re

logger = logging.getLogger("reasoning_irl")

# Their warnings are about optional parts that they lack, or about each other.
QUIET = ("torchao", "bitsandbytes", "torch.utils._pytree")


def is_verbose() -> bool:
    """Whether all that the libraries print is shown: `hydra.verbose=true`, or `hydra.verbose=reasoning_irl`."""
    return logger.isEnabledFor(logging.DEBUG)


def quiet_libraries() -> None:
    """Leaves out the libraries' progress bars and the warnings that no user can act on, unless `is_verbose`.

    Call it before they are imported: that is when they read the environment.
    """
    if is_verbose():
        return
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):  # the first: transformers' too
        os.environ.setdefault(name, "1")
    logging.getLogger("transformers.modeling_utils").addFilter(is_unexpected)


def is_unexpected(record: logging.LogRecord) -> bool:
    """False for the report on a language model loaded as a reward model, whose score head is new as it should be."""
    heading, is_report, report = record.getMessage().partition("LOAD REPORT")
    if not is_report or "ForTokenClassification" not in heading:
        return True
    keys = set(re.findall(r"^(\S+)\s*\|", report, re.MULTILINE)) - {"Key"}
    return any(not key.startswith(("score.", "lm_head.")) for key in keys)
