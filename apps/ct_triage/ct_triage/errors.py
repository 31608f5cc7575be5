"""What can go wrong for a user, each kind with the exit code that a workflow can route on."""


class TriageError(Exception):
    """A problem the user can act on, told in one line that never holds patient data.

    The message names the file or series, what is wrong and what to do.
    """

    exit_code = 1


class NoSeriesError(TriageError):
    """The input holds no series that the models can be run on."""

    exit_code = 3


class BrokenSeriesError(TriageError):
    """The chosen series cannot be turned into a volume without guessing."""

    exit_code = 4


class ModelError(TriageError):
    """A model is missing, was changed, or does not describe its own input."""

    exit_code = 5


class OutputError(TriageError):
    """The results cannot be written."""

    exit_code = 6
