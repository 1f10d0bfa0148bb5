"""What runs in a fresh interpreter: leaves the machine's namespaces, watches over one program, and reports.

Three processes. The first leaves the namespaces and waits. The second is process 1 of the new ones: what it leaves
running ends with it. The third becomes the program (program.py). The order comes as a line on standard input, which
stays open as long as whoever ordered lives; the report goes to standard output.
"""

import json
import os
import sys
from typing import Any

from eval.sandbox import linux
from eval.sandbox.root import make_root
from eval.sandbox.supervisor import supervise
from eval.sandbox.way import Way

_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)
_NOBODY = 65534
# Above all that is given to people, services and containers. One for each sandbox, because the limit on processes
# counts all that a user has.
_FIRST_USER = 1_900_000_000
# Processes of the sandbox that count as the program's.
_OF_THE_SAME_USER = {Way.root: 0, Way.user: 2, Way.bubblewrap: 1}


def main() -> None:
    """Carry out the order; does not return."""
    order = json.loads(sys.stdin.buffer.readline())
    way = Way(order["way"])
    order["limits"]["processes"] += _OF_THE_SAME_USER[way]
    try:
        user = None if way is Way.bubblewrap else _leave(way)
        if way is Way.bubblewrap or (child := os.fork()) == 0:
            _first_process(order, way, user)
    except OSError as error:
        _report({"error": f"{error.filename}: {error.strerror}" if error.filename else error.strerror})
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _leave(way: Way) -> int | None:
    """Unshare everything. Returns the user to become, for those who are root."""
    if way is Way.root:
        linux.unshare(_NAMESPACES)
        return _FIRST_USER + os.getpid()
    if os.geteuid() == 0:
        _change_user(_NOBODY)
        linux.set_dumpable(True)  # else /proc/self/uid_map is still root's
    user, group = os.geteuid(), os.getegid()
    linux.unshare(_NAMESPACES | linux.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{_NOBODY} {user} 1"), ("gid_map", f"{_NOBODY} {group} 1")):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(text)
    return None


def _change_user(user: int) -> None:
    """Become an ordinary user in no group but its own."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _first_process(order: dict[str, Any], way: Way, user: int | None) -> None:
    linux.die_with_parent()
    if way is Way.bubblewrap:
        proc = os.open("/proc", os.O_RDONLY)
    else:
        proc = make_root(order["shown"], order["limits"]["disk_bytes"])
    linux.set_dumpable(False)

    def drop() -> None:
        if user is not None:
            try:
                _change_user(user)
            except OSError:  # a container that has few users
                _change_user(_NOBODY)
        linux.drop_capabilities()

    _report(supervise(order, proc, drop))


def _report(report: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()
    os._exit(0)
