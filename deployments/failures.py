"""What a command says, and how it ends, where something outside of it is wrong."""

from storage.errors import MissingInput, SpecError, StoreRefused

FAILED, WRONG_INPUT = 1, 2


def sentence(error: Exception) -> str:
    """The message of one of our own errors, or what the operating system refuses, and where."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename is not None else "")
    return str(error)


def exit_status(error: Exception) -> int:
    """2 where an input, an option or a setting is wrong or missing, 1 for any other failure."""
    return WRONG_INPUT if isinstance(error, SpecError | MissingInput | StoreRefused) else FAILED
