"""Files that are complete or absent, whenever a process is killed or the disk is full."""

import io
import os
from pathlib import Path

import numpy as np

from conf.errors import naming


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name and rename it: a kill leaves no half file behind, and a full disk the old file.

    Raises OSError, which names the file.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with naming(path):
            partial.write_bytes(content)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def write_whole_array(path: Path, array: np.ndarray) -> None:
    """`write_whole` of a .npy file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_whole(path, content.getvalue())


def write_array(path: Path, array: np.ndarray) -> None:
    """What np.save writes, in calls that say why they fail. Raises OSError, which names the file."""
    with naming(path), path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        stream.write(np.ascontiguousarray(array).data)
