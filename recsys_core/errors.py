"""The errors that twotempo raises: each says what was found, what was allowed, what to do."""

LONGEST_LINE = 600


class TwotempoError(Exception):
    """Anything that a person can mend; the command line prints it as one line, without a
    traceback.

    Names and values of a log may hold anything: what cannot be printed is escaped, and a line
    that is too long for its reader loses its middle.
    """

    def __str__(self) -> str:
        line = "".join(map(_printable, super().__str__()))
        if len(line) <= LONGEST_LINE:
            return line
        # the remedy stands at the end
        half = LONGEST_LINE // 2 - 1
        return f"{line[:half]} … {line[-half + 1 :]}"


class ConfigError(TwotempoError):
    """params.yaml, a dataset card or a setting is not what it should be."""


class DataError(TwotempoError):
    """The log itself cannot be used."""


class ContractError(TwotempoError):
    """A table or artifact between two steps breaks its contract."""


class ModelError(TwotempoError):
    """A model cannot be trained, exported or scored."""


class PublishError(TwotempoError):
    """A table of recommendations cannot be published."""


class BusyError(PublishError):
    """The published file is open elsewhere; the same may work a little later."""


class StepError(TwotempoError):
    """A step of a run failed, ran out of time, or may not start.

    `may_pass` says whether the same step may work a little later, with nothing mended.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
