"""The two exceptions that reach a user as one line instead of a traceback."""


class InputError(ValueError):
    """The user's mistake: a bad file, row, name or option. The command line exits with 2.

    The message is one line: which file, which row, what was expected, what to do.
    """


class RunError(RuntimeError):
    """The work could not be done, through no mistake of the command. The command line exits with 1."""


class Unreachable(RunError):
    """An object store that does not answer. It says nothing about what lies there."""
