"""What cannot be read as a model, and a library's error in one line."""

from conf.errors import UserError


class FormatError(UserError, ValueError):
    """A file or folder that holds no model we can read, told in one line that names what is wrong."""


def reason(error: BaseException) -> str:
    """What a library's error says, in one line."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]
