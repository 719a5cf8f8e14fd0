"""Errors with a message for the user, shown as one line with exit code 2."""


class UserError(Exception):
    """A mistake that the user can fix; the message says what is wrong and what to do."""


class ConfigError(UserError):
    """A configuration that cannot run."""


class DataError(UserError):
    """A data file or record that cannot be used."""
