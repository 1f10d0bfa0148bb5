"""A file that one process holds at a time, and that is gone when its holder has let go of it."""

import errno
import fcntl
import logging
import os
import socket
import time
from pathlib import Path

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.05
_REMIND_SECONDS = 30.0
# Some cluster file systems are mounted without locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
_held: set[int] = set()


class FolderLock:
    """Held from `acquire` until `release` or the end of the process; a killed process leaves the file for the next.

    Whoever waits may have opened the file just before its holder deletes it. So a lock counts only if the file is still
    the one of that name; or else two processes could hold one each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, seconds: float) -> None:
        """Wait for it, and say who holds it; raises TimeoutError, which says it too, after that many seconds."""
        began = time.monotonic()
        remind = began + 1.0  # who is about to let go of it is not worth a line
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if _lock(descriptor) and self._is(descriptor):
                    self._descriptor = descriptor
                    _held.add(descriptor)
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
                else:
                    holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
            if self._descriptor is None:
                now = time.monotonic()
                if now > began + seconds:
                    raise TimeoutError(holder)
                if now > remind:
                    remind = now + _REMIND_SECONDS
                    logger.warning(
                        "%s is held by %s; waiting for it, at most %.0f s more",
                        self.path,
                        holder,
                        began + seconds - now,
                    )
                time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Delete the file, and let others in."""
        if self._descriptor is not None:
            if self._is(self._descriptor):
                self.path.unlink()
            _held.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning("no locks on this file system: see to it that nobody else trains in the same folder")
    return True


def _let_go_in_child() -> None:
    """A forked process that outlives this one would hold the lock on."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go_in_child)
