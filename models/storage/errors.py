"""What cannot be read as a model."""

from conf.errors import UserError


class FormatError(UserError, ValueError):
    """A file or folder that holds no model we can read, told in one line that names what is wrong."""
