"""What cannot be read as a model, and a library's error in one line."""

from conf.errors import UserError


class FormatError(UserError, ValueError):
    """A file or folder that holds no model we can read, told in one line that names what is wrong."""


def reason(error: BaseException) -> str:
    """What a library's error says, in one line; without the file's name, which our messages begin with."""
    # torch's CheckpointException says of which ranks the errors are, and keeps the errors to itself.
    for rank_error, _ in getattr(error, "failures", {}).values():
        return reason(rank_error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return error.strerror
    return (str(error).strip() or type(error).__name__).split("\n")[0]
