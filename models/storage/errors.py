"""What cannot be read as a model."""

from conf.errors import UserError


class FormatError(UserError, ValueError):
    """A file or folder that holds no model we can read; one line names what is wrong."""
