"""Errors whose message is written for the user: shown as one line, exit code 2."""


class UserError(Exception):
    """Something the user can put right; the message says what is wrong and what to do."""


class ConfigError(UserError):
    """A configuration that cannot run."""


class DataError(UserError):
    """A data file or record that cannot be used."""
