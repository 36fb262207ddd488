"""What ends a command: one sentence, and the exit code by which scripts tell why (docs/cli.md)."""

from enum import IntEnum

from pipedai_cli.text import one_line, shorten

_LONGEST = 4000


class Exit(IntEnum):
    """The exit codes. 0 is success; with `--wait`, a run that succeeded."""

    # With `--wait`: the run ended in any other way than succeeding.
    NOT_SUCCEEDED = 1
    # The command line or a file is wrong. Click uses the same number.
    USAGE = 2
    # The service can't be reached, or what answers is not the service.
    UNREACHABLE = 3
    # The service refused.
    REFUSED = 4
    # With `--wait`: the run waits until a person approves a call.
    WAITS_FOR_A_PERSON = 5


class Failure(Exception):  # noqa: N818 - it is what the user is told, and no fault of the program
    """Ends the command with this sentence on stderr, which is cut, and whose control characters are escaped."""

    def __init__(self, exit_code: Exit, sentence: str) -> None:
        super().__init__(shorten(one_line(sentence), _LONGEST))
        self.exit_code = exit_code


class Refused(Failure):
    """The API answered with an error."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(Exit.REFUSED, sentence)
        self.status = status
        self.code = code


def wrong_usage(sentence: str) -> Failure:
    return Failure(Exit.USAGE, sentence)
