"""Our C kernels as one library of functions, where this machine has a compiler."""

import ctypes
import logging
from functools import cache
from pathlib import Path

from models.kernels.c_library import NoLibraryError, c_library

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")


@cache
def library() -> ctypes.CDLL | None:
    """The library; None, once told why, where it cannot be had."""
    try:
        found = c_library(SOURCE)
    except NoLibraryError as why:
        logger.warning("decoding on the CPU takes two to four times as long without our own kernels: %s", why)
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_long
    found.few_rows.argtypes = [
        *(ctypes.c_int, pointer, number, pointer, pointer, number, number),
        *(pointer, pointer, pointer, ctypes.c_int),
    ]
    found.few_blocks.argtypes = [pointer, pointer, number]
    found.few_tokens.argtypes = [pointer]
    logits = (pointer, ctypes.c_int, number, ctypes.c_float)
    found.draw_token.argtypes = [*logits, ctypes.c_double, pointer]
    found.accept_drafts.argtypes = [*logits, number, pointer, pointer, pointer, ctypes.c_double, pointer, pointer]
    found.draw_token.restype = found.accept_drafts.restype = number
    return found
