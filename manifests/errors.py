"""The exceptions that reach a user as one line (or a line a row) instead of a traceback."""

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 20  # problems in one message


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an error says, to stand in a message of ours: one line of at most `limit` characters, no full stop."""
    return " ".join(str(error).split())[:limit].rstrip(". ") or type(error).__name__


class InputError(ValueError):
    """The user's mistake: a bad file, row, name or option. The command line exits with 2.

    The message is one line: which file, which row, what was expected, what to do.
    """


class NoAccess(InputError):
    """A store or folder that does not let us look. It says nothing about what lies there."""


class BrokenShard(InputError):
    """A tar that is cut short or damaged: what it has given so far is whole, the rest is lost."""


class RunError(RuntimeError):
    """The work could not be done, through no mistake of the command. The command line exits with 1."""


class EnvironmentFault(RunError):
    """The machine, the share, the store or the device is at fault. It says nothing about a row, and may pass.

    Never the outcome of a row. Made of its message alone, so that it crosses process borders.
    """


class ReadFault(EnvironmentFault):
    """Audio that this machine cannot read now, or does not find where there is no sign that it is really gone."""


class Unreachable(EnvironmentFault):
    """An object store that does not answer. It says nothing about what lies there."""


class DeviceFault(EnvironmentFault):
    """The device of this process is lost: all that it computes from now on fails. A new process may do better."""


@dataclass(frozen=True)
class Problem:
    """One line about one row of one file. `row` counts lines from 1; 0 is the file as a whole."""

    file: str
    row: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.row}: {self.message}" if self.row else f"{self.file}: {self.message}"


class ManifestError(InputError):
    """A manifest that cannot be read as one. `problems` has every row at fault."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(p) for p in problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"... and {len(problems) - SHOWN} more rows")
        super().__init__("\n".join(lines))
