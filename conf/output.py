"""Where a command writes."""

import errno
import os
import tempfile
from pathlib import Path

from conf.strict import ConfigError

LONGEST_NAME = 255
"""Bytes in the name of a file or folder, on nearly every file system."""
NOT_THERE = (errno.ENOENT, errno.ENOSYS)
"""What /proc and its like answer."""


def writable(path: str | Path, key: str = "output") -> Path:
    """The path that `key` gives, once a file can be written there. Raises ConfigError before anything is measured.

    The file's folder is made; a file that is there stays as it is.
    """
    path = Path(path).expanduser()
    if path.exists() and not path.is_file():
        raise ConfigError(f"{key}={path}: is no file; give the name of one")
    writable_folder(path.parent, key, given=path)
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{key}={path}: may not be written; choose another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{key}={path}: {error.strerror}; choose another") from None
    return path


def writable_folder(folder: str | Path, key: str, *, given: Path | None = None) -> Path:
    """The folder that `key` gives, once it is clear that it can be made or written to. It is left as it is.

    What decides is the nearest folder above it that exists: one more is made there for a moment, because permissions,
    read-only disks and /proc each say no in a way of their own.

    Args:
        folder: may be missing, with folders above it.
        key: the user's, for the message.
        given: the value of `key`, where it is a file in the folder.

    Raises ConfigError.
    """
    folder = Path(folder).expanduser()
    said = f"{key}={given or folder}"
    nearest = folder.absolute()
    try:
        while not os.path.lexists(nearest):
            nearest = nearest.parent
        if not nearest.is_dir():
            what = "is a link to nothing" if nearest.is_symlink() else "is no folder"
            raise ConfigError(f"{said}: {nearest} {what}; choose another")
        for name in (given or folder).parts:
            if len(os.fsencode(name)) > LONGEST_NAME:
                raise ConfigError(f"{said}: a name in it is longer than {LONGEST_NAME} bytes; choose a shorter one")
        os.rmdir(tempfile.mkdtemp(prefix=".writable-", dir=nearest))
    except OSError as error:
        reason = error.strerror if error.errno not in NOT_THERE else "no folder can be made there"
        raise ConfigError(f"{said}: nothing can be written in {nearest} ({reason}); choose another") from None
    return folder
